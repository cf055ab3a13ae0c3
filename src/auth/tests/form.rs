//! Class B: compact form, encoding, JSON. Class E: signatures that are not the signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use proptest::prelude::*;
use serde_json::json;

use super::kit::*;
use crate::auth::{Denied, Reason};

#[test]
fn every_failure_before_a_good_signature_gives_the_same_answer_byte_for_byte() {
    let good = good_token();
    let claims = good_claims().to_string();
    let (input, _) = good.rsplit_once('.').unwrap();
    let failures = [
        "x".to_owned(),
        "a.b".to_owned(),
        "a.b.c.d.e".to_owned(),
        "x".repeat(20_000),
        format!("{good}="),
        format!("{input}.{}", b64([0; 64])),
        forge(&OTHER_ED, GOOD_HEADER, &claims),
        forge(&ED, r#"{"alg":"none"}"#, &claims),
        forge(&ED, r#"{"alg":"HS256","kid":"key-1"}"#, &claims),
        forge(&ED, r#"{"alg":"EdDSA","kid":"unknown"}"#, &claims),
        forge(
            &ED,
            GOOD_HEADER,
            &claims_with(json!({"iss": "https://evil.example/"})),
        ),
        forge(&ED, GOOD_HEADER, &claims_with(json!({"iss": null}))),
        forge(&ED, GOOD_HEADER, "[]"),
        // Expired as well: a forger must not learn even that.
        forge(
            &OTHER_ED,
            GOOD_HEADER,
            &claims_with(json!({"exp": 1, "aud": "other", "cnf": {}})),
        ),
    ];
    let answer = |denied: &Denied| {
        format!(
            "{} {} {} {} {:?} {:?}",
            denied.status(),
            denied.error_type(),
            denied.code(),
            denied.message(),
            denied.challenge(),
            denied.extra_headers()
        )
    };
    let expected = "401 invalid_request_error invalid_token The access token is invalid. \
        Some(\"Bearer realm=\\\"llm\\\", error=\\\"invalid_token\\\", \
        error_description=\\\"the access token is invalid\\\"\") []";
    for token in failures {
        assert_eq!(answer(&refused(&gate(), &token)), expected);
    }
}

#[test]
fn only_three_parts_are_a_token() {
    let good = good_token();
    let (input, signature) = good.rsplit_once('.').unwrap();
    assert_invalid(&gate(), input, "has 2 parts");
    assert_invalid(&gate(), &format!("{good}."), "has 4 parts");
    assert_invalid(&gate(), &format!("{good}.{signature}"), "has 4 parts");
    assert_invalid(&gate(), "a.b.c.d.e", "has 5 parts");
    assert_invalid(&gate(), &format!("{input}."), "the signature is empty");
    assert_invalid(&gate(), &format!(".{good}"), "has 4 parts");
    assert_invalid(&gate(), "..", "is empty");
    assert_invalid(
        &gate(),
        &format!(".{}.{signature}", b64("{}")),
        "the header is empty",
    );
}

#[test]
fn sizes_are_bounded_before_anything_is_decoded() {
    assert_invalid(&gate(), &"a".repeat(16 * 1024 + 1), "at most 16384");
    let fits = token_with(json!({"pad": "x".repeat(11_000)}));
    assert!(fits.len() < 16 * 1024);
    accepted(&gate(), &fits);
    let header = format!(
        r#"{{"alg":"EdDSA","kid":"key-1","pad":"{}"}}"#,
        "x".repeat(2048)
    );
    assert_invalid(
        &gate(),
        &forge(&ED, &header, &good_claims().to_string()),
        "the header has more than 2048 bytes",
    );
}

#[test]
fn only_canonical_base64url_is_read() {
    let good = good_token();
    let parts: Vec<&str> = good.split('.').collect();
    for part in 0..3 {
        let swap = |text: String| {
            let mut parts: Vec<&str> = parts.clone();
            parts[part] = &text;
            parts.join(".")
        };
        for changed in [
            format!("{}=", parts[part]),
            format!("{} ", parts[part]),
            format!(" {}", parts[part]),
            format!("{}\t", parts[part]),
            format!("+{}", &parts[part][1..]),
            format!("{}/", &parts[part][..parts[part].len() - 1]),
            format!("{}%", parts[part]),
        ] {
            // White space around the whole credential is the header's, not the token's.
            let token = swap(changed);
            if token.trim() != good {
                assert_invalid(&gate(), &token, "");
            }
        }
    }
    // Padded, as other languages' decoders like it.
    let padded = format!("{}.{}.{}", URL_SAFE.encode(GOOD_HEADER), parts[1], parts[2]);
    if padded != good {
        assert_invalid(&gate(), &padded, "");
    }
}

#[test]
fn spare_bits_of_the_last_character_must_be_zero() {
    // 64 bytes are 85 characters and a last one of which four bits are spare.
    let good = good_token();
    let last = good.chars().last().unwrap();
    assert!("AQgw".contains(last));
    let twisted = format!("{}{}", &good[..good.len() - 1], char::from(last as u8 + 1));
    assert_invalid(&gate(), &twisted, "the signature");
    let header = r#"{"alg":"EdDSA","kid":"key-1"} "#;
    let encoded = b64(header);
    assert_eq!(encoded.len() % 4, 0);
    let header = r#"{"alg":"EdDSA","kid":"key-1"}"#;
    let mut encoded = b64(header).into_bytes();
    *encoded.last_mut().unwrap() += 1;
    let input = format!(
        "{}.{}",
        String::from_utf8(encoded).unwrap(),
        b64(good_claims().to_string())
    );
    let signed = format!("{input}.{}", b64(ED.sign("EdDSA", input.as_bytes())));
    assert_invalid(&gate(), &signed, "the header is not canonical base64url");
}

#[test]
fn header_and_claims_must_each_be_one_clean_object() {
    let claims = good_claims().to_string();
    for payload in [
        "[]",
        "null",
        "\"text\"",
        "17",
        "",
        "{",
        "{}{}",
        "{\"iss\":}",
        "{'iss':'x'}",
        "{\"a\":1e999}",
        "{\"a\":NaN}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":01}",
        "\u{feff}{}",
        &format!("{claims}x"),
        &format!("{claims},"),
        &format!("[{}, 0, \"s\"]", NOW + 60),
        &format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200)),
        &format!("{{\"a\":{}1{}}}", "{\"a\":".repeat(17), "}".repeat(17)),
    ] {
        assert_invalid(&gate(), &forge(&ED, GOOD_HEADER, payload), "");
        assert_invalid(&gate(), &forge(&ED, payload, &claims), "");
    }
    let mut raw = claims.into_bytes();
    raw[2] = 0xff;
    let input = format!("{}.{}", b64(GOOD_HEADER), b64(&raw));
    let token = format!("{input}.{}", b64(ED.sign("EdDSA", input.as_bytes())));
    assert_invalid(&gate(), &token, "not clean JSON");
}

