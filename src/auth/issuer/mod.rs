//! One trusted issuer: its rules and its own keys, which vouch for no other issuer.

pub(in crate::auth) mod builtin;
pub(in crate::auth) mod jwks;
mod keys;
pub(in crate::auth) mod mint;
mod preset;
mod rules;
mod source;

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use self::builtin::IssuerKey;
use self::jwks::Remote;
use self::jwks::fetch::Http;
use self::keys::{Key, KeySet, takes};
use self::source::Location;
use crate::auth::denied::{Denied, Reason};
use crate::auth::key::{LoadedKey, algorithm};
use crate::auth::token::claims::ClaimRules;
use crate::auth::token::compact::Compact;
use crate::auth::token::header::Header;
use crate::auth::token::time::TimeRules;
use crate::auth::{GateError, IssuerConfig, IssuerProblem};

pub use preset::{PRESETS, Preset, PresetFacts};

/// An issuer ready to verify.
#[derive(Debug)]
pub(in crate::auth) struct Issuer {
    /// The exact `iss` of the tokens that it is for.
    pub iss: Arc<str>,
    pub rules: ClaimRules,
    keys: Keys,
}

/// Where the keys are.
#[derive(Debug, Clone)]
enum Keys {
    /// Here, for as long as the process lives.
    Fixed(Arc<KeySet>),
    /// Fetched, and fetched again.
    Remote(Arc<Remote>),
}

/// What may be told about a trusted issuer; nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSummary {
    /// Its `iss`.
    pub issuer: String,
    /// The audiences that its tokens may name.
    pub audiences: Vec<String>,
    /// JWS algorithm names; empty while they are not known because its keys were not fetched yet.
    pub algorithms: Vec<String>,
    /// How many keys may vouch for it now.
    pub keys: usize,
    /// Where its keys are fetched from; `None` for keys of the configuration.
    pub keys_url: Option<String>,
}

impl Issuer {
    /// Judges `config` whole and loads the keys that it holds: one issuer, or one for each tenant of a template. All
    /// of them have the same keys.
    ///
    /// Touches no network.
    pub fn all(config: &IssuerConfig) -> Result<Vec<Self>, GateError> {
        let fault = |problem| GateError::Issuer {
            issuer: config.issuer.clone(),
            problem,
        };
        let filled;
        let config = match config.preset {
            Some(preset) => {
                filled = preset.fill(config).map_err(fault)?;
                &filled
            }
            None => config,
        };
        let rules = rules::rules(config).map_err(fault)?;
        let configured = config
            .algorithms
            .as_deref()
            .map(algorithms)
            .transpose()
            .map_err(fault)?;
        let stale_s = config.stale_if_error_s.unwrap_or(24 * 3600);
        let stale_s = rules::range("stale_if_error_s", stale_s, 0, 7 * 24 * 3600).map_err(fault)?;
        let keys = match Location::of(config).map_err(fault)? {
            None => Keys::Fixed(Arc::new(fixed(config, configured.as_deref())?)),
            Some(location) => {
                // A secret that is published is none.
                let secret = configured
                    .iter()
                    .flatten()
                    .find(|algorithm| algorithm.family() == jsonwebtoken::AlgorithmFamily::Hmac);
                if let Some(&algorithm) = secret {
                    return Err(fault(IssuerProblem::UnservedAlgorithm { algorithm }));
                }
                let http = Http::new(location, config).map_err(fault)?;
                Keys::Remote(Arc::new(Remote::new(
                    config.issuer.clone(),
                    config.required,
                    configured,
                    Duration::from_secs(stale_s),
                    Box::new(http),
                )))
            }
        };
        let issuers = rules::expand(config, rules).map_err(fault)?;
        let issuers = issuers.into_iter().map(|(iss, rules)| Self {
            iss,
            rules,
            keys: keys.clone(),
        });
        Ok(issuers.collect())
    }

    /// The rules for tokens that this server minted itself, with these keys.
    pub fn of_builtin_keys(keys: &[IssuerKey]) -> Self {
        let keys = keys
            .iter()
            .map(|key| Key {
                id: Some(key.key_id().into()),
                algorithms: vec![Algorithm::EdDSA],
                verifying: key.verifying_key(),
                issuer: None,
            })
            .collect();
        let rules = ClaimRules {
            issuer: builtin::ISSUER.into(),
            audience_claim: "aud".into(),
            audiences: vec![builtin::AUDIENCE.into()],
            token_types: vec!["at+jwt".into()],
            accept_id_tokens: false,
            // Minted and checked by the same clock; 5 s forgive a step of that clock.
            time: TimeRules {
                skew: 5,
                max_lifetime: builtin::MAX_TTL.as_secs(),
            },
            subject_claim: "sub".into(),
            token_id_claim: "jti".into(),
            tenant_claim: Some("tenant".into()),
            client_claims: vec!["client_id".into()],
            scope_claims: vec!["scope".into()],
            scope_prefix: None,
            default_scopes: Vec::new(),
            required: Vec::new(),
            present: Vec::new(),
        };
        Self {
            iss: rules.issuer.clone(),
            rules,
            keys: Keys::Fixed(Arc::new(KeySet::new(keys))),
        }
    }

