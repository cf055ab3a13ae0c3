//! What the engine refuses or gives up on, in the API's words.

use std::time::Duration;

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};

use super::ApiError;
use crate::engine::{EngineError, SubmitError};

impl ApiError {
    pub(in crate::server) fn engine_failed() -> Self {
        let message = "The engine has failed; the server must be restarted.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "engine_failed", message)
    }

    fn shutting_down() -> Self {
        let error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "shutting_down",
            "The server is shutting down.",
        );
        error.with(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// The request ran longer than `longest`, the most that its caller's share allows.
    pub(in crate::server) fn deadline_exceeded(longest: Option<Duration>) -> Self {
        let within = longest.map_or_else(String::new, |longest| {
            format!(" within the {}", seconds(longest))
        });
        let message = format!(
            "The request was not over{within} that it may take, and was ended. Ask for fewer tokens at a time."
        );
        // It would take as long again.
        Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", message)
            .with(SHOULD_RETRY, HeaderValue::from_static("false"))
    }

    /// The caller's right was taken away while the request waited or ran.
    pub(in crate::server) fn access_revoked() -> Self {
        let message = "Your access was revoked while the request was running; it was ended.";
        let mut error = Self::new(StatusCode::FORBIDDEN, "access_revoked", message);
        error.kind = "permission_error";
        error.with(WWW_AUTHENTICATE, HeaderValue::from_static(REVOKED))
    }

    /// A token budget was spent while the request ran: what there is of the answer has been sent.
    pub(in crate::server) fn budget_spent() -> Self {
        let message =
            "Your token budget was spent while the request was running; its answer was cut short.";
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut error = Self::new(status, "insufficient_quota", message);
        error.kind = "insufficient_quota";
        error.with(SHOULD_RETRY, HeaderValue::from_static("false"))
    }

    /// The queue has no place now, and will after `retry_after`.
    fn later(mut self, retry_after: Duration) -> Self {
        let millis = retry_after.as_nanos().div_ceil(1_000_000).max(1);
        let seconds = millis.div_ceil(1000);
        self.message += &format!(" Try again in {seconds} s.");
        let number = |n: u128| {
            HeaderValue::try_from(n.to_string())
                .expect("digits are a header's value. This is a bug.")
        };
        self.with(RETRY_AFTER, number(seconds))
            .with(RETRY_AFTER_MS, number(millis))
    }

    fn over_share(message: String, retry_after: Duration) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut error = Self::new(status, "rate_limit_exceeded", message);
        error.kind = "rate_limit_error";
        error.later(retry_after)
    }

    fn overloaded(message: String, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message).later(retry_after)
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::QueueFull { limit, retry_after } => Self::overloaded(
                format!("The server is full: at most {limit} completions may wait."),
                retry_after,
            ),
            SubmitError::QueueTokens { limit, retry_after } => Self::overloaded(
                format!("The server is full: waiting requests may reserve at most {limit} tokens."),
                retry_after,
            ),
            SubmitError::TooLate {
                deadline,
                retry_after,
            } => Self::overloaded(
                format!(
                    "The server is full: this request would not start within the {} that it may take.",
                    seconds(deadline)
                ),
                retry_after,
            ),
            SubmitError::OverShare { limit, retry_after } => Self::over_share(
                format!(
                    "You have too many requests waiting: at most {limit} completions of yours may wait."
                ),
                retry_after,
            ),
            SubmitError::OverShareTokens { limit, retry_after } => Self::over_share(
                format!(
                    "You have too much waiting: your waiting requests may reserve at most {limit} tokens."
                ),
                retry_after,
            ),
            SubmitError::TooMany { n, limit } => Self::bad_request(
                "invalid_value",
                format!("n is {n}; this server queues at most {limit} completions."),
            )
            .at("n"),
            SubmitError::TooLong { needed, limit } => Self::context_length(limit, needed, 0),
            SubmitError::ShuttingDown => Self::shutting_down(),
            SubmitError::Failed => Self::engine_failed(),
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Failed => Self::engine_failed(),
            EngineError::ShuttingDown => Self::shutting_down(),
        }
    }
}

