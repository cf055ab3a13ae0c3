//! Class H: genuine tokens of another kind.

use serde_json::json;

use super::kit::*;
use crate::auth::Reason;

#[test]
fn id_and_logout_token_markers_are_refused() {
    for marker in ["nonce", "at_hash", "c_hash", "events"] {
        let token = token_with(json!({marker: "x"}));
        assert_refused(
            &gate(),
            &token,
            Reason::InvalidTokenType,
            &format!("`{marker}` marks"),
        );
    }
}

#[test]
fn tokens_of_another_use_are_refused() {
    for (name, value) in [
        ("token_use", "id"),
        ("token_use", "ID"),
        ("token_use", "refresh"),
        ("typ", "ID"),
        ("typ", "Refresh"),
        ("typ", "Offline"),
        ("typ", "Logout"),
    ] {
        assert_refused(
            &gate(),
            &token_with(json!({name: value})),
            Reason::InvalidTokenType,
            "not an access token",
        );
    }
    accepted(
        &gate(),
        &token_with(json!({"typ": "Bearer", "token_use": "access"})),
    );
    assert_refused(
        &gate(),
        &token_with(json!({"typ": ["ID"]})),
        Reason::InvalidClaims,
        "`typ`",
    );
}

#[test]
fn tokens_bound_to_a_key_need_the_proof_that_is_not_taken() {
    for cnf in [
        json!({"jkt": "abc"}),
        json!({"x5t#S256": "abc"}),
        json!({}),
        json!("x"),
    ] {
        let denied = refused(&gate(), &token_with(json!({"cnf": cnf})));
        assert_eq!(
            (denied.status(), denied.code()),
            (401, "invalid_token_binding")
        );
        assert_eq!(
            denied.challenge().unwrap(),
            r#"Bearer realm="llm", error="invalid_token""#
        );
    }
}

#[test]
fn refusals_after_a_good_signature_each_have_their_code() {
    for (changes, code) in [
        (json!({"exp": NOW - 600, "iat": NOW - 900}), "token_expired"),
        (json!({"nbf": NOW + 300}), "token_not_active"),
        (json!({"aud": "x"}), "invalid_audience"),
        (json!({"nonce": "x"}), "invalid_token_type"),
        (json!({"sub": null}), "invalid_claims"),
        (json!({"cnf": {}}), "invalid_token_binding"),
    ] {
        let denied = refused(&gate(), &token_with(changes));
        assert_eq!(
            (denied.status(), denied.error_type(), denied.code()),
            (401, "invalid_request_error", code)
        );
        assert!(
            denied
                .challenge()
                .unwrap()
                .starts_with(r#"Bearer realm="llm", error="invalid_token""#)
        );
    }
}
