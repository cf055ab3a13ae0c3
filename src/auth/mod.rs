//! Who may do what, how much, until when. Knows no models and no tokens of text.
//!
//! [`Gate::authenticate`] turns a request's headers into an [`Identity`]; [`Gate::admit`] turns an identity into a
//! [`Permit`], the value that [`crate::engine::Engine::submit`] takes. Both run before the body is read. Only this
//! module can make either: holding one is the proof that the check ran.

use std::sync::Arc;

/// What a row of the route table asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody: health probes only.
    Public,
    /// Any verified identity.
    Verified,
    /// A verified identity whose token carries this scope.
    Scope(&'static str),
}

/// Who the caller is, as its verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    issuer: Arc<str>,
    subject: Arc<str>,
    tenant: Option<Arc<str>>,
    client: Option<Arc<str>>,
    token_id: Option<Arc<str>>,
    scopes: Arc<[Box<str>]>,
    /// Unix seconds.
    expires: u64,
}

impl Identity {
    /// The `iss` claim.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The `sub` claim.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Whether the token carries `scope`, compared byte for byte.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| &**held == scope)
    }
}

/// The admitted right to generate now. Not `Clone`; dropping it gives back what it holds.
#[derive(Debug)]
pub struct Permit {
    identity: Arc<Identity>,
}

impl Permit {
    /// Whose right it is.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Charges `tokens` generated or computed tokens to the identity.
    pub fn charge(&self, tokens: usize) {
        let _ = tokens;
    }

    /// A permit for tests of the engine, which has no gate.
    #[cfg(test)]
    pub(crate) fn for_tests(subject: &str) -> Self {
        Self {
            identity: Arc::new(Identity {
                issuer: "test".into(),
                subject: subject.into(),
                tenant: None,
                client: None,
                token_id: None,
                scopes: Arc::new([]),
                expires: u64::MAX,
            }),
        }
    }
}
