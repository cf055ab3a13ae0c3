//! Class A: where the credential is, and how many there are.

use axum::http::{HeaderMap, HeaderValue, Request};

use super::kit::*;
use crate::auth::Reason;

fn reason(headers: &HeaderMap) -> Reason {
    arrive(&gate(), headers).unwrap_err().reason()
}

#[test]
fn no_header_is_401_with_a_bare_challenge() {
    let denied = arrive(&gate(), &HeaderMap::new()).unwrap_err();
    assert_eq!(
        (denied.status(), denied.code()),
        (401, "missing_credentials")
    );
    assert_eq!(denied.challenge().unwrap(), r#"Bearer realm="llm""#);
    assert!(denied.extra_headers().is_empty());
}

#[test]
fn other_schemes_and_an_empty_bearer_count_as_no_credential() {
    for value in [
        "",
        "Basic YTpi",
        "Bearer",
        "Bearer ",
        "Bearer    ",
        "DPoP abc",
        "Token x",
        "Bearerx y",
        "B y",
    ] {
        assert_eq!(
            reason(&headers(&[value])),
            Reason::MissingCredentials,
            "{value:?}"
        );
    }
    let glued = format!("Bearer{}", good_token());
    assert_eq!(reason(&headers(&[&glued])), Reason::MissingCredentials);
}

#[test]
fn the_scheme_is_case_insensitive() {
    for scheme in ["bearer", "BEARER", "bEaReR", "Bearer  "] {
        let value = format!("{scheme} {}", good_token());
        assert!(arrive(&gate(), &headers(&[&value])).is_ok(), "{scheme}");
    }
}

#[test]
fn two_authorization_fields_are_400_even_if_both_are_good() {
    let good = format!("Bearer {}", good_token());
    for pair in [
        [&*good, &*good],
        [&good, "Basic YTpi"],
        ["", &good],
        ["Basic YTpi", "Basic YTpi"],
    ] {
        let denied = arrive(&gate(), &headers(&pair)).unwrap_err();
        assert_eq!(
            (denied.status(), denied.code()),
            (400, "multiple_credentials")
        );
        assert!(
            denied
                .challenge()
                .unwrap()
                .contains(r#"error="invalid_request""#)
        );
    }
}

#[test]
fn two_credentials_in_one_field_are_refused() {
    let token = good_token();
    assert_invalid(
        &gate(),
        &format!("{token}, Bearer {token}"),
        "characters outside base64url",
    );
    assert_invalid(
        &gate(),
        &format!("{token} {token}"),
        "characters outside base64url",
    );
}

#[test]
fn a_token_anywhere_but_in_the_authorization_header_is_not_read() {
    let token = good_token();
    let request = Request::get(format!("/v1/models?access_token={token}&jwt={token}"))
        .header("cookie", format!("access_token={token}"))
        .header("x-api-key", &token)
        .header("api-key", &token)
        .header("proxy-authorization", format!("Bearer {token}"))
        .header("x-forwarded-authorization", format!("Bearer {token}"))
        .header("x-forwarded-user", "alice")
        .body(())
        .unwrap();
    assert_eq!(reason(request.headers()), Reason::MissingCredentials);
}

#[test]
fn bytes_outside_ascii_are_refused_without_panic() {
    let mut headers = HeaderMap::new();
    headers.insert(
        "authorization",
        HeaderValue::from_bytes(b"Bearer \xff\xfe.a.b").unwrap(),
    );
    assert_eq!(reason(&headers), Reason::InvalidToken);
    headers.insert("authorization", HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(reason(&headers), Reason::MissingCredentials);
}

#[test]
fn only_an_expired_token_asks_for_a_retry() {
    let expired = refused(
        &gate(),
        &token_with(serde_json::json!({"exp": NOW - 3600, "iat": NOW - 7200})),
    );
    assert_eq!(expired.code(), "token_expired");
    assert_eq!(
        expired.extra_headers(),
        [
            ("x-should-retry", "true".into()),
            ("retry-after-ms", "10".into())
        ]
    );
    let other = refused(&gate(), &token_with(serde_json::json!({"aud": "other"})));
    assert!(other.extra_headers().is_empty());
}
