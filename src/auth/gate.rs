//! The gate itself: headers in, an identity or a refusal out.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::certificate::{self, Certificates};
use super::credential::{self, Places, Presented};
use super::denied::{Denied, Reason, quoted};
use super::follow::Followed;
use super::issuer::Issuer;
use super::token::claims::{self, list};
use super::token::compact::Compact;
use super::token::header::Header;
use super::{
    Access, AuthConfig, BuiltinIssuer, Caller, GateError, Identity, IssuerSummary, Limits,
    MAX_DEPTH, Meter, Permit, Policy, PolicyStore, Revoked, Rights,
};
use crate::clock::{Clock, Uptime};
use crate::ledger::{Ledger, LedgerError};
use crate::strict_json;

/// Verifies who calls and admits them. Shared by all connections; holds no lock and does no I/O.
pub struct Gate {
    /// By exact `iss`: a key is only ever reached through its own issuer.
    issuers: HashMap<Arc<str>, Issuer>,
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
        match builtin {
            Some(_) if !config.uses_builtin() => {
                return Err(GateError::BuiltinBesideIssuers {
                    count: config.issuers.len(),
                });
            }
            Some(builtin) => {
                let issuer = Issuer::builtin(&builtin);
                issuers.insert(issuer.rules.issuer.clone(), issuer);
            }
            None if config.uses_builtin() => return Err(GateError::NoIssuer),
            None => {}
        }
        for entry in &config.issuers {
            let issuer = Issuer::new(entry)?;
            if issuers
                .insert(issuer.rules.issuer.clone(), issuer)
                .is_some()
            {
                return Err(GateError::DuplicateIssuer {
                    issuer: entry.issuer.clone(),
                });
            }
        }
        let names: Vec<&str> = issuers.keys().map(|name| &**name).collect();
        let policy = Policy::of_shares(&config.shares, &names)?;
        let certificates = Certificates::new(&config.certificates)?;
        Ok(Self {
            issuers,
            places: Places {
                api_key_headers: config.api_key_headers,
                certificate: certificates.identify,
            },
            certificates,
            policy: Arc::new(PolicyStore::new(policy)),
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

    /// Who calls. Waits only for an issuer's keys, within bounds, when a token names one that is not known yet.
    ///
    /// # Errors
    /// A refusal that is the same, byte for byte, for everything up to and including a bad signature.
    pub async fn authenticate(&self, caller: Caller<'_>) -> Result<Arc<Identity>, Denied> {
        let identity = match credential::presented(&caller, self.places)? {
            Presented::Token(token) => {
                let identity = self.verify(token)?;
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

    /// What `identity`, calling from `address`, may do, by the policy in force.
    ///
    /// # Errors
    /// 403, if no rule lets it in or one keeps it out.
    pub fn rights(&self, identity: &Identity, address: IpAddr) -> Result<Arc<Rights>, Denied> {
        self.policy.current().rights(identity, address)
    }

    /// Whether `identity` may do what a route asks.
    ///
    /// # Errors
    /// 403 `insufficient_scope`, naming the scope.
    pub fn authorise(&self, identity: &Identity, access: Access) -> Result<(), Denied> {
        match access {
            Access::Public | Access::Verified => Ok(()),
            Access::Scope(scope) if identity.has_scope(scope) => Ok(()),
            Access::Scope(scope) => {
                let held: Vec<&str> = identity.scopes().collect();
                let detail = format!(
                    "the scope {} is needed, the token has {}",
                    quoted(scope),
                    list(&held)
                );
                Err(Denied::new(Reason::InsufficientScope(scope), detail))
            }
        }
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

    /// Verifies one token, as [`Gate::authenticate`] does after it has found it. What is left to do there is to see
    /// whether it was revoked, and whether the caller holds the certificate of one that [`Identity::is_bound`].
    ///
    /// Cheap checks first; nothing that the token says is believed before the signature is good, except which issuer's
    /// keys to try, and those are looked up by exact string.
    ///
    /// # Errors
    /// A refusal whose [`Denied::detail`] says what is wrong.
    pub fn verify(&self, token: &[u8]) -> Result<Identity, Denied> {
        let token = Compact::split(token)?;
        let header = Header::parse(&token.header)?;
        // Parsed once: the `iss` that chose the key is the `iss` that the signature covers.
        let claims = strict_json::object(&token.payload, MAX_DEPTH)
            .map_err(|fault| Denied::token(format!("the claims are not clean JSON: {fault}")))?;
        let name = claims::issuer(&claims)?;
        let issuer = self.issuers.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.issuers.keys().map(|name| &**name).collect();
            Denied::token(format!(
                "the issuer is {}, configured is {}",
                quoted(name),
                list(&known)
            ))
        })?;
        issuer.verify(&header, &token)?;
        issuer.rules.identity(
            header.token_type.as_deref(),
            header.key_id.as_deref().map(Arc::from),
            claims,
            self.clock.unix_seconds(),
        )
    }

    /// The issuers that it believes, in the order of their names.
    pub fn issuers(&self) -> Vec<IssuerSummary> {
        let mut issuers: Vec<_> = self.issuers.values().map(Issuer::summary).collect();
        issuers.sort_by(|one, other| one.issuer.cmp(&other.issuer));
        issuers
    }

    /// The time by which it judges.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("issuers", &self.issuers.keys())
            .finish_non_exhaustive()
    }
}
