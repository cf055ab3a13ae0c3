//! What a refused caller hears: one table of statuses, codes and challenges, and nothing of what was sent.
//!
//! Everything that fails before the signature is known to be good gives the same answer, byte for byte: a forger learns
//! nothing about issuers, keys or algorithms. The true reason is in [`Denied::detail`], for logs and `token verify`.

use std::borrow::Cow;
use std::fmt;

/// Why a request was refused, as the caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No bearer token.
    MissingCredentials,
    /// More than one `Authorization` header.
    MultipleCredentials,
    /// Anything wrong up to and including the signature.
    InvalidToken,
    /// Signed well, but its time is over.
    TokenExpired,
    /// Signed well, but its time has not come.
    TokenNotActive,
    /// Signed well, for another service.
    InvalidAudience,
    /// Signed well, but not an access token.
    InvalidTokenType,
    /// Signed well, but a claim is missing, mistyped or out of bounds.
    InvalidClaims,
    /// Bound to a proof of possession that this server does not take.
    InvalidTokenBinding,
    /// A good token that lacks this scope.
    InsufficientScope(&'static str),
}

/// A refusal: what the caller is told, and for the operator alone what really happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    reason: Reason,
    detail: String,
}

impl Denied {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }

    /// The one answer to everything that fails before a good signature.
    pub(super) fn token(detail: impl Into<String>) -> Self {
        Self::new(Reason::InvalidToken, detail)
    }

    pub(super) fn claims(detail: impl Into<String>) -> Self {
        Self::new(Reason::InvalidClaims, detail)
    }

    /// What the caller is told.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The HTTP status: 400, 401 or 403.
    pub fn status(&self) -> u16 {
        match self.reason {
            Reason::MultipleCredentials => 400,
            Reason::InsufficientScope(_) => 403,
            _ => 401,
        }
    }

    /// `error.type` of the body.
    pub fn error_type(&self) -> &'static str {
        match self.reason {
            Reason::InsufficientScope(_) => "permission_error",
            _ => "invalid_request_error",
        }
    }

    /// `error.code` of the body; also the metric label.
    pub fn code(&self) -> &'static str {
        match self.reason {
            Reason::MissingCredentials => "missing_credentials",
            Reason::MultipleCredentials => "multiple_credentials",
            Reason::InvalidToken => "invalid_token",
            Reason::TokenExpired => "token_expired",
            Reason::TokenNotActive => "token_not_active",
            Reason::InvalidAudience => "invalid_audience",
            Reason::InvalidTokenType => "invalid_token_type",
            Reason::InvalidClaims => "invalid_claims",
            Reason::InvalidTokenBinding => "invalid_token_binding",
            Reason::InsufficientScope(_) => "insufficient_scope",
        }
    }

    /// `error.message` of the body.
    pub fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self.reason {
            Reason::MissingCredentials => {
                "This server asks who you are: send a token as `Authorization: Bearer <token>`."
            }
            Reason::MultipleCredentials => {
                "The request carries more than one credential; send exactly one."
            }
            Reason::InvalidToken => "The access token is invalid.",
            Reason::TokenExpired => "The access token expired.",
            Reason::TokenNotActive => "The access token is not active yet.",
            Reason::InvalidAudience => "The access token is meant for another audience.",
            Reason::InvalidTokenType => "The token is not an access token.",
            Reason::InvalidClaims => {
                "The access token lacks a claim that this server needs, or states it wrongly."
            }
            Reason::InvalidTokenBinding => {
                "The access token is bound to a key whose proof this server does not take."
            }
            Reason::InsufficientScope(scope) => {
                return Cow::Owned(format!("The access token lacks the scope `{scope}`."));
            }
        })
    }

    /// The `WWW-Authenticate` value: fixed strings only, no input in it. `None` for none; today every refusal has one.
    pub fn challenge(&self) -> Option<Cow<'static, str>> {
        Some(Cow::Borrowed(match self.reason {
            // RFC 6750 §3.1: a request without credentials gets no `error`.
            Reason::MissingCredentials => r#"Bearer realm="llm""#,
            Reason::MultipleCredentials => {
                r#"Bearer realm="llm", error="invalid_request", error_description="more than one credential""#
            }
            Reason::InvalidToken => {
                r#"Bearer realm="llm", error="invalid_token", error_description="the access token is invalid""#
            }
            Reason::TokenExpired => {
                r#"Bearer realm="llm", error="invalid_token", error_description="the access token expired""#
            }
            Reason::TokenNotActive => {
                r#"Bearer realm="llm", error="invalid_token", error_description="the access token is not active yet""#
            }
            Reason::InvalidAudience => {
                r#"Bearer realm="llm", error="invalid_token", error_description="the access token has another audience""#
            }
            Reason::InvalidTokenType => {
                r#"Bearer realm="llm", error="invalid_token", error_description="the token is not an access token""#
            }
            Reason::InvalidClaims => {
                r#"Bearer realm="llm", error="invalid_token", error_description="the access token has invalid claims""#
            }
            Reason::InvalidTokenBinding => r#"Bearer realm="llm", error="invalid_token""#,
            Reason::InsufficientScope(scope) => {
                return Some(Cow::Owned(format!(
                    r#"Bearer realm="llm", error="insufficient_scope", scope="{scope}""#
                )));
            }
        }))
    }

    /// Further response headers.
    ///
    /// An expired token asks for a retry: SDKs that take the key from a function fetch a fresh one and succeed unseen.
    /// No other refusal does, so that a bad static token fails in one round trip.
    pub fn extra_headers(&self) -> &'static [(&'static str, &'static str)] {
        match self.reason {
            Reason::TokenExpired => &[("x-should-retry", "true"), ("retry-after-ms", "10")],
            _ => &[],
        }
    }

    /// What really happened, for logs and `token verify`: never the token, never for the caller.
    ///
    /// Names that came with the request are quoted, escaped and cut.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.detail, self.status(), self.code())
    }
}

impl std::error::Error for Denied {}

/// Quotes a string that came with the request: escaped, so that it cannot forge a log line, and cut.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    let cut: String = text
        .chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    let more = if text.chars().nth(SHOWN).is_some() {
        "…"
    } else {
        ""
    };
    format!("`{cut}{more}`")
}