    /// What may be told about it.
    pub fn summary(&self) -> IssuerSummary {
        let keys = match &self.keys {
            Keys::Fixed(keys) => Some(keys.clone()),
            Keys::Remote(remote) => remote.keys(),
        };
        let configured = self.remote().and_then(Remote::algorithms);
        let algorithms = configured
            .or_else(|| keys.as_ref().map(|keys| keys.algorithms()))
            .unwrap_or_default();
        IssuerSummary {
            issuer: self.iss.to_string(),
            audiences: self
                .rules
                .audiences
                .iter()
                .map(ToString::to_string)
                .collect(),
            algorithms: algorithms.iter().map(|name| format!("{name:?}")).collect(),
            keys: keys.as_ref().map_or(0, |keys| keys.len()),
            keys_url: self.remote().map(|remote| remote.url()),
        }
    }

    /// Where its keys come from, if they are fetched.
    pub fn remote(&self) -> Option<&Remote> {
        match &self.keys {
            Keys::Fixed(_) => None,
            Keys::Remote(remote) => Some(remote),
        }
    }

    /// The same, to be kept.
    pub fn shared_remote(&self) -> Option<&Arc<Remote>> {
        match &self.keys {
            Keys::Fixed(_) => None,
            Keys::Remote(remote) => Some(remote),
        }
    }

    /// Lets a token with this header wait for a fetch, if only new keys could tell whether it is good. At once in any
    /// other case, and never for longer than [`jwks::MAX_WAIT`].
    pub async fn prepare(&self, header: &Header) {
        if let Keys::Remote(remote) = &self.keys
            && remote.might_take(header.algorithm)
        {
            remote.learn(header.key_id.as_deref()).await;
        }
    }

    /// Checks the signature with the one key that may vouch for it, of those that are at hand. Returns the key's own
    /// id, if it has one: what a revocation of the key names, whatever the token's header says.
    ///
    /// # Errors
    /// `InvalidToken`, whatever is wrong; `AuthUnavailable` if there are no keys to check it with.
    pub fn verify(
        &self,
        header: &Header,
        token: &Compact<'_>,
        claims: &Map<String, Value>,
    ) -> Result<Option<Arc<str>>, Denied> {
        let keys = match &self.keys {
            Keys::Fixed(keys) => keys.clone(),
            Keys::Remote(remote) => {
                if let Some(taken) = remote.algorithms() {
                    takes(taken, header.algorithm)?;
                }
                match remote.keys() {
                    Some(keys) => keys,
                    None if remote.might_take(header.algorithm) => {
                        return Err(Denied::new(Reason::AuthUnavailable, remote.complaint()));
                    }
                    None => return Err(Denied::token("a published key never serves an HMAC")),
                }
            }
        };
        let key = keys.verify(header, token)?;
        let tenant = claims.get(rules::TENANT_CLAIM).and_then(Value::as_str);
        if key.may_vouch_for(&self.iss, tenant) {
            Ok(key.id.as_deref().map(Arc::from))
        } else {
            Err(Denied::token(
                "the key that signed the token is published for another issuer",
            ))
        }
    }
}

/// The keys that the configuration holds.
fn fixed(config: &IssuerConfig, configured: Option<&[Algorithm]>) -> Result<KeySet, GateError> {
    let fault = |problem| GateError::Issuer {
        issuer: config.issuer.clone(),
        problem,
    };
    let mut keys = Vec::with_capacity(config.keys.len());
    for (index, key) in config.keys.iter().enumerate() {
        let loaded = LoadedKey::load(key).and_then(|loaded| Key::new(loaded, configured));
        keys.push(loaded.map_err(|problem| GateError::Key {
            issuer: config.issuer.clone(),
            number: index + 1,
            problem,
        })?);
    }
    let keys = KeySet::new(keys);
    keys.check_ids().map_err(fault)?;
    let unserved = configured
        .into_iter()
        .flatten()
        .find(|algorithm| !keys.algorithms().contains(algorithm));
    match unserved {
        Some(&algorithm) => Err(fault(IssuerProblem::UnservedAlgorithm { algorithm })),
        None => Ok(keys),
    }
}

/// Parses algorithm names; an empty list is a mistake, `none` is no algorithm.
fn algorithms(names: &[String]) -> Result<Vec<Algorithm>, IssuerProblem> {
    if names.is_empty() {
        return Err(IssuerProblem::Empty {
            field: "algorithms",
        });
    }
    names
        .iter()
        .map(|name| {
            algorithm(name).ok_or_else(|| IssuerProblem::UnknownAlgorithm {
                given: name.clone(),
            })
        })
        .collect()
}