fn seconds(time: Duration) -> String {
    match time.as_secs_f32() {
        1.0 => "1 second".to_owned(),
        other => format!("{other} seconds"),
    }
}

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const REVOKED: &str =
    r#"Bearer realm="llm", error="invalid_token", error_description="the access was revoked""#;

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use serde_json::{Value, json};

    use super::*;

    /// Status, headers by name, body.
    fn answer<const N: usize>(
        error: ApiError,
        names: [&str; N],
    ) -> (u16, [Option<String>; N], Value) {
        let body = error.body();
        let response = error.into_response();
        let header = |name| {
            let value = response.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        (response.status().as_u16(), names.map(header), body)
    }

    fn body(message: &str, kind: &str, code: &str) -> Value {
        json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
    }

    fn some<const N: usize>(values: [&str; N]) -> [Option<String>; N] {
        values.map(|value| Some(value.to_owned()))
    }

    const WAIT: [&str; 2] = ["retry-after", "retry-after-ms"];

    #[test]
    fn a_full_queue_is_503_with_the_time_until_there_is_room() {
        let retry_after = Duration::from_micros(2_500_100);
        let full = SubmitError::QueueFull {
            limit: 8,
            retry_after,
        };
        assert_eq!(
            answer(full.into(), WAIT),
            (
                503,
                some(["3", "2501"]),
                body(
                    "The server is full: at most 8 completions may wait. Try again in 3 s.",
                    "server_error",
                    "overloaded"
                )
            )
        );
        let tokens = SubmitError::QueueTokens {
            limit: 4096,
            retry_after: Duration::from_millis(50),
        };
        assert_eq!(
            answer(tokens.into(), WAIT),
            (
                503,
                some(["1", "50"]),
                body(
                    "The server is full: waiting requests may reserve at most 4096 tokens. Try again in 1 s.",
                    "server_error",
                    "overloaded"
                )
            )
        );
        let late = SubmitError::TooLate {
            deadline: Duration::from_secs(30),
            retry_after: Duration::from_secs(12),
        };
        assert_eq!(
            answer(late.into(), WAIT),
            (
                503,
                some(["12", "12000"]),
                body(
                    "The server is full: this request would not start within the 30 seconds that it may take. Try \
                     again in 12 s.",
                    "server_error",
                    "overloaded"
                )
            )
        );
    }

    #[test]
    fn who_has_its_share_of_the_queue_hears_429() {
        let error = SubmitError::OverShare {
            limit: 6,
            retry_after: Duration::from_secs(1),
        };
        assert_eq!(
            answer(error.into(), WAIT),
            (
                429,
                some(["1", "1000"]),
                body(
                    "You have too many requests waiting: at most 6 completions of yours may wait. Try again in 1 s.",
                    "rate_limit_error",
                    "rate_limit_exceeded"
                )
            )
        );
    }

    #[test]
    fn a_request_over_its_time_is_504_and_not_to_be_sent_again() {
        let error = ApiError::deadline_exceeded(Some(Duration::from_secs(1)));
        assert_eq!(
            answer(error, ["x-should-retry"]),
            (
                504,
                some(["false"]),
                body(
                    "The request was not over within the 1 second that it may take, and was ended. Ask for fewer \
                     tokens at a time.",
                    "server_error",
                    "deadline_exceeded"
                )
            )
        );
    }

    #[test]
    fn revoked_access_is_403_with_a_challenge() {
        assert_eq!(
            answer(ApiError::access_revoked(), ["www-authenticate"]),
            (
                403,
                some([REVOKED]),
                body(
                    "Your access was revoked while the request was running; it was ended.",
                    "permission_error",
                    "access_revoked"
                )
            )
        );
    }

    #[test]
    fn what_can_never_wait_or_run_is_400() {
        let many = SubmitError::TooMany { n: 9, limit: 6 };
        let error = ApiError::from(many);
        assert_eq!(
            (error.status().as_u16(), error.code(), error.param()),
            (400, "invalid_value", Some("n"))
        );
    }
}
