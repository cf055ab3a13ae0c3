//! Every refusal in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`, all four keys, always.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_json`, `invalid_utf8`, `invalid_body` | the body is not one JSON document |
//! | 400 | `missing_required_parameter`, `invalid_type`, `invalid_value` | a field is absent, of another type, out of range |
//! | 400 | `unsupported_parameter`, `unknown_parameter` | a field that would change the result but cannot; one nobody knows |
//! | 400 | `context_length_exceeded` | prompt (and completion) cannot fit |
//! | 401, 403, 429 | as the gate says | |
//! | 404 | `unknown_url`, `model_not_found` | |
//! | 405 | `method_not_allowed` | with `Allow` |
//! | 408, 413, 415 | `request_timeout`, `request_too_large`, `unsupported_media_type` | slow, large or foreign body |
//! | 403 | `access_revoked` | the caller's right was taken away meanwhile |
//! | 429 | `rate_limit_exceeded` | the caller has its share of the queue; with `Retry-After` |
//! | 429 | `insufficient_quota` | a token budget ran out while a stream ran: an event at its end |
//! | 503 | `overloaded`, `shutting_down`, `engine_failed` | the server's fault, not the caller's |
//! | 503 | `ledger_unavailable` | usage cannot be read |
//! | 504 | `deadline_exceeded` | it ran longer than the caller's share allows |

mod engine;

use std::sync::Arc;

use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::auth::Denied;
use crate::text::PromptError;

