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
//! | `token/compact` | whether they are one canonical JWS of two clean JSON objects |
//! | `token/header` | algorithm, key id and type; refuses every extension |
//! | `issuer`, `key` | the one key that may vouch for this issuer with this algorithm |
//! | `issuer/jwks` | when an issuer's published keys are fetched, and how long they serve |
//! | `token/claims`, `token/time` | what the signed claims say, typed strictly |
//! | `api_key`, `certificate` | the same for the other credentials |
//! | `revoked` | whether that right was taken away since |
//! | `policy` | what the operator grants to whom |
//! | `limits` | how much of it, by reservation |
//! | `denied` | what a refused caller hears |
//!
//! jsonwebtoken does the signature arithmetic and nothing else: its own claim checks accept too much.

mod api_key;
mod certificate;
mod config;
mod credential;
mod denied;
mod error;
mod files;
mod follow;
mod gate;
mod identity;
mod issuer;
mod key;
mod limits;
mod permit;
pub mod policy;
mod revoked;
#[cfg(test)]
mod tests;
mod token;

pub use api_key::{ApiKeyError, KEYS_ISSUER, NewApiKey, api_key_state, is_api_key_id};
pub use certificate::{CERTIFICATES_ISSUER, CertificateConfig, SubjectName, TenantName};
pub use config::{AuthConfig, Discovery, IssuerConfig, KeyConfig, OneOrMany};
pub use credential::Caller;
pub use denied::{Denied, Reason};
pub use error::{FileError, GateError, IssuerProblem, KeyError};
pub(crate) use files::KeyFile;
pub use gate::{Gate, KeyMonitor};
pub use identity::{Credential, Identity, IdentityKey};
pub use issuer::builtin::{BuiltinError, BuiltinIssuer, IssuerKey};
pub use issuer::jwks::KeyStats;
#[doc(hidden)]
pub use issuer::jwks::fuzz_key_set;
pub use issuer::mint::{MintError, MintRequest};
pub use issuer::{IssuerSummary, PRESETS, Preset, PresetFacts};
pub use limits::{Charge, Limit, Limits, Measure, Per, RateLimits, Standing};
pub use permit::{Meter, Permit, Priority, Revocation, Share, TokensUsed};
pub use policy::{Expiry, Policy, PolicyError, PolicyStore, Rights, Vocabulary, WhenShort};
pub use revoked::{
    REVOCABLE, RevocationError, Revoked, Watched, Withdrawn, revocation, revoked_name,
    revoked_words,
};
pub use token::peek::Unverified;

/// How deep a token's JSON may nest: the deepest genuine claims (Keycloak's `resource_access`) nest four levels.
const MAX_DEPTH: usize = 16;

/// What a row of the route table asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody: health probes, and what one needs to get or to check a token.
    Public,
    /// Any verified identity.
    Verified,
    /// A verified identity whose token carries this scope.
    Scope(&'static str),
}