#[test]
fn a_name_that_occurs_twice_is_refused_at_every_depth() {
    let claims = good_claims().to_string();
    let with = |extra: &str| format!("{},{extra}}}", &claims[..claims.len() - 1]);
    for extra in [
        r#""sub":"alice""#,
        r#""exp":9999999999"#,
        r#""iss":"https://idp.example/""#,
        r#""scope":"admin""#,
        r#""\u0073ub":"bob""#,
        r#""x":1,"x":1"#,
        r#""x":{"y":1,"y":2}"#,
        r#""x":[[{"y":{"z":null,"z":null}}]]"#,
    ] {
        assert_invalid(
            &gate(),
            &forge(&ED, GOOD_HEADER, &with(extra)),
            "occurs twice",
        );
    }
    for header in [
        r#"{"alg":"EdDSA","alg":"EdDSA","kid":"key-1"}"#,
        r#"{"alg":"EdDSA","kid":"key-1","kid":"key-1"}"#,
        r#"{"alg":"EdDSA","kid":"key-1","x":{"a":1,"a":1}}"#,
        r#"{"alg":"EdDSA","kid":"key-1","\u0061lg":"none"}"#,
    ] {
        assert_invalid(&gate(), &forge(&ED, header, &claims), "occurs twice");
    }
}

#[test]
fn the_received_bytes_are_verified_not_a_rewritten_form() {
    // Odd but valid JSON that no serialiser would write again.
    let claims = good_claims().to_string().replace(':', " :\n ");
    accepted(
        &gate(),
        &forge(
            &ED,
            "{ \"kid\":\"key-1\" ,\t\"alg\":\"EdDSA\"}",
            &claims.replace("https :\n ", "https:"),
        ),
    );
}

#[test]
fn a_signature_is_worth_nothing_on_another_token() {
    let one = good_token();
    let two = token_with(json!({"sub": "bob"}));
    let (_, signature) = one.rsplit_once('.').unwrap();
    let (input, _) = two.rsplit_once('.').unwrap();
    assert_invalid(
        &gate(),
        &format!("{input}.{signature}"),
        "the signature does not match",
    );
}

#[test]
fn ecdsa_signatures_in_der_and_degenerate_ones_are_refused() {
    let gate = gate_of(vec![issuer(ISSUER, vec![pem_key(None, &P256)])]);
    let input = format!(
        "{}.{}",
        b64(r#"{"alg":"ES256"}"#),
        b64(good_claims().to_string())
    );
    let raw = P256.sign("ES256", input.as_bytes());
    accepted(&gate, &format!("{input}.{}", b64(&raw)));
    let der = [&[0x30, 68, 2, 32][..], &raw[..32], &[2, 32], &raw[32..]].concat();
    for signature in [
        vec![0; 64],
        vec![0xff; 64],
        der,
        raw[..63].to_vec(),
        [&raw[..], &[0]].concat(),
    ] {
        assert_invalid(
            &gate,
            &format!("{input}.{}", b64(signature)),
            "the signature does not match",
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_make_the_gate_panic_or_open(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(gate().verify(&bytes).is_err());
    }

    #[test]
    fn no_text_in_the_three_parts_makes_the_gate_panic_or_open(header in ".{0,60}", payload in ".{0,60}", tail in "[A-Za-z0-9_-]{0,90}") {
        let token = format!("{}.{}.{tail}", b64(header), b64(payload));
        prop_assert_eq!(gate().verify(token.as_bytes()).unwrap_err().reason(), Reason::InvalidToken);
    }

    #[test]
    fn no_single_changed_byte_passes(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let good = good_token();
        let mut bytes = good.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        prop_assert_eq!(gate().verify(&bytes).is_ok(), bytes == good.as_bytes());
    }

    #[test]
    fn no_signed_claims_make_the_gate_panic(name in "iss|sub|aud|exp|nbf|iat|jti|scope|scp|azp|typ|cnf", value in json_value()) {
        let _ = gate().verify(token_with(json!({name: value})).as_bytes());
    }
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|flag| json!(flag)),
        any::<u64>().prop_map(|number| json!(number)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,20}".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| json!(items)),
            prop::collection::btree_map(".{0,5}", inner, 0..4).prop_map(|members| json!(members)),
        ]
    })
}
