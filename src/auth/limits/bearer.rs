//! Whose counter it is: a hash of what the verified identity says.

use serde_json::Value;

use super::Per;
use crate::auth::{Identity, IdentityKey};

impl Per {
    /// Stands for whoever is counted together with `identity`.
    ///
    /// Each kind of name has a hash of its own, so that no subject can pass for a tenant, nor one issuer's names for
    /// another's. All who lack the name share one: leaving a claim out buys nothing.
    pub(super) fn bearer(&self, identity: &Identity) -> IdentityKey {
        let issuer = identity.issuer();
        match self {
            Self::Subject => identity.subject_key(),
            Self::Tenant => identity.tenant_key(),
            Self::Client => match identity.client() {
                Some(client) => IdentityKey::of(&["client", issuer, client]),
                None => IdentityKey::of(&["no client"]),
            },
            Self::Claim(name) => match identity.claim(name).and_then(plain) {
                Some((kind, value)) => IdentityKey::of(&["claim", name, issuer, kind, &value]),
                None => IdentityKey::of(&["no claim", name]),
            },
        }
    }

    /// One word, for logs.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Tenant => "tenant",
            Self::Client => "client",
            Self::Claim(_) => "claim",
        }
    }
}

/// A value that can be written in one way only. Lists and objects are none: the order of their members would make two
/// counters of one. Nor are fractions.
fn plain(value: &Value) -> Option<(&'static str, String)> {
    match value {
        Value::String(text) => Some(("text", text.clone())),
        Value::Bool(yes) => Some(("bool", yes.to_string())),
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            Some(("number", number.to_string()))
        }
        _ => None,
    }
}
