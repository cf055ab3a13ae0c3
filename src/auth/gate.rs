//! The gate itself: headers in, an identity or a refusal out.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use tokio::task::JoinSet;

use super::certificate::{self, Certificates};
use super::credential::{self, Places, Presented};
use super::denied::{Denied, quoted};
use super::follow::Followed;
use super::issuer::Issuer;
use super::issuer::builtin::live::Live;
use super::issuer::jwks::{KeyStats, Remote};
use super::policy::{Explanation, Question};
use super::token::claims::{self, list};
use super::token::compact::Compact;
use super::token::header::Header;
use super::{
    Access, AuthConfig, BuiltinIssuer, Caller, GateError, Identity, IssuerSummary, Limits,
    MAX_DEPTH, Meter, Permit, Policy, PolicyError, PolicyStore, RateLimits, Revoked, Rights,
    Unverified, Vocabulary,
};
use crate::clock::{Clock, Uptime};
use crate::ledger::{Ledger, LedgerError};
use crate::strict_json;

/// Verifies who calls and admits them. Shared by all connections; it fetches issuers' keys in the background, once
/// [`Gate::start`] was called, and until it is dropped.
pub struct Gate {
    /// By exact `iss`: a key is only ever reached through its own issuer.
    issuers: HashMap<Arc<str>, Issuer>,
    /// Those whose keys are fetched.
    monitor: KeyMonitor,
    /// What fetches them; ended when the gate is dropped.
    fetching: Mutex<JoinSet<()>>,
    /// The built-in issuer's keys as they are now; `issuers` has it as it was at start.
    builtin: Option<Live>,
    places: Places,
    certificates: Certificates,
    policy: Arc<PolicyStore>,
    limits: Arc<Limits>,
    followed: Arc<Followed>,
    meter: Option<Arc<dyn Meter>>,
    clock: Clock,
}

impl Gate {
    /// Judges `config` as a whole and loads every key.
    ///
    /// `builtin` is to be given exactly when [`AuthConfig::uses_builtin`] says so.
    ///
    /// # Errors
    /// The first fault found. There is no gate with a part of its rules.
    pub fn new(
        config: &AuthConfig,
        builtin: Option<BuiltinIssuer>,
        clock: Clock,
    ) -> Result<Self, GateError> {
        let mut issuers = HashMap::new();
        let mut live = None;
        match builtin {
            Some(_) if !config.uses_builtin() => {
                return Err(GateError::BuiltinBesideIssuers {
                    count: config.issuers.len(),
                });
            }
            Some(builtin) => {
                let keys: Vec<_> = builtin.keys().cloned().collect();
                let issuer = Issuer::of_builtin_keys(&keys);
                issuers.insert(issuer.iss.clone(), issuer);
                live = Some(Live::new(builtin, clock.clone(), Uptime::start()));
            }
            None if config.uses_builtin() => return Err(GateError::NoIssuer),
            None => {}
        }
        let mut monitor = KeyMonitor::default();
        for (index, entry) in config.issuers.iter().enumerate() {
            let named = Issuer::all(entry)?;
            if let Some(remote) = named.first().and_then(Issuer::shared_remote) {
                monitor.remotes.push((index + 1, remote.clone()));
            }
            for issuer in named {
                let iss = issuer.iss.clone();
                if issuers.insert(iss.clone(), issuer).is_some() {
                    return Err(GateError::DuplicateIssuer {
                        issuer: iss.to_string(),
                    });
                }
            }
        }
        let certificates = Certificates::new(&config.certificates)?;
        Ok(Self {
            issuers,
            monitor,
            fetching: Mutex::default(),
            builtin: live,
            places: Places {
                api_key_headers: config.api_key_headers,
                certificate: certificates.identify,
            },
            certificates,
            policy: Arc::default(),
            limits: Arc::new(Limits::new(clock.clone(), Uptime::start())),
            followed: Arc::new(Followed::new(clock.clone(), Uptime::start())),
            meter: None,
            clock,
        })
    }

    /// The same gate, which tells `meter` of every permit that it gives and of what is used under it.
    #[must_use]
    pub fn with_meter(self, meter: Arc<dyn Meter>) -> Self {
        Self {
            meter: Some(meter),
            ..self
        }
    }

