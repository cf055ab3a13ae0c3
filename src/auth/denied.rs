//! What a refused caller hears: one table of statuses, codes and challenges, and nothing of what was sent.
//!
//! Everything that fails before the signature is known to be good gives the same answer, byte for byte: a forger learns
//! nothing about issuers, keys or algorithms. The true reason is in [`Denied::detail`], for logs and `token verify`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

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
    /// Was good, and was revoked.
    TokenRevoked,
    /// An API key that is unknown, revoked or expired: which one is not said.
    InvalidApiKey,
    /// The issuer's keys were never had, or not for too long: nobody's fault but the server's.
    AuthUnavailable,
    /// A good token that lacks this scope.
    InsufficientScope(&'static str),
    /// The policy keeps the caller out.
    AccessDenied,
    /// The address may not call.
    AddressNotAllowed,
    /// Too many bad credentials from one address.
    TooManyFailures {
        /// When it may try again.
        retry_after: Duration,
    },
    /// A model that the caller may not name, whether or not it exists.
    ModelNotAllowed,
    /// A field that the caller may not use, or not so.
    ParameterNotAllowed {
        /// JSON path of the field.
        param: &'static str,
        /// The most, if it is a number.
        most: Option<u64>,
    },
    /// More requests or tokens than the caller may have in a minute.
    RateLimit {
        /// `requests` or `tokens`.
        of: &'static str,
        /// The most per minute.
        limit: u64,
        /// When there is room again.
        retry_after: Duration,
    },
    /// More sequences at the same time than the caller may have.
    Concurrency {
        /// The most.
        limit: u64,
    },
    /// What is left of a budget is reserved by requests of the caller that run, which may give some of it back.
    BudgetReserved {
        /// `day` or `month`.
        period: &'static str,
        /// The most tokens in that period.
        limit: u64,
    },
    /// The server counts the limits of as many callers as it can.
    TooManyCallers,
    /// A budget is spent, or can never cover the request.
    InsufficientQuota {
        /// `day` or `month`, or `minute` for a request that no minute can cover.
        period: &'static str,
        /// The most tokens in that period.
        limit: u64,
    },
}

/// A refusal: what the caller is told, and for the operator alone what really happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    reason: Reason,
    detail: String,
    step: Option<&'static str>,
}

