//! Who the caller is, once its token has been verified.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Map, Value};

/// Who the caller is, as its verified token says.
///
/// Every string is at most 256 bytes and free of control characters, so that logs and metrics may carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    issuer: Arc<str>,
    subject: Arc<str>,
    tenant: Option<Arc<str>>,
    client: Option<Arc<str>>,
    token_id: Option<Arc<str>>,
    scopes: Arc<[Box<str>]>,
    /// Unix seconds.
    expires: Option<u64>,
    /// Unix seconds.
    issued: Option<u64>,
    credential: Credential,
    key_id: Option<Arc<str>>,
    claims: Arc<Map<String, Value>>,
    /// Seconds by which its issuer's clock may differ from ours.
    skew: u64,
    /// SHA-256 of the client certificate without which its token is worth nothing.
    bound_to: Option<[u8; 32]>,
    subject_key: IdentityKey,
    tenant_key: IdentityKey,
}

/// What the claims say, before the keys are derived from them.
pub(super) struct Claimed {
    pub issuer: Arc<str>,
    pub subject: Arc<str>,
    pub tenant: Option<Arc<str>>,
    pub client: Option<Arc<str>>,
    pub token_id: Option<Arc<str>>,
    pub scopes: Vec<Box<str>>,
    /// Unix seconds; `None` for a key that does not expire.
    pub expires: Option<u64>,
    /// Unix seconds.
    pub issued: Option<u64>,
    pub credential: Credential,
    /// Of the key that vouched: a token's `kid`, an API key's own id.
    pub key_id: Option<Arc<str>>,
    /// All of them, for rules of the policy.
    pub claims: Map<String, Value>,
}

/// By what a caller proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// A signed token of an issuer.
    Token,
    /// An API key that was made here.
    ApiKey,
    /// A client certificate.
    Certificate,
}

impl Credential {
    /// One word, for logs and records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::ApiKey => "api_key",
            Self::Certificate => "certificate",
        }
    }
}

impl Identity {
    /// Only verified claims become an identity.
    pub(super) fn new(claimed: Claimed) -> Self {
        let Claimed {
            issuer,
            subject,
            tenant,
            client,
            token_id,
            scopes,
            expires,
            issued,
            credential,
            key_id,
            claims,
        } = claimed;
        let subject_key = IdentityKey::of(&["subject", &issuer, &subject]);
        let tenant_key = match &tenant {
            Some(tenant) => IdentityKey::of(&["tenant", &issuer, tenant]),
            None => IdentityKey::of(&["tenant of one", &issuer, &subject]),
        };
        Self {
            issuer,
            subject,
            tenant,
            client,
            token_id,
            scopes: scopes.into(),
            expires,
            issued,
            credential,
            key_id,
            claims: Arc::new(claims),
            skew: 0,
            bound_to: None,
            subject_key,
            tenant_key,
        }
    }

    /// The same, from an issuer whose clock may differ from ours by `seconds`.
    pub(super) fn with_skew(self, seconds: u64) -> Self {
        Self {
            skew: seconds,
            ..self
        }
    }

    /// The same, of a token that needs this client certificate beside it.
    pub(super) fn with_binding(self, bound_to: Option<[u8; 32]>) -> Self {
        Self { bound_to, ..self }
    }

    /// SHA-256 of the client certificate that must come with the token, if it is bound to one.
    pub(super) fn bound_to(&self) -> Option<&[u8; 32]> {
        self.bound_to.as_ref()
    }

    /// The `iss` claim.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The `sub` claim. Unique within its issuer only: group by [`Identity::subject_key`].
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The claim that the issuer's configuration names as tenant, if the token carries it.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The application that asked for the token, if the token names it.
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// The `jti` claim: what a revocation names, since token bytes are no identity (ECDSA signatures are malleable).
    pub fn token_id(&self) -> Option<&str> {
        self.token_id.as_deref()
    }

    /// The granted scopes, in the token's order.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes.iter().map(|scope| &**scope)
    }

    /// Whether the token carries `scope`, compared byte for byte.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| &**held == scope)
    }

    /// When the credential expires, in Unix seconds; `None` for an API key that does not.
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// The Unix second from which the credential is not good any more: its expiry, and the skew that its issuer is
    /// allowed.
    pub fn good_until(&self) -> Option<u64> {
        self.expires.map(|end| end.saturating_add(self.skew))
    }

    /// Whether its token is worth something only together with a client certificate.
    pub fn is_bound(&self) -> bool {
        self.bound_to.is_some()
    }

    /// When it was issued, in Unix seconds, if it says so.
    pub fn issued(&self) -> Option<u64> {
        self.issued
    }

    /// What kind of proof it was.
    pub fn credential(&self) -> Credential {
        self.credential
    }

    /// The key that vouched for it: a token's `kid`, an API key's own id.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// A verified claim by name, or by path if `name` starts with a slash: `/realm_access/roles`.
    pub fn claim(&self, name: &str) -> Option<&Value> {
        super::token::claims::find(&self.claims, name)
    }

    /// Stands for (issuer, subject): equal for every token of one subject, different for all others.
    pub fn subject_key(&self) -> IdentityKey {
        self.subject_key
    }

    /// Stands for (issuer, tenant). A token without tenant is a tenant of its own, so that it shares nothing.
    pub fn tenant_key(&self) -> IdentityKey {
        self.tenant_key
    }

    /// An identity for tests of modules that have no gate.
    #[cfg(test)]
    pub(crate) fn for_tests(subject: &str) -> Self {
        Self::claimed_for_tests(subject, None)
    }

    /// The same, of a tenant.
    #[cfg(test)]
    pub(crate) fn of_tenant_for_tests(subject: &str, tenant: &str) -> Self {
        Self::claimed_for_tests(subject, Some(tenant.into()))
    }

    /// The same, by a credential that expires at a Unix second.
    #[cfg(test)]
    pub(crate) fn expiring_for_tests(subject: &str, expires: u64) -> Self {
        Self {
            expires: Some(expires),
            ..Self::for_tests(subject)
        }
    }

    #[cfg(test)]
    fn claimed_for_tests(subject: &str, tenant: Option<Arc<str>>) -> Self {
        Self::new(Claimed {
            issuer: "test".into(),
            subject: subject.into(),
            tenant,
            client: None,
            token_id: None,
            scopes: Vec::new(),
            expires: None,
            issued: None,
            credential: Credential::Token,
            key_id: None,
            claims: Map::new(),
        })
    }
}

/// SHA-256 over length-prefixed names: cheap to compare, and no choice of names makes two identities collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityKey([u8; 32]);

impl IdentityKey {
    /// The key of whoever these names stand for. It is a name, not a right: only the gate says who a caller is.
    pub fn of(parts: &[&str]) -> Self {
        let mut hash = Context::new(&SHA256);
        for part in parts {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut key = [0; 32];
        key.copy_from_slice(hash.finish().as_ref());
        Self(key)
    }

    /// The hash itself, for salts and storage.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for IdentityKey {
    /// The first 8 bytes: enough to tell subjects apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
