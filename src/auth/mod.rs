//! Who may do what, how much, until when. Knows no models and no tokens of text.
//!
//! [`Gate::authenticate`] turns a request's headers into an [`Identity`]; [`Gate::authorise`] compares it with what the
//! route asks; [`Gate::admit`] turns it into a [`Permit`], the value that [`crate::engine::Engine::submit`] takes. All
//! three run before the body is read. Only this module can make either: holding one is the proof that the check ran.
//!
//! The files, in the order in which a token meets them:
//!
//! | file | decides |
//! |---|---|
//! | `credential` | which bytes of the request are the credential |
//! | `compact` | whether they are one canonical JWS of two clean JSON objects |
//! | `header` | algorithm, key id and type; refuses every extension |
//! | `issuer`, `keys` | the one key that may vouch for this issuer with this algorithm |
//! | `claims`, `time` | what the signed claims say, typed strictly |
//! | `share` | what part of the machine it gets |
//! | `denied` | what a refused caller hears |
//!
//! jsonwebtoken does the signature arithmetic and nothing else: its own claim checks accept too much.

mod builtin;
mod claims;
mod compact;
mod config;
mod credential;
mod denied;
mod error;
mod files;
mod gate;
mod header;
mod identity;
mod issuer;
mod jwk;
mod keys;
mod mint;
mod pem;
mod permit;
mod share;
#[cfg(test)]
mod tests;
mod time;

pub use builtin::{BuiltinError, BuiltinIssuer};
pub use config::{AuthConfig, IssuerConfig, KeyConfig, OneOrMany};
pub use denied::{Denied, Reason};
pub use error::{FileError, GateError, IssuerProblem, KeyError, ShareProblem};
pub use gate::Gate;
pub use identity::{Identity, IdentityKey};
pub use issuer::IssuerSummary;
pub use mint::{MintError, MintRequest};
pub use permit::{Meter, Permit, Priority, Revocation, Share, TokensUsed};
pub use share::ShareConfig;

/// How deep a token's JSON may nest: the deepest genuine claims (Keycloak's `resource_access`) nest four levels.
const MAX_DEPTH: usize = 16;

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
