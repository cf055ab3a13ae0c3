//! Revocations as people and programs ask for them and read them.

use std::time::Duration;

use crate::auth::token::claims::is_plain;
use crate::ledger::{RevocationRecord, RevokedName};

/// What can be revoked, in one word each.
pub const REVOCABLE: [&str; 5] = ["token", "subject", "client", "key", "issuer"];

/// The name that `kind`, one of [`REVOCABLE`], and `value` make. An issuer has no value: it is named by itself.
///
/// # Errors
/// What is wrong.
pub fn revoked_name(kind: &str, value: Option<&str>) -> Result<RevokedName, RevocationError> {
    let value = match (kind, value) {
        ("issuer", None) => return Ok(RevokedName::Issuer),
        ("issuer", Some(_)) => return Err(RevocationError::ValueOfIssuer),
        (_, None) => return Err(RevocationError::NoValue),
        (_, Some(value)) if is_plain(value) => value.to_owned(),
        _ => return Err(RevocationError::NotPlain { field: "value" }),
    };
    match kind {
        "token" => Ok(RevokedName::Token(value)),
        "subject" => Ok(RevokedName::Subject(value)),
        "client" => Ok(RevokedName::Client(value)),
        "key" => Ok(RevokedName::Key(value)),
        _ => Err(RevocationError::Kind),
    }
}

/// The kind, one of [`REVOCABLE`], and the value of a name.
pub fn revoked_words(name: &RevokedName) -> (&'static str, Option<&str>) {
    match name {
        RevokedName::Token(id) => ("token", Some(id)),
        RevokedName::Subject(name) => ("subject", Some(name)),
        RevokedName::Client(name) => ("client", Some(name)),
        RevokedName::Key(id) => ("key", Some(id)),
        RevokedName::Issuer => ("issuer", None),
    }
}

/// A revocation made at Unix second `now`, for ever or for as long as `lasts`.
///
/// What was issued in that very second is meant too: nobody can say whether it was before or after, and the next second
/// is soon.
///
/// # Errors
/// What is wrong with the issuer or the time.
pub fn revocation(
    what: RevokedName,
    issuer: &str,
    lasts: Option<Duration>,
    now: u64,
) -> Result<RevocationRecord, RevocationError> {
    if !is_plain(issuer) {
        return Err(RevocationError::NotPlain { field: "issuer" });
    }
    if lasts.is_some_and(|lasts| lasts < Duration::from_secs(1)) {
        return Err(RevocationError::TooShort);
    }
    let at = match what {
        RevokedName::Token(_) | RevokedName::Key(_) => now,
        RevokedName::Subject(_) | RevokedName::Client(_) | RevokedName::Issuer => now + 1,
    };
    Ok(RevocationRecord {
        what,
        issuer: issuer.to_owned(),
        at,
        until: lasts.map(|lasts| now.saturating_add(lasts.as_secs())),
    })
}

/// Why there is no such revocation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// An unknown kind.
    #[error("what is revoked must be token, subject, client, key or issuer")]
    Kind,
    /// A kind that needs a value.
    #[error("the value is missing: which one is to be revoked")]
    NoValue,
    /// An issuer that is named twice.
    #[error("an issuer is named as the issuer, not as the value")]
    ValueOfIssuer,
    /// A name that no token could carry.
    #[error("the {field} must have 1 to 256 bytes and no control characters")]
    NotPlain {
        /// Which one.
        field: &'static str,
    },
    /// A revocation that is over at once.
    #[error("it must last for at least a second")]
    TooShort,
}
