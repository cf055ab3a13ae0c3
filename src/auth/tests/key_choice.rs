//! Class D: tokens that try to choose their key.

use serde_json::json;

use super::kit::*;

const OTHER_ISSUER: &str = "https://other.example";

/// Two issuers whose keys have the same id.
fn two_issuers() -> crate::auth::Gate {
    gate_of(vec![
        ed_issuer(),
        issuer(OTHER_ISSUER, vec![pem_key(Some(KID), &OTHER_ED)]),
    ])
}

#[test]
fn one_issuers_key_never_vouches_for_another() {
    let gate = two_issuers();
    let ours = good_claims().to_string();
    let theirs = claims_with(json!({"iss": OTHER_ISSUER}));
    accepted(&gate, &forge(&ED, GOOD_HEADER, &ours));
    accepted(&gate, &forge(&OTHER_ED, GOOD_HEADER, &theirs));
    assert_invalid(
        &gate,
        &forge(&OTHER_ED, GOOD_HEADER, &ours),
        "the signature does not match",
    );
    assert_invalid(
        &gate,
        &forge(&ED, GOOD_HEADER, &theirs),
        "the signature does not match",
    );
}

#[test]
fn an_unknown_key_id_is_refused_although_the_key_would_fit() {
    let claims = good_claims().to_string();
    for kid in [
        "key-2",
        "KEY-1",
        "key-1 ",
        "../key-1",
        "key-1' OR '1'='1",
        "/dev/null",
    ] {
        let token = forge(&ED, &format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#), &claims);
        assert_invalid(&gate(), &token, "this issuer has `key-1`");
    }
}

#[test]
fn without_a_key_id_only_a_single_key_is_tried() {
    let claims = good_claims().to_string();
    let bare = forge(&ED, r#"{"alg":"EdDSA"}"#, &claims);
    accepted(&gate(), &bare);
    let two = gate_of(vec![issuer(
        ISSUER,
        vec![pem_key(Some(KID), &ED), pem_key(Some("key-2"), &OTHER_ED)],
    )]);
    accepted(&two, &forge(&ED, GOOD_HEADER, &claims));
    assert_invalid(&two, &bare, "the token names no key");
    assert_invalid(
        &two,
        &forge(&OTHER_ED, GOOD_HEADER, &claims),
        "the signature does not match",
    );
}

#[test]
fn a_single_key_without_id_serves_tokens_of_any_id() {
    let gate = gate_of(vec![issuer(ISSUER, vec![pem_key(None, &ED)])]);
    accepted(&gate, &good_token());
    accepted(
        &gate,
        &forge(&ED, r#"{"alg":"EdDSA"}"#, &good_claims().to_string()),
    );
}

#[test]
fn keys_that_the_token_brings_are_never_used() {
    let claims = good_claims().to_string();
    let jwk = OTHER_ED.jwk();
    for extra in [
        format!(r#""jwk":{jwk}"#),
        r#""jku":"https://evil.example/jwks.json""#.to_owned(),
        r#""x5u":"https://evil.example/cert.pem""#.to_owned(),
        r#""x5c":["MIIB"],"x5t":"abc""#.to_owned(),
    ] {
        let header = format!(r#"{{"alg":"EdDSA","kid":"key-1",{extra}}}"#);
        assert_invalid(
            &gate(),
            &forge(&OTHER_ED, &header, &claims),
            "the signature does not match",
        );
        // They do not spoil an honest token either: some issuers send `x5t` and `x5u`.
        accepted(&gate(), &forge(&ED, &header, &claims));
    }
}

#[test]
fn the_issuer_is_compared_byte_for_byte() {
    for iss in [
        "https://idp.example",
        "https://idp.example//",
        "HTTPS://idp.example/",
        "https://IDP.example/",
        "https://idp.example/ ",
        "http://idp.example/",
        "https://idp.example:443/",
        "https://idp.example/%2F",
        "https://\u{456}dp.example/",
    ] {
        assert_invalid(
            &gate(),
            &token_with(json!({"iss": iss})),
            "configured is `https://idp.example/`",
        );
    }
}

#[test]
fn the_issuer_must_be_one_string() {
    assert_invalid(
        &gate(),
        &token_with(json!({"iss": null})),
        "`iss` is missing",
    );
    for iss in [
        json!([ISSUER]),
        json!(["evil", ISSUER]),
        json!({}),
        json!(7),
        json!(true),
    ] {
        assert_invalid(
            &gate(),
            &token_with(json!({"iss": iss})),
            "`iss` is not one string",
        );
    }
    let null = good_claims()
        .to_string()
        .replacen(&format!("\"{ISSUER}\""), "null", 1);
    assert_invalid(
        &gate(),
        &forge(&ED, GOOD_HEADER, &null),
        "`iss` is not one string",
    );
}