    /// The same gate, under the policy of the file at `path`. `vocabulary` names what is around it; the issuers are
    /// the gate's own.
    ///
    /// # Errors
    /// If the file cannot be read, or with everything that is wrong with it.
    pub fn with_policy_file(
        self,
        path: &Path,
        vocabulary: Vocabulary,
    ) -> Result<Self, PolicyError> {
        let issuers = self.issuers.keys().map(|name| name.to_string()).collect();
        let vocabulary = Vocabulary {
            issuers,
            ..vocabulary
        };
        let policy = Arc::new(PolicyStore::open(path, vocabulary)?);
        Ok(Self { policy, ..self })
    }

    /// The same gate, under `policy` for good.
    #[must_use]
    pub fn with_policy(self, policy: Policy) -> Self {
        let policy = Arc::new(PolicyStore::new(policy));
        Self { policy, ..self }
    }

    /// The same gate, which tells by `uptime`, beside its clock, when running requests outlive their credentials.
    #[must_use]
    pub fn with_uptime(self, uptime: Uptime) -> Self {
        Self {
            followed: Arc::new(Followed::new(self.clock.clone(), uptime)),
            ..self
        }
    }

    /// Puts the API keys and revocations in force that `ledger` has now, and ends what runs under a right that is gone.
    /// Blocks while it reads.
    ///
    /// # Errors
    /// If it cannot be read; what was in force stays so.
    pub fn reload(&self, ledger: &Ledger) -> Result<(), LedgerError> {
        self.followed.reload(ledger)
    }

