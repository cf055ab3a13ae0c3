//! `mixgate token mint`, `verify` and `keys`: the logic; what is printed and how is the caller's business.

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::auth::{BuiltinIssuer, Gate, MintError, MintRequest, Reason};
use crate::clock::Clock;

/// What was typed after `mixgate token mint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MintArgs {
    /// `--sub`: whom the token stands for.
    pub subject: String,
    /// `--ttl`: a number and a unit, [`DEFAULT_TTL`] if not typed.
    pub ttl: String,
    /// `--scope`: names separated by spaces, [`DEFAULT_SCOPES`] if not typed.
    pub scopes: String,
    /// Each `--claim`: `name=text`, or `name:=json` for numbers, flags, lists and objects.
    pub claims: Vec<String>,
}

/// Lives an hour: long enough to try things, short enough to leak.
pub const DEFAULT_TTL: &str = "1h";

/// What the API routes ask for.
pub const DEFAULT_SCOPES: &str = "chat models";

/// Mints a token; the result is the token alone.
///
/// # Errors
/// [`TokenError`] naming the argument at fault.
pub fn mint(args: &MintArgs, issuer: &BuiltinIssuer, clock: &Clock) -> Result<String, TokenError> {
    let mut claims = Map::new();
    for typed in &args.claims {
        let (name, value) = parse_claim(typed)?;
        if claims.insert(name.clone(), value).is_some() {
            return Err(TokenError::ClaimTwice { name });
        }
    }
    let ttl = parse_ttl(&args.ttl)?;
    let request = MintRequest {
        subject: args.subject.clone(),
        ttl,
        scopes: args.scopes.clone(),
        claims,
    };
    Ok(issuer.mint(&request, clock.unix_seconds())?)
}

/// Says what `token` grants, in a few lines.
///
/// Accepts what people paste: surrounding white space and a leading `Bearer` are dropped.
///
/// # Errors
/// [`TokenError::Refused`], which says why the gate refuses it.
pub fn verify(token: &str, gate: &Gate) -> Result<String, TokenError> {
    let token = bare(token);
    let identity = gate
        .verify(token.as_bytes())
        .map_err(|denied| TokenError::Refused {
            detail: denied.detail().to_owned(),
            status: denied.status(),
            code: denied.code(),
            hint: refusal_hint(denied.reason(), token),
        })?;
    let scopes: Vec<&str> = identity.scopes().collect();
    let mut lines = vec![
        "valid: signature, issuer, audience, type and times are good".to_owned(),
        format!("issuer   {}", identity.issuer()),
        format!("subject  {}", identity.subject()),
        format!("tenant   {}", identity.tenant().unwrap_or("- (its own)")),
        format!("client   {}", identity.client().unwrap_or("-")),
        format!(
            "scopes   {}",
            if scopes.is_empty() {
                "-".to_owned()
            } else {
                scopes.join(" ")
            }
        ),
        format!("id       {}", identity.token_id().unwrap_or("-")),
    ];
    lines.push(match identity.expires() {
        None => "expires  never".to_owned(),
        Some(expires) => {
            let left = expires.saturating_sub(gate.clock().unix_seconds());
            format!("expires  {expires} (Unix seconds), {left} s from now")
        }
    });
    Ok(lines.join("\n"))
}

/// The token without what people paste around it.
pub fn bare(token: &str) -> &str {
    let token = token.trim();
    match token.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim_start(),
        _ => token,
    }
}

/// Lists the issuer's keys as of Unix second `now`: id, when it was made, and what it is good for.
pub fn keys(issuer: &BuiltinIssuer, now: u64) -> String {
    let mut lines = vec![format!("{:<43}  {:<20}  STATE", "KEY ID", "CREATED")];
    for key in issuer.keys() {
        let created = key.created().map_or_else(|| "-".to_owned(), utc);
        let state = match key.retires() {
            None => "signs".to_owned(),
            Some(at) if key.verifies(now) => format!("verifies until {}", utc(at)),
            Some(at) => format!("retired {}", utc(at)),
        };
        lines.push(format!("{:<43}  {created:<20}  {state}", key.key_id()));
    }
    lines.join("\n")
}

