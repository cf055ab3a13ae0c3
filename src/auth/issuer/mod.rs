//! One trusted issuer: its rules and its own keys, which vouch for no other issuer.

pub(in crate::auth) mod builtin;
pub(in crate::auth) mod mint;

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};

use self::builtin::IssuerKey;
use crate::auth::denied::{Denied, quoted};
use crate::auth::key::LoadedKey;
use crate::auth::token::claims::{ABSENT, ClaimRules, is_plain, list};
use crate::auth::token::compact::Compact;
use crate::auth::token::header::Header;
use crate::auth::token::time::TimeRules;
use crate::auth::{GateError, IssuerConfig, IssuerProblem, KeyConfig, KeyError};

/// An issuer ready to verify.
#[derive(Debug)]
pub(in crate::auth) struct Issuer {
    pub rules: ClaimRules,
    algorithms: Vec<Algorithm>,
    keys: Vec<Key>,
}

/// What may be told about a trusted issuer; nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSummary {
    /// Its `iss`.
    pub issuer: String,
    /// The audiences that its tokens may name.
    pub audiences: Vec<String>,
    /// JWS algorithm names.
    pub algorithms: Vec<String>,
    /// How many keys may vouch for it.
    pub keys: usize,
}

#[derive(Debug)]
struct Key {
    /// Absent only for an issuer's single key.
    id: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    verifying: DecodingKey,
}

impl Issuer {
    /// Judges `config` whole and loads its keys.
    pub fn new(config: &IssuerConfig) -> Result<Self, GateError> {
        let fault = |problem| GateError::Issuer {
            issuer: config.issuer.clone(),
            problem,
        };
        let rules = rules(config).map_err(fault)?;
        let configured = config
            .algorithms
            .as_deref()
            .map(algorithms)
            .transpose()
            .map_err(fault)?;
        let mut keys = Vec::with_capacity(config.keys.len());
        for (index, key) in config.keys.iter().enumerate() {
            keys.push(
                Key::load(key, configured.as_deref()).map_err(|problem| GateError::Key {
                    issuer: config.issuer.clone(),
                    number: index + 1,
                    problem,
                })?,
            );
        }
        check_ids(&keys).map_err(fault)?;
        let mut served = Vec::new();
        for algorithm in keys.iter().flat_map(|key| &key.algorithms) {
            if !served.contains(algorithm) {
                served.push(*algorithm);
            }
        }
        let unserved = configured
            .iter()
            .flatten()
            .find(|algorithm| !served.contains(algorithm));
        if let Some(&algorithm) = unserved {
            return Err(fault(IssuerProblem::UnservedAlgorithm { algorithm }));
        }
        Ok(Self {
            rules,
            algorithms: served,
            keys,
        })
    }

    /// The rules for tokens that this server minted itself, with these keys.
    pub fn of_builtin_keys(keys: &[IssuerKey]) -> Self {
        let keys = keys
            .iter()
            .map(|key| Key {
                id: Some(key.key_id().into()),
                algorithms: vec![Algorithm::EdDSA],
                verifying: key.verifying_key(),
            })
            .collect();
        let rules = ClaimRules {
            issuer: builtin::ISSUER.into(),
            audience_claim: "aud".into(),
            audiences: vec![builtin::AUDIENCE.into()],
            token_types: vec!["at+jwt".into()],
            // Minted and checked by the same clock; 5 s forgive a step of that clock.
            time: TimeRules {
                skew: 5,
                max_lifetime: builtin::MAX_TTL.as_secs(),
            },
            tenant_claim: Some("tenant".into()),
            client_claims: vec!["client_id".into()],
            scope_claims: vec!["scope".into()],
            default_scopes: Vec::new(),
            required: Vec::new(),
        };
        Self {
            rules,
            algorithms: vec![Algorithm::EdDSA],
            keys,
        }
    }

    /// What may be told about it.
    pub fn summary(&self) -> IssuerSummary {
        IssuerSummary {
            issuer: self.rules.issuer.to_string(),
            audiences: self
                .rules
                .audiences
                .iter()
                .map(ToString::to_string)
                .collect(),
            algorithms: self
                .algorithms
                .iter()
                .map(|name| format!("{name:?}"))
                .collect(),
            keys: self.keys.len(),
        }
    }

    /// Checks the signature with the one key that may vouch for it.
    ///
    /// # Errors
    /// `InvalidToken`, whatever is wrong.
    pub fn verify(&self, header: &Header, token: &Compact<'_>) -> Result<(), Denied> {
        let algorithm = header.algorithm;
        if !self.algorithms.contains(&algorithm) {
            let taken: Vec<String> = self
                .algorithms
                .iter()
                .map(|taken| format!("{taken:?}"))
                .collect();
            return Err(Denied::token(format!(
                "the algorithm is {algorithm:?}, this issuer's tokens have {}",
                list(&taken)
            )));
        }
        let key = self.key(header.key_id.as_deref())?;
        if !key.algorithms.contains(&algorithm) {
            return Err(Denied::token(format!(
                "the key that the token names does not serve {algorithm:?}"
            )));
        }
        match jsonwebtoken::crypto::verify(
            token.signature,
            token.signing_input,
            &key.verifying,
            algorithm,
        ) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Denied::token(format!(
                "the signature does not match {}",
                key.described()
            ))
            .at("signature")),
        }
    }

    /// The key of this id; without an id, the issuer's only key.
    fn key(&self, id: Option<&str>) -> Result<&Key, Denied> {
        match (id, &self.keys[..]) {
            (None, [only]) => Ok(only),
            (None, keys) => Err(Denied::token(format!(
                "the token names no key (`kid`), and this issuer has {}",
                keys.len()
            ))),
            (Some(_), [only @ Key { id: None, .. }]) => Ok(only),
            (Some(id), keys) => keys
                .iter()
                .find(|key| key.id.as_deref() == Some(id))
                .ok_or_else(|| {
                    let known: Vec<&str> =
                        keys.iter().filter_map(|key| key.id.as_deref()).collect();
                    Denied::token(format!(
                        "the key id is {}, this issuer has {}",
                        quoted(id),
                        list(&known)
                    ))
                }),
        }
    }
}