    /// Does the same now and whenever `ledger` has changed, for ever. A server that starts should have called
    /// [`Gate::reload`] before it answers.
    pub fn follow(&self, ledger: Ledger) -> impl Future<Output = ()> + Send + 'static {
        self.followed.clone().follow(ledger)
    }

    /// The policy in force, to be replaced when its file changes.
    pub fn policy(&self) -> &Arc<PolicyStore> {
        &self.policy
    }

    /// The counters, to be restored from the ledger and written to it.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// The revocations in force.
    pub fn revoked(&self) -> &Arc<Revoked> {
        &self.followed.revoked
    }

    /// Begins to fetch the keys of all issuers that publish theirs, at once and then for as long as the gate lives.
    /// Calling it again changes nothing. Must be called within a tokio runtime.
    pub fn start(&self) {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if fetching.is_empty() {
            for (_, remote) in &self.monitor.remotes {
                // Before the task runs for the first time, so that the first token already waits for it.
                remote.mark_started();
                fetching.spawn(remote.clone().run());
            }
        }
    }

    /// The required issuers whose keys were never had, as configured. While there are any, `/readyz` says so.
    pub fn unready(&self) -> Vec<String> {
        let remotes = self.monitor.remotes.iter();
        remotes
            .filter_map(|(_, remote)| remote.unready().map(str::to_owned))
            .collect()
    }

    /// Tells how the fetching of keys goes; outlives the gate.
    pub fn monitor(&self) -> KeyMonitor {
        self.monitor.clone()
    }

    /// Fetches the keys that `token` needs, if its issuer publishes them: once, for a command that verifies one token
    /// and ends. What goes wrong is told by [`Gate::verify`].
    pub async fn fetch_for(&self, token: &[u8]) {
        if let Ok(read) = self.read(token)
            && let Some(remote) = read.issuer.remote()
        {
            remote.refresh().await;
        }
    }

    /// Who calls. Waits only for an issuer's keys, within bounds, when a token names one that is not known yet.
    ///
    /// # Errors
    /// A refusal that is the same, byte for byte, for everything up to and including a bad signature.
    pub async fn authenticate(&self, caller: Caller<'_>) -> Result<Arc<Identity>, Denied> {
        let identity = match credential::presented(&caller, self.places)? {
            Presented::Token(token) => {
                let token = self.read(token)?;
                token.issuer.prepare(&token.header).await;
                let identity = self.judge(token)?;
                certificate::check_binding(&identity, caller.certificate)?;
                identity
            }
            Presented::ApiKey(key) => self
                .followed
                .api_keys
                .identity(key, self.clock.unix_seconds())?,
            Presented::Certificate(der) => {
                self.certificates.identity(der, self.clock.unix_seconds())?
            }
        };
        self.followed.revoked.check(&identity)?;
        Ok(Arc::new(identity))
    }

    /// Whether anybody at `address` may call at all. Asked first, of every request.
    ///
    /// # Errors
    /// 403 `ip_not_allowed`.
    pub fn check_address(&self, address: IpAddr) -> Result<(), Denied> {
        if self.policy.current().allows_address(address) {
            return Ok(());
        }
        let detail = format!("the policy does not let {address} call");
        Err(Denied::new(super::Reason::AddressNotAllowed, detail))
    }

    /// What `identity`, calling from `address`, may do, by the policy in force.
    ///
    /// # Errors
    /// 403, if no rule lets it in or one keeps it out.
    pub fn rights(&self, identity: &Identity, address: IpAddr) -> Result<Arc<Rights>, Denied> {
        self.policy.current().rights(identity, address)
    }

    /// Whether `identity` may do what a route asks. `route` is the name of its row, as a policy calls it.
    ///
    /// # Errors
    /// 403 `insufficient_scope`, naming the scope, or 403 `access_denied` if the policy is in the way.
    pub fn authorise(
        &self,
        identity: &Identity,
        rights: &Rights,
        access: Access,
        route: &str,
    ) -> Result<(), Denied> {
        rights.check_route(identity, access, route)
    }

    /// What the policy would say to a token of these claims, which nobody has signed. What every token must say and
    /// these do not is filled in; the identity does not leave this function.
    ///
    /// # Errors
    /// A refusal of the claims themselves.
    pub fn explain_claims(
        &self,
        mut claims: Map<String, Value>,
        question: &Question,
    ) -> Result<Explanation, Denied> {
        if let (false, [only]) = (
            claims.contains_key("iss"),
            &*self.issuers.values().collect::<Vec<_>>(),
        ) {
            claims.insert("iss".to_owned(), Value::from(&*only.rules.issuer));
        }
        let rules = &self.issuer(&claims)?.rules;
        let now = self.clock.unix_seconds();
        let audience = rules.audiences.first().map(|audience| &**audience);
        for (name, value) in [
            ("sub", Value::from("somebody")),
            (&*rules.audience_claim, Value::from(audience)),
            ("iat", Value::from(now)),
            ("exp", Value::from(now + 60)),
        ] {
            claims.entry(name).or_insert(value);
        }
        let token_type = rules.token_types.first().map(|name| &**name);
        let token_type = token_type.filter(|name| *name != claims::ABSENT);
        let identity = rules.identity(token_type, None, claims, now)?;
        Ok(self.policy.current().explain(&identity, question))
    }

    /// Admits `identity` to generate now: counts the request and takes a concurrency slot.
    ///
    /// # Errors
    /// 429, if its rate or its concurrency is used up.
    pub fn admit(&self, identity: Arc<Identity>, rights: Arc<Rights>) -> Result<Permit, Denied> {
        let admission = self.limits.admit(&identity, &rights)?;
        let meter = self.meter.clone();
        let permit = Permit::new(identity, rights, admission, &self.followed.revoked, meter);
        if let Some(meter) = &self.meter {
            meter.admitted(permit.identity(), permit.revocation());
        }
        Ok(permit)
    }

    /// Where `identity` stands with the limits of `rights`, for response headers.
    pub fn standing(&self, identity: &Identity, rights: &Rights) -> RateLimits {
        self.limits.standing(identity, rights)
    }

    /// Verifies one token, as [`Gate::authenticate`] does after it has found it, with the keys that are at hand now.
    /// What is left to do there is to see whether it was revoked, and whether the caller holds the certificate of one
    /// that [`Identity::is_bound`].
    ///
    /// Cheap checks first; nothing that the token says is believed before the signature is good, except which issuer's
    /// keys to try, and those are looked up by exact string.
    ///
    /// # Errors
    /// A refusal whose [`Denied::detail`] says what is wrong.
    pub fn verify(&self, token: &[u8]) -> Result<Identity, Denied> {
        self.judge(self.read(token)?)
    }

    /// Takes a token apart, as far as that needs no key.
    fn read<'a>(&'a self, token: &'a [u8]) -> Result<Unjudged<'a>, Denied> {
        let token = Compact::split(token).map_err(|denied| denied.at("form"))?;
        let header = Header::parse(&token.header).map_err(|denied| denied.at("header"))?;
        // Parsed once: the `iss` that chose the key is the `iss` that the signature covers.
        let claims = strict_json::object(&token.payload, MAX_DEPTH)
            .map_err(|fault| Denied::token(format!("the claims are not clean JSON: {fault}")))
            .map_err(|denied| denied.at("claims"))?;
        let issuer = self.issuer(&claims)?;
        Ok(Unjudged {
            token,
            header,
            claims,
            issuer,
        })
    }

    fn judge(&self, token: Unjudged<'_>) -> Result<Identity, Denied> {
        let Unjudged {
            token,
            header,
            claims,
            issuer,
        } = token;
        let live = self
            .builtin
            .as_ref()
            .map(|builtin| builtin.for_key(header.key_id.as_deref()));
        // Where there is a built-in issuer, there is no other.
        let issuer = live.as_ref().map_or(issuer, |live| &live.issuer);
        let key_id = issuer
            .verify(&header, &token, &claims)
            .map_err(|denied| denied.at("key"))?;
        issuer.rules.identity(
            header.token_type.as_deref(),
            key_id.or_else(|| header.key_id.as_deref().map(Arc::from)),
            claims,
            self.clock.unix_seconds(),
        )
    }

    /// The issuer that these claims name.
    fn issuer(&self, claims: &Map<String, Value>) -> Result<&Issuer, Denied> {
        let name = claims::issuer(claims).map_err(|denied| denied.at("claims"))?;
        self.issuers.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.issuers.keys().map(|name| &**name).collect();
            Denied::token(format!(
                "the issuer is {}, configured is {}",
                quoted(name),
                list(&known)
            ))
            .at("issuer")
        })
    }

    /// What names `token`, as its issuer's rules say. Nothing of it is verified.
    ///
    /// # Errors
    /// If it is no signed token, or of no configured issuer.
    pub fn peek(&self, token: &str) -> Result<Unverified, Denied> {
        Unverified::read(token, |claims| {
            let rules = &self.issuer(claims)?.rules;
            Ok((&*rules.issuer, &*rules.token_id_claim))
        })
    }

    /// The issuers that it believes, in the order of their names.
    pub fn issuers(&self) -> Vec<IssuerSummary> {
        let mut issuers: Vec<_> = self.issuers.values().map(Issuer::summary).collect();
        issuers.sort_by(|one, other| one.issuer.cmp(&other.issuer));
        issuers
    }

    /// The public halves of the built-in issuer's keys as a JWK set (RFC 7517); `None` where others make the tokens.
    pub fn builtin_jwks(&self) -> Option<Value> {
        self.builtin.as_ref().map(Live::jwks)
    }

    /// Looks now whether the built-in issuer has new keys; otherwise that happens within a second of their change.
    pub fn reload_builtin(&self) {
        if let Some(builtin) = &self.builtin {
            builtin.reload();
        }
    }

    /// The time by which it judges.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// A token taken apart. Nothing in it is believed yet, but which issuer's keys to try.
struct Unjudged<'a> {
    token: Compact<'a>,
    header: Header,
    claims: Map<String, Value>,
    issuer: &'a Issuer,
}

/// Tells how the fetching of issuers' keys goes; cloned freely.
#[derive(Debug, Clone, Default)]
pub struct KeyMonitor {
    /// With the issuer's number in the configuration, counted from 1.
    remotes: Vec<(usize, Arc<Remote>)>,
}

impl KeyMonitor {
    /// How each issuer that publishes its keys is doing, in the order of the configuration.
    pub fn stats(&self) -> Vec<KeyStats> {
        let remotes = self.remotes.iter();
        remotes
            .map(|(number, remote)| remote.stats(*number))
            .collect()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("issuers", &self.issuers.keys())
            .finish_non_exhaustive()
    }
}