/// `2026-11-24T03:00:00Z`; `-` for a time that no calendar has.
fn utc(unix_seconds: u64) -> String {
    let seconds = i64::try_from(unix_seconds).ok();
    match seconds.map(OffsetDateTime::from_unix_timestamp) {
        Some(Ok(time)) => format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            time.year(),
            u8::from(time.month()),
            time.day(),
            time.hour(),
            time.minute(),
            time.second()
        ),
        _ => "-".to_owned(),
    }
}

/// Parses `90s`, `15m`, `1h`, `12h` or `7d`. A bare number is refused: it could mean anything.
///
/// # Errors
/// [`TokenError::Ttl`] with what was typed.
pub fn parse_ttl(typed: &str) -> Result<Duration, TokenError> {
    let wrong = || TokenError::Ttl {
        typed: typed.to_owned(),
    };
    let unit = match typed.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        Some(b'd') => 24 * 3600,
        _ => return Err(wrong()),
    };
    let digits = &typed[..typed.len() - 1];
    // `parse` alone would take a leading plus.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// Parses `name=text` or `name:=json`.
///
/// The two forms keep `tenant=123` text: guessing would make it a number, which the gate then refuses as a tenant.
fn parse_claim(typed: &str) -> Result<(String, Value), TokenError> {
    let wrong = || TokenError::Claim {
        typed: typed.to_owned(),
    };
    let (name, text) = typed.split_once('=').ok_or_else(wrong)?;
    let (name, value) = match name.strip_suffix(':') {
        Some(name) => (name, serde_json::from_str(text).map_err(|_| wrong())?),
        None => (name, Value::String(text.to_owned())),
    };
    if name.is_empty() {
        Err(wrong())
    } else {
        Ok((name.to_owned(), value))
    }
}

/// The next step for each kind of refusal.
fn refusal_hint(reason: Reason, token: &str) -> Option<&'static str> {
    match reason {
        Reason::TokenExpired => {
            Some("get a new one: mixgate token mint, or your identity provider")
        }
        Reason::TokenNotActive => {
            Some("compare the clocks of issuer and server; clock_skew_s allows for a difference")
        }
        Reason::InvalidAudience => {
            Some("ask for a token for this API, or add its audience to the issuer's `audiences`")
        }
        Reason::InvalidTokenType => {
            Some("send the access token, not the ID or refresh token that came with it")
        }
        Reason::AuthUnavailable => Some(
            "this machine must reach the issuer's key server; jwks_url, discovery and ca_file say how",
        ),
        Reason::InvalidTokenBinding => Some("ask your identity provider for a plain bearer token"),
        Reason::InvalidToken if token.split('.').count() != 3 => Some(
            "paste the whole token: three parts with dots between; opaque tokens are not supported",
        ),
        _ => None,
    }
}

/// Why `mixgate token` failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// An unreadable `--ttl`.
    #[error("`{typed}` is not a length of time")]
    Ttl {
        /// What was typed.
        typed: String,
    },
    /// An unreadable `--claim`.
    #[error("`{typed}` is not a claim")]
    Claim {
        /// What was typed.
        typed: String,
    },
    /// One name in two `--claim`s.
    #[error("the claim `{name}` is given twice")]
    ClaimTwice {
        /// Which one.
        name: String,
    },
    /// The issuer's own refusal.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// The gate's refusal.
    #[error("the token is refused: {detail}\n  caused by: the server answers {status} {code}")]
    Refused {
        /// What is wrong.
        detail: String,
        /// The HTTP status that a request would get.
        status: u16,
        /// The error code that a request would get.
        code: &'static str,
        /// What to do.
        hint: Option<&'static str>,
    },
}

impl TokenError {
    /// The next step, for the last line of the message.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Ttl { .. } => Some("write a number and a unit: 90s, 15m, 1h, 12h or 7d"),
            Self::Claim { .. } => Some(
                "write name=text, or name:=json: tenant=acme, level:=3, groups:='[\"a\",\"b\"]'",
            ),
            Self::Mint(MintError::Ttl { .. }) => Some("the longest is 30d"),
            Self::Refused { hint, .. } => *hint,
            _ => None,
        }
    }
}
