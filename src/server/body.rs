//! Reads a request body: bounded in size and time, then strictly as one JSON document.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::ApiError;
use super::app::Shared;
use crate::strict_json;

/// The body as JSON. As an extractor it must stand last, after the gate's.
pub(super) struct JsonBody(pub(super) Value);

impl FromRequest<Arc<Shared>> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        if let Err(error) = check_headers(&head.headers) {
            linger(body);
            return Err(error);
        }
        let bytes = read(
            body,
            shared.config.max_body_bytes,
            shared.config.body_timeout,
        )
        .await?;
        parse(&bytes).map(JsonBody)
    }
}

/// Bytes to JSON.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| ApiError::invalid_utf8(error.valid_up_to()))?;
    if text.trim_ascii().is_empty() {
        return Err(ApiError::invalid_json("it is empty"));
    }
    strict_json::value(text.as_bytes(), MAX_DEPTH).map_err(ApiError::invalid_json)
}

/// A missing content type is taken as JSON: nothing else is understood here anyway.
fn check_headers(headers: &HeaderMap) -> Result<(), ApiError> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(ApiError::content_encoding());
    }
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    let essence = essence.to_ascii_lowercase();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        Ok(())
    } else {
        Err(ApiError::content_type())
    }
}

async fn read(mut body: Body, limit: usize, within: Duration) -> Result<Bytes, ApiError> {
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        linger(body);
        return Err(ApiError::body_too_large(limit, Some(announced)));
    }
    let deadline = Instant::now() + within;
    let mut bytes = BytesMut::with_capacity(announced as usize);
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_elapsed) => return Err(ApiError::body_timeout(within)),
            Ok(None) => return Ok(bytes.freeze()),
            Ok(Some(Err(_broken))) => return Err(ApiError::broken_body()),
            Ok(Some(Ok(frame))) => frame,
        };
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if bytes.len() + data.len() > limit {
            linger(body);
            return Err(ApiError::body_too_large(limit, None));
        }
        bytes.extend_from_slice(data);
    }
}

/// Lets somebody who was refused before we read anything finish sending, so that they see the refusal and not a reset.
///
/// Who waits for our `100 Continue` sends nothing unless asked, and is not asked. Only so many may linger at the same
/// time, and only so much is read: refusing must stay cheap.
pub(super) fn throw_away(shared: &Shared, headers: &HeaderMap, body: Body) {
    if body.is_end_stream() || headers.contains_key(EXPECT) {
        return;
    }
    if let Ok(place) = shared.lingering.clone().try_acquire_owned() {
        tokio::spawn(async move {
            let _place = place;
            drain(body, REFUSED_BYTES).await;
        });
    }
}

/// Reads on for a while and throws away what comes. Closing a socket that has unread data resets the connection, and
/// the caller, still writing, would see the reset instead of our answer.
fn linger(body: Body) {
    tokio::spawn(drain(body, LINGER_BYTES));
}

async fn drain(mut body: Body, most: usize) {
    let reading = async {
        let mut left = most;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else {
                return;
            };
            left = rest;
        }
    };
    // Over time or over size: the connection closes, and that is all there is to say.
    let _ = timeout(LINGER_TIME, reading).await;
}

const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 64 << 20;
/// Of somebody who has not said who they are.
const REFUSED_BYTES: usize = 16 << 20;

/// Tool schemas nest deepest; real ones stay below twenty levels.
const MAX_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::http::HeaderValue;
    use futures_util::stream;

    use super::*;

    const PLENTY: Duration = Duration::from_secs(60);

    fn chunked(chunks: &[&'static str]) -> Body {
        let chunks: Vec<_> = chunks
            .iter()
            .map(|chunk| Ok::<_, Infallible>(Bytes::from_static(chunk.as_bytes())))
            .collect();
        Body::from_stream(stream::iter(chunks))
    }

    fn content_type(value: &'static str) -> Result<(), ApiError> {
        check_headers(&HeaderMap::from_iter([(
            CONTENT_TYPE,
            HeaderValue::from_static(value),
        )]))
    }

    #[test]
    fn json_content_types_pass_and_others_are_415() {
        for fine in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.api+json",
        ] {
            assert!(content_type(fine).is_ok(), "{fine}");
        }
        assert!(check_headers(&HeaderMap::new()).is_ok());
        for foreign in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
            "",
        ] {
            assert_eq!(
                content_type(foreign).unwrap_err().status(),
                415,
                "{foreign}"
            );
        }
        let gzip = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        assert_eq!(check_headers(&gzip).unwrap_err().status(), 415);
    }

    #[tokio::test]
    async fn a_body_at_the_limit_is_read_and_one_byte_more_is_413() {
        assert_eq!(
            read(chunked(&["12", "34"]), 4, PLENTY).await.unwrap(),
            "1234"
        );
        assert_eq!(
            read(chunked(&["12", "345"]), 4, PLENTY)
                .await
                .unwrap_err()
                .status(),
            413
        );
    }

    #[tokio::test]
    async fn an_announced_length_over_the_limit_is_413_and_named() {
        let error = read(Body::from("12345"), 4, PLENTY).await.unwrap_err();
        assert_eq!(error.code(), "request_too_large");
        assert!(
            error.message().contains("5 were announced"),
            "{}",
            error.message()
        );
    }

    #[tokio::test]
    async fn a_body_that_stalls_is_408() {
        let stalled = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let error = read(stalled, 4, Duration::from_millis(1))
            .await
            .unwrap_err();
        assert_eq!(
            (error.status().as_u16(), error.code()),
            (408, "request_timeout")
        );
    }

    #[tokio::test]
    async fn a_body_whose_framing_breaks_is_400() {
        let broken = Body::from_stream(stream::iter([Err::<Bytes, _>(std::io::Error::other(
            "reset",
        ))]));
        assert_eq!(
            read(broken, 4, PLENTY).await.unwrap_err().code(),
            "invalid_body"
        );
    }

    #[test]
    fn bytes_that_are_no_json_are_400_with_a_reason() {
        for (bytes, code) in [
            (&b""[..], "invalid_json"),
            (b" \n", "invalid_json"),
            (b"{\"a\":", "invalid_json"),
            (b"{\"a\":1} x", "invalid_json"),
            (b"{\"a\":NaN}", "invalid_json"),
            (b"{\"a\":1e999}", "invalid_json"),
            (b"{\"a\":\"\\ud800\"}", "invalid_json"),
            (b"{\"a\":\"\xff\"}", "invalid_utf8"),
        ] {
            let error = parse(bytes).unwrap_err();
            assert_eq!(
                (error.status().as_u16(), error.code()),
                (400, code),
                "{bytes:?}"
            );
        }
    }
}
