//! Class G: audience, subject, scopes: missing, mistyped, look-alike, smuggled.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::kit::*;
use crate::auth::{Gate, OneOrMany, Reason};

fn scopes(gate: &Gate, changes: Value) -> Vec<String> {
    accepted(gate, &token_with(changes))
        .scopes()
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_audience_must_be_ours_byte_for_byte() {
    accepted(
        &gate(),
        &token_with(json!({"aud": [AUDIENCE, "https://idp.example/userinfo"]})),
    );
    for aud in [
        json!("https://api.example/v1/"),
        json!("HTTPS://API.EXAMPLE/V1"),
        json!("https://api.example"),
        json!(""),
        json!("*"),
        json!(["a", "b"]),
        json!(format!("{AUDIENCE} other")),
    ] {
        assert_refused(
            &gate(),
            &token_with(json!({"aud": aud})),
            Reason::InvalidAudience,
            "the audience is",
        );
    }
}

#[test]
fn the_audience_must_be_a_string_or_strings() {
    assert_refused(
        &gate(),
        &token_with(json!({"aud": null})),
        Reason::InvalidClaims,
        "`aud` is missing",
    );
    for aud in [
        json!([]),
        json!([AUDIENCE, 5]),
        json!([[AUDIENCE]]),
        json!(7),
        json!({AUDIENCE: 1}),
        json!(true),
    ] {
        assert_refused(
            &gate(),
            &token_with(json!({"aud": aud})),
            Reason::InvalidClaims,
            "`aud`",
        );
    }
    let many: Vec<String> = (0..64)
        .map(|n| format!("other-{n}"))
        .chain([AUDIENCE.to_owned()])
        .collect();
    assert_refused(
        &gate(),
        &token_with(json!({"aud": many})),
        Reason::InvalidClaims,
        "1 to 64 strings",
    );
}

#[test]
fn the_audience_may_live_in_another_claim() {
    let cognito = gate_with(|issuer| {
        issuer.audience_claim = Some("client_id".to_owned());
        issuer.required_claims =
            BTreeMap::from([("token_use".to_owned(), OneOrMany::One("access".to_owned()))]);
    });
    let good = json!({"aud": null, "client_id": AUDIENCE, "token_use": "access"});
    accepted(&cognito, &token_with(good));
    let no_use = token_with(json!({"aud": null, "client_id": AUDIENCE}));
    assert_refused(
        &cognito,
        &no_use,
        Reason::InvalidClaims,
        "`token_use` is missing",
    );
    let other = token_with(json!({"client_id": "x", "token_use": "access"}));
    assert_refused(
        &cognito,
        &other,
        Reason::InvalidAudience,
        "the audience is `x`",
    );
}

#[test]
fn the_subject_is_required_plain_and_bounded() {
    assert_refused(
        &gate(),
        &token_with(json!({"sub": null})),
        Reason::InvalidClaims,
        "`sub` is missing",
    );
    for sub in [
        json!(7),
        json!(["alice"]),
        json!(""),
        json!("a\nb"),
        json!("a\0"),
        json!("a\u{85}b"),
        json!("x".repeat(257)),
    ] {
        assert_refused(
            &gate(),
            &token_with(json!({"sub": sub})),
            Reason::InvalidClaims,
            "`sub` is not a string",
        );
    }
    accepted(&gate(), &token_with(json!({"sub": "x".repeat(256)})));
}

#[test]
fn optional_names_are_typed_strictly_too() {
    for name in ["jti", "azp", "client_id"] {
        for value in [json!(7), json!(""), json!("a\nb"), json!(["a"])] {
            assert_refused(
                &gate(),
                &token_with(json!({name: value})),
                Reason::InvalidClaims,
                name,
            );
        }
    }
}

#[test]
fn required_claims_must_have_one_of_their_values() {
    let tenants = OneOrMany::Many(vec!["a".to_owned(), "b".to_owned()]);
    let gate =
        gate_with(|issuer| issuer.required_claims = BTreeMap::from([("tid".to_owned(), tenants)]));
    accepted(&gate, &token_with(json!({"tid": "b"})));
    assert_refused(
        &gate,
        &token_with(json!({"tid": "c"})),
        Reason::InvalidClaims,
        "`tid` is `c`",
    );
    assert_refused(
        &gate,
        &token_with(json!({"tid": ["a"]})),
        Reason::InvalidClaims,
        "`tid` is not a string",
    );
    assert_refused(
        &gate,
        &good_token(),
        Reason::InvalidClaims,
        "`tid` is missing",
    );
}

#[test]
fn scope_strings_split_on_space_and_arrays_are_taken_whole() {
    assert_eq!(
        scopes(&gate(), json!({"scope": "chat  models "})),
        ["chat", "models"]
    );
    assert_eq!(
        scopes(&gate(), json!({"scope": null, "scp": "a b"})),
        ["a", "b"]
    );
    assert_eq!(
        scopes(&gate(), json!({"scope": null, "scp": ["a b", "c"]})),
        ["a b", "c"]
    );
    assert_eq!(
        scopes(&gate(), json!({"scope": "chat", "scp": ["a"]})),
        ["chat", "a"]
    );
}

#[test]
fn scopes_match_whole_and_exactly() {
    let identity = accepted(
        &gate(),
        &token_with(json!({"scope": "chat:read Models admin\u{e9}"})),
    );
    for near in ["chat", "models", "read", "admin", "chat:read Models", ""] {
        assert!(!identity.has_scope(near), "{near}");
    }
    assert!(identity.has_scope("chat:read"));
}

#[test]
fn mistyped_scopes_are_refused_rather_than_ignored() {
    for bad in [
        json!({"scope": ["chat"]}),
        json!({"scope": 1}),
        json!({"scope": "chat\tmodels"}),
        json!({"scp": {"chat": true}}),
        json!({"scp": ["chat", 1]}),
        json!({"scp": ["chat", ""]}),
        json!({"scope": "x".repeat(257)}),
        json!({"scope": "x ".repeat(257)}),
    ] {
        let denied = refused(&gate(), &token_with(bad));
        assert_eq!(denied.reason(), Reason::InvalidClaims);
    }
}

#[test]
fn unconfigured_claims_grant_nothing() {
    let token = json!({
        "scope": null, "permissions": ["chat"], "roles": ["chat"], "groups": ["chat"], "scopes": "chat",
        "Scope": "chat", "realm_access": {"roles": ["chat"]},
    });
    assert!(scopes(&gate(), token).is_empty());
}

#[test]
fn configured_claims_grant_by_name_and_by_path() {
    let names = ["permissions", "/realm_access/roles"]
        .map(str::to_owned)
        .to_vec();
    let gate = gate_with(|issuer| issuer.scope_claims = Some(names));
    let token = json!({"permissions": ["chat"], "realm_access": {"roles": ["models"]}});
    assert_eq!(scopes(&gate, token), ["chat", "models"]);
    // The default claims are replaced, not joined.
    assert!(scopes(&gate, json!({"scope": "chat"})).is_empty());
    let text = token_with(json!({"permissions": "chat models"}));
    assert_refused(
        &gate,
        &text,
        Reason::InvalidClaims,
        "`permissions` has the wrong type",
    );
}

#[test]
fn default_scopes_stand_in_only_where_no_scope_claim_is_present() {
    let gate = gate_with(|issuer| issuer.default_scopes = vec!["chat".to_owned()]);
    assert_eq!(scopes(&gate, json!({"scope": null})), ["chat"]);
    assert!(scopes(&gate, json!({"scope": ""})).is_empty());
    assert_eq!(scopes(&gate, json!({"scope": "models"})), ["models"]);
}

#[test]
fn details_escape_and_cut_what_the_token_says() {
    let evil = format!(
        "x\n2026-01-01 INFO alice logged in\u{1b}[2J{}",
        "y".repeat(5000)
    );
    let denied = refused(&gate(), &token_with(json!({"iss": evil})));
    assert!(denied.detail().len() < 400 && !denied.detail().chars().any(char::is_control));
    assert!(!denied.challenge().unwrap().contains("alice"));
}