impl Denied {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            step: None,
        }
    }

    /// The same, and at which step of the check it came.
    pub(super) fn at(self, step: &'static str) -> Self {
        Self {
            step: self.step.or(Some(step)),
            ..self
        }
    }

    /// The same, of an address that has sent too many bad credentials and may come again after `retry_after`.
    #[must_use]
    pub fn too_many(self, retry_after: Duration) -> Self {
        Self {
            reason: Reason::TooManyFailures { retry_after },
            ..self
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

    /// The HTTP status: 400, 401, 403, 429 or 503.
    pub fn status(&self) -> u16 {
        match self.reason {
            Reason::MultipleCredentials | Reason::ParameterNotAllowed { .. } => 400,
            Reason::InsufficientScope(_)
            | Reason::AccessDenied
            | Reason::AddressNotAllowed
            | Reason::ModelNotAllowed => 403,
            Reason::TooManyFailures { .. }
            | Reason::RateLimit { .. }
            | Reason::Concurrency { .. }
            | Reason::BudgetReserved { .. }
            | Reason::InsufficientQuota { .. } => 429,
            Reason::AuthUnavailable | Reason::TooManyCallers => 503,
            _ => 401,
        }
    }

    /// `error.type` of the body.
    pub fn error_type(&self) -> &'static str {
        match self.reason {
            Reason::InsufficientScope(_)
            | Reason::AccessDenied
            | Reason::AddressNotAllowed
            | Reason::ModelNotAllowed => "permission_error",
            Reason::TooManyFailures { .. }
            | Reason::RateLimit { .. }
            | Reason::Concurrency { .. }
            | Reason::BudgetReserved { .. } => "rate_limit_error",
            Reason::InsufficientQuota { .. } => "insufficient_quota",
            Reason::AuthUnavailable | Reason::TooManyCallers => "server_error",
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
            Reason::TokenRevoked => "token_revoked",
            Reason::InvalidApiKey => "invalid_api_key",
            Reason::AuthUnavailable => "auth_unavailable",
            Reason::InsufficientScope(_) => "insufficient_scope",
            Reason::AccessDenied => "access_denied",
            Reason::AddressNotAllowed => "ip_not_allowed",
            Reason::TooManyFailures { .. } => "too_many_failures",
            Reason::ModelNotAllowed => "model_not_allowed",
            Reason::ParameterNotAllowed { .. } => "parameter_not_allowed",
            Reason::RateLimit { .. } | Reason::BudgetReserved { .. } => "rate_limit_exceeded",
            Reason::TooManyCallers => "overloaded",
            Reason::Concurrency { .. } => "concurrency_limit_exceeded",
            Reason::InsufficientQuota { .. } => "insufficient_quota",
        }
    }

    /// `error.param` of the body: the field at fault.
    pub fn param(&self) -> Option<&'static str> {
        match self.reason {
            Reason::ModelNotAllowed => Some("model"),
            Reason::ParameterNotAllowed { param, .. } => Some(param),
            _ => None,
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
            Reason::TokenRevoked => "The access token was revoked.",
            Reason::InvalidApiKey => "The API key is invalid.",
            Reason::AuthUnavailable => {
                "The server cannot check tokens of this issuer now: its keys could not be fetched."
            }
            Reason::InsufficientScope(scope) => {
                return Cow::Owned(format!("The access token lacks the scope `{scope}`."));
            }
            Reason::AccessDenied => "This server's policy does not let you in.",
            Reason::AddressNotAllowed => "Requests from this address are not allowed.",
            Reason::TooManyFailures { .. } => "Too many bad credentials from this address.",
            Reason::ModelNotAllowed => "You may not use this model.",
            Reason::ParameterNotAllowed { param, most: None } => {
                return Cow::Owned(format!("You may not use '{param}'."));
            }
            Reason::ParameterNotAllowed {
                param,
                most: Some(most),
            } => return Cow::Owned(format!("'{param}' may be at most {most} for you.")),
            Reason::RateLimit { of, limit, .. } => {
                return Cow::Owned(format!(
                    "You are over your limit of {limit} {of} per minute."
                ));
            }
            Reason::Concurrency { limit } => {
                return Cow::Owned(format!(
                    "You may have {limit} completions at the same time, and have them."
                ));
            }
            Reason::BudgetReserved { period, limit } => {
                return Cow::Owned(format!(
                    "What is left of your budget of {limit} tokens per {period} is reserved by requests of yours that \
                     are running. Try again when they have ended."
                ));
            }
            Reason::TooManyCallers => {
                "The server is full: it counts the limits of too many callers."
            }
            Reason::InsufficientQuota { period, limit } => {
                return Cow::Owned(format!(
                    "Your budget of {limit} tokens per {period} does not cover this request."
                ));
            }
        })
    }

    /// The `WWW-Authenticate` value: fixed strings only, no input in it. 401 and the 403 of a scope have one.
    pub fn challenge(&self) -> Option<Cow<'static, str>> {
        if self.status() != 401
            && !matches!(
                self.reason,
                Reason::MultipleCredentials | Reason::InsufficientScope(_)
            )
        {
            return None;
        }
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
            Reason::TokenRevoked => {
                r#"Bearer realm="llm", error="invalid_token", error_description="the access token was revoked""#
            }
            Reason::InsufficientScope(scope) => {
                return Some(Cow::Owned(format!(
                    r#"Bearer realm="llm", error="insufficient_scope", scope="{scope}""#
                )));
            }
            _ => r#"Bearer realm="llm", error="invalid_token""#,
        }))
    }

    /// Further response headers.
    ///
    /// An expired token asks for a retry: SDKs that take the key from a function fetch a fresh one and succeed unseen.
    /// A spent budget asks for none. No other refusal says either, so that a bad static token fails in one round trip.
    pub fn extra_headers(&self) -> Vec<(&'static str, Cow<'static, str>)> {
        match self.reason {
            Reason::TokenExpired => vec![
                ("x-should-retry", "true".into()),
                ("retry-after-ms", "10".into()),
            ],
            Reason::InsufficientQuota { .. } => vec![("x-should-retry", "false".into())],
            Reason::Concurrency { .. } | Reason::BudgetReserved { .. } => {
                again(Duration::from_secs(1))
            }
            Reason::AuthUnavailable | Reason::TooManyCallers => again(Duration::from_secs(5)),
            Reason::RateLimit { retry_after, .. } | Reason::TooManyFailures { retry_after } => {
                again(retry_after)
            }
            _ => Vec::new(),
        }
    }

    /// At which step a token failed before its signature was known to be good: `form`, `header`, `claims`, `issuer`,
    /// `key` or `signature`. It quotes nothing, and is for logs alone.
    pub fn step(&self) -> Option<&'static str> {
        self.step
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

/// When to come again: whole seconds for everybody, milliseconds for SDKs that read them. Never zero.
fn again(after: Duration) -> Vec<(&'static str, Cow<'static, str>)> {
    let millis = after.as_nanos().div_ceil(1_000_000).max(1);
    vec![
        ("retry-after", millis.div_ceil(1000).to_string().into()),
        ("retry-after-ms", millis.to_string().into()),
    ]
}

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