impl Key {
    fn load(config: &KeyConfig, configured: Option<&[Algorithm]>) -> Result<Self, KeyError> {
        let loaded = LoadedKey::load(config)?;
        let usual = [loaded.default_algorithm()];
        let algorithms = loaded.serves(configured.unwrap_or(&usual))?;
        if algorithms.is_empty() {
            return Err(KeyError::ServesNothing);
        }
        Ok(Self {
            id: loaded.id.map(Into::into),
            algorithms,
            verifying: loaded.material.key,
        })
    }

    fn described(&self) -> String {
        match &self.id {
            Some(id) => format!("the key {}", quoted(id)),
            None => "this issuer's key".to_owned(),
        }
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
            name.parse().map_err(|_| IssuerProblem::UnknownAlgorithm {
                given: name.clone(),
            })
        })
        .collect()
}

/// Several keys need distinct ids: a token must name exactly one.
fn check_ids(keys: &[Key]) -> Result<(), IssuerProblem> {
    if keys.is_empty() {
        return Err(IssuerProblem::Empty { field: "keys" });
    }
    if keys.len() == 1 {
        return Ok(());
    }
    for (index, key) in keys.iter().enumerate() {
        let Some(id) = &key.id else {
            return Err(IssuerProblem::KeyWithoutId {
                count: keys.len(),
                number: index + 1,
            });
        };
        if keys[..index]
            .iter()
            .any(|earlier| earlier.id.as_ref() == Some(id))
        {
            return Err(IssuerProblem::DuplicateId {
                kid: id.to_string(),
            });
        }
    }
    Ok(())
}

/// Judges everything but the keys.
fn rules(config: &IssuerConfig) -> Result<ClaimRules, IssuerProblem> {
    let range = |field, given, min, max| {
        let inside = (min..=max).contains(&given);
        if inside {
            Ok(given)
        } else {
            Err(IssuerProblem::Range {
                field,
                given,
                min,
                max,
            })
        }
    };
    let required = config
        .required_claims
        .iter()
        .map(|(name, values)| {
            Ok((
                name.as_str().into(),
                some("required_claims", values.as_slice())?,
            ))
        })
        .collect::<Result<_, _>>()?;
    let or_default = |field, names: Option<&[String]>, default: &[&str]| match names {
        Some(names) => some(field, names),
        None => Ok(default.iter().map(|&name| name.into()).collect()),
    };
    let token_types = config.token_types.as_deref();
    Ok(ClaimRules {
        issuer: Arc::from(&*plain("issuer", &config.issuer)?),
        audience_claim: plain("audience_claim", &config.audience_claim)?,
        audiences: some("audiences", &config.audiences)?,
        token_types: or_default("token_types", token_types, &[ABSENT, "jwt", "at+jwt"])?
            .iter()
            .map(|name| name.to_ascii_lowercase().into())
            .collect(),
        time: TimeRules {
            skew: range("clock_skew_s", config.clock_skew_s, 0, 300)?,
            max_lifetime: range("max_lifetime_s", config.max_lifetime_s, 1, MAX_LIFETIME_S)?,
        },
        tenant_claim: config
            .tenant_claim
            .as_deref()
            .map(|name| plain("tenant_claim", name))
            .transpose()?,
        client_claims: match &config.client_claim {
            Some(name) => vec![plain("client_claim", name)?],
            None => vec!["client_id".into(), "azp".into()],
        },
        scope_claims: or_default(
            "scope_claims",
            config.scope_claims.as_deref(),
            &["scope", "scp"],
        )?,
        default_scopes: all("default_scopes", &config.default_scopes)?,
        required,
    })
}

fn plain(field: &'static str, name: &str) -> Result<Box<str>, IssuerProblem> {
    if is_plain(name) {
        Ok(name.into())
    } else {
        Err(IssuerProblem::NotPlain { field })
    }
}

fn all(field: &'static str, names: &[String]) -> Result<Vec<Box<str>>, IssuerProblem> {
    if names.iter().all(|name| is_plain(name)) {
        Ok(names.iter().map(|name| name.as_str().into()).collect())
    } else {
        Err(IssuerProblem::NotPlain { field })
    }
}

fn some(field: &'static str, names: &[String]) -> Result<Vec<Box<str>>, IssuerProblem> {
    if names.is_empty() {
        Err(IssuerProblem::Empty { field })
    } else {
        all(field, names)
    }
}

/// A year and a day; longer-lived tokens cannot be told from forgotten ones.
const MAX_LIFETIME_S: u64 = 366 * 24 * 3600;