/// A refusal. Made by the constructors below, one per situation, so that codes and sentences stay in one place.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    message: String,
    param: Option<String>,
    headers: Option<Box<HeaderMap>>,
    /// What the gate said, for the audit.
    denied: Option<Arc<Denied>>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let kind = if status.is_server_error() {
            SERVER_ERROR
        } else {
            INVALID_REQUEST
        };
        Self {
            status,
            kind,
            code,
            message: message.into(),
            param: None,
            headers: None,
            denied: None,
        }
    }

    fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.get_or_insert_default().insert(name, value);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable word for programs.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// JSON path of the field at fault.
    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// The body, also sent as an event when a stream fails after its headers have gone out.
    pub fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }

    // The body.

    pub(super) fn invalid_json(reason: impl std::fmt::Display) -> Self {
        Self::bad_request(
            "invalid_json",
            format!("The request body is not valid JSON: {reason}."),
        )
    }

    pub(super) fn invalid_utf8(offset: usize) -> Self {
        let message =
            format!("The request body is not valid UTF-8 (first bad byte at offset {offset}).");
        Self::bad_request("invalid_utf8", message)
    }

    pub(super) fn broken_body() -> Self {
        let error = Self::bad_request(
            "invalid_body",
            "The request body ended early or its framing is broken.",
        );
        error.with(CONNECTION, CLOSE)
    }

    pub(super) fn body_too_large(limit: usize, announced: Option<u64>) -> Self {
        let given = announced
            .map(|bytes| format!(", {bytes} were announced"))
            .unwrap_or_default();
        let message =
            format!("The request body is too large: at most {limit} bytes are read{given}.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    pub(super) fn body_timeout(limit: std::time::Duration) -> Self {
        let message = format!(
            "The request body did not arrive within {} seconds.",
            limit.as_secs_f32()
        );
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message).with(CONNECTION, CLOSE)
    }

    pub(super) fn content_type() -> Self {
        let message = "The request body must be sent as 'Content-Type: application/json'.";
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            message,
        )
    }

    pub(super) fn content_encoding() -> Self {
        let message = "Compressed request bodies are not read: send it without 'Content-Encoding'.";
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            message,
        )
    }

    // Fields.

    pub(super) fn not_an_object(given: &str) -> Self {
        Self::bad_request(
            "invalid_type",
            format!("The request body must be a JSON object, not {given}."),
        )
    }

    pub(super) fn missing(path: &str) -> Self {
        Self::bad_request(
            "missing_required_parameter",
            format!("'{path}' is required."),
        )
        .at(path)
    }

    pub(super) fn wrong_type(path: &str, wanted: &str, given: &str) -> Self {
        Self::bad_request(
            "invalid_type",
            format!("'{path}' must be {wanted}, not {given}."),
        )
        .at(path)
    }

    pub(super) fn invalid_value(path: &str, must: impl std::fmt::Display) -> Self {
        Self::bad_request("invalid_value", format!("'{path}' {must}.")).at(path)
    }

    pub(super) fn unsupported(path: &str, accepted: &str) -> Self {
        let message = format!(
            "'{path}' is not supported by this server; it may be left out or be {accepted}."
        );
        Self::bad_request("unsupported_parameter", message).at(path)
    }

    pub(super) fn unknown_field(path: &str, near: Option<&str>) -> Self {
        let hint = near
            .map(|name| format!(" Did you mean '{name}'?"))
            .unwrap_or_default();
        Self::bad_request(
            "unknown_parameter",
            format!("Unknown parameter: '{path}'.{hint}"),
        )
        .at(path)
    }

    /// The sentence that clients of other servers search for: "maximum context length is N tokens. However, you
    /// requested …".
    pub(super) fn context_length(limit: usize, prompt: usize, completion: usize) -> Self {
        let total = prompt.saturating_add(completion);
        let message = format!(
            "This model's maximum context length is {limit} tokens. However, you requested {total} tokens ({prompt} in \
             the messages, {completion} in the completion). Please reduce the length of the messages or completion."
        );
        Self::bad_request("context_length_exceeded", message).at("messages")
    }

    /// As [`ApiError::context_length`], for a prompt too large to be worth counting.
    pub(super) fn context_length_at_least(limit: usize, prompt: usize, completion: usize) -> Self {
        let total = prompt.saturating_add(completion);
        let message = format!(
            "This model's maximum context length is {limit} tokens. However, you requested at least {total} tokens \
             (at least {prompt} in the messages, {completion} in the completion). Please reduce the length of the \
             messages or completion."
        );
        Self::bad_request("context_length_exceeded", message).at("messages")
    }

    pub(super) fn model_not_found(name: &str) -> Self {
        let name = clipped(name, 128);
        let message = format!("The model `{name}` does not exist or you do not have access to it.");
        Self::new(StatusCode::NOT_FOUND, "model_not_found", message).at("model")
    }

    // Routes.

    pub(super) fn unknown_url(method: &Method, path: &str) -> Self {
        let message = format!(
            "Unknown URL: {} {}.",
            clipped(method.as_str(), 16),
            clipped(path, 128)
        );
        Self::new(StatusCode::NOT_FOUND, "unknown_url", message)
    }

    pub(super) fn wrong_method(method: &Method, path: &str) -> Self {
        let message = format!(
            "{} does not take {}.",
            clipped(path, 128),
            clipped(method.as_str(), 16)
        );
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            message,
        )
    }

    // The server's own trouble.

    pub(super) fn ledger_unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ledger_unavailable",
            "Usage cannot be read right now; the reason has been logged.",
        )
    }

    /// What a caller sees of a bug of ours; the log has the rest.
    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "The server made a mistake; it has been logged.",
        )
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let mut headers = HeaderMap::new();
        if let Some(Ok(challenge)) = denied
            .challenge()
            .map(|value| HeaderValue::try_from(&*value))
        {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        for (name, value) in denied.extra_headers() {
            if let Ok(value) = HeaderValue::try_from(&*value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        Self {
            status: StatusCode::from_u16(denied.status()).unwrap_or(StatusCode::UNAUTHORIZED),
            kind: denied.error_type(),
            code: denied.code(),
            message: denied.message().into_owned(),
            param: denied.param().map(str::to_owned),
            headers: Some(Box::new(headers)),
            denied: Some(Arc::new(denied)),
        }
    }
}

impl From<PromptError> for ApiError {
    fn from(error: PromptError) -> Self {
        Self::bad_request("invalid_value", error.message).at(error.param)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(extra) = self.headers {
            headers.extend(*extra);
        }
        if let Some(denied) = self.denied {
            response.extensions_mut().insert(denied);
        }
        response
    }
}

/// What a caller sent, cut so that an answer stays an answer.
fn clipped(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

const INVALID_REQUEST: &str = "invalid_request_error";
const SERVER_ERROR: &str = "server_error";
const CLOSE: HeaderValue = HeaderValue::from_static("close");
