//! Class C: headers that try to remove, swap or weaken verification.

use super::kit::*;
use crate::auth::Reason;

/// A token of this header over good claims, honestly signed.
fn with_header(header: &str) -> String {
    forge(&ED, header, &good_claims().to_string())
}

#[test]
fn alg_none_is_refused_in_every_spelling() {
    let payload = b64(good_claims().to_string());
    for name in ["none", "None", "NONE", "nOnE", ""] {
        let header = b64(format!(r#"{{"alg":"{name}","kid":"key-1"}}"#));
        assert_invalid(
            &gate(),
            &format!("{header}.{payload}."),
            "the signature is empty",
        );
        assert_invalid(&gate(), &format!("{header}.{payload}.AAAA"), "");
    }
}

#[test]
fn a_public_key_never_serves_as_an_hmac_secret() {
    let gate = gate_of(vec![issuer(ISSUER, vec![pem_key(Some(KID), &RSA)])]);
    let claims = good_claims().to_string();
    let pem = RSA.pem();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    for secret in [
        pem.clone().into_bytes(),
        pem.trim_end().into(),
        der.into_bytes(),
        RSA.jwk().to_string().into(),
    ] {
        for algorithm in ["HS256", "HS384", "HS512"] {
            let header = format!(r#"{{"alg":"{algorithm}","kid":"key-1"}}"#);
            let token = forge(&TestKey::Secret(secret.clone()), &header, &claims);
            assert_invalid(&gate, &token, "the algorithm is HS");
        }
    }
}

#[test]
fn an_algorithm_outside_the_issuers_list_is_refused_even_if_its_key_fits() {
    let mut only_ps = issuer(ISSUER, vec![pem_key(None, &RSA)]);
    only_ps.algorithms = Some(vec!["PS256".to_owned()]);
    let gate = gate_of(vec![only_ps]);
    let claims = good_claims().to_string();
    accepted(&gate, &forge(&RSA, r#"{"alg":"PS256"}"#, &claims));
    assert_invalid(
        &gate,
        &forge(&RSA, r#"{"alg":"RS256"}"#, &claims),
        "tokens have `PS256`",
    );
}

#[test]
fn an_algorithm_of_another_key_of_the_issuer_does_not_serve_this_key() {
    let keys = vec![pem_key(Some("ed"), &ED), pem_key(Some("rsa"), &RSA)];
    let gate = gate_of(vec![issuer(ISSUER, keys)]);
    let claims = good_claims().to_string();
    accepted(&gate, &forge(&ED, r#"{"alg":"EdDSA","kid":"ed"}"#, &claims));
    accepted(
        &gate,
        &forge(&RSA, r#"{"alg":"RS256","kid":"rsa"}"#, &claims),
    );
    assert_invalid(
        &gate,
        &forge(&ED, r#"{"alg":"EdDSA","kid":"rsa"}"#, &claims),
        "does not serve EdDSA",
    );
    assert_invalid(
        &gate,
        &forge(&RSA, r#"{"alg":"RS256","kid":"ed"}"#, &claims),
        "does not serve RS256",
    );
}

#[test]
fn alg_must_be_one_supported_string() {
    for alg in [
        r#"["EdDSA"]"#,
        r#"{"EdDSA":null}"#,
        "null",
        "1",
        r#""eddsa""#,
        r#""EdDSA ""#,
        r#""ES512""#,
        r#""HS1""#,
    ] {
        assert_invalid(
            &gate(),
            &with_header(&format!(r#"{{"alg":{alg},"kid":"key-1"}}"#)),
            "al",
        );
    }
    assert_invalid(
        &gate(),
        &with_header(r#"{"kid":"key-1"}"#),
        "the header has no `alg`",
    );
}

#[test]
fn extensions_compression_and_encryption_are_refused() {
    for extra in [
        r#""crit":["exp"]"#,
        r#""crit":[]"#,
        r#""crit":["b64"],"b64":false"#,
        r#""b64":true"#,
        r#""b64":false"#,
        r#""zip":"DEF""#,
        r#""enc":"A128GCM""#,
    ] {
        let header = format!(r#"{{"alg":"EdDSA","kid":"key-1",{extra}}}"#);
        assert_invalid(
            &gate(),
            &with_header(&header),
            "an extension that is not taken",
        );
    }
}

#[test]
fn nested_tokens_are_refused() {
    for content in [r#""JWT""#, r#""jwt""#, r#""application/jwt""#] {
        let header = format!(r#"{{"alg":"EdDSA","kid":"key-1","cty":{content}}}"#);
        assert_invalid(&gate(), &with_header(&header), "a token within the token");
    }
    assert_invalid(
        &gate(),
        &with_header(r#"{"alg":"EdDSA","kid":"key-1","cty":["JWT"]}"#),
        "`cty`",
    );
}

#[test]
fn kid_and_typ_must_be_plain_strings() {
    for (member, value) in [
        ("kid", "1"),
        ("kid", "null"),
        ("kid", r#"["key-1"]"#),
        ("kid", r#""""#),
        ("kid", r#""key-1\u0000""#),
        ("kid", r#""key-1\n""#),
        ("typ", "null"),
        ("typ", r#"["JWT"]"#),
    ] {
        let header = format!(r#"{{"alg":"EdDSA","{member}":{value}}}"#);
        assert_invalid(&gate(), &with_header(&header), &format!("`{member}`"));
    }
    let long = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, "k".repeat(257));
    assert_invalid(&gate(), &with_header(&long), "`kid`");
}

#[test]
fn typ_is_one_of_the_access_token_types_in_any_case() {
    for typ in [
        "JWT",
        "jwt",
        "at+jwt",
        "AT+JWT",
        "application/at+jwt",
        "Application/AT+JWT",
    ] {
        accepted(
            &gate(),
            &with_header(&format!(r#"{{"alg":"EdDSA","kid":"key-1","typ":"{typ}"}}"#)),
        );
    }
    accepted(&gate(), &with_header(r#"{"alg":"EdDSA","kid":"key-1"}"#));
    for typ in [
        "dpop+jwt",
        "logout+jwt",
        "it+jwt",
        "secevent+jwt",
        "JOSE",
        "application/jwt",
        "absent ",
        "at+jwt;x",
    ] {
        let token = with_header(&format!(r#"{{"alg":"EdDSA","kid":"key-1","typ":"{typ}"}}"#));
        assert_refused(
            &gate(),
            &token,
            Reason::InvalidTokenType,
            "the header's `typ` is",
        );
    }
}

#[test]
fn a_strict_issuer_takes_only_its_listed_types() {
    let gate = gate_with(|issuer| issuer.token_types = Some(vec!["AT+JWT".to_owned()]));
    accepted(&gate, &with_header(r#"{"alg":"EdDSA","typ":"at+jwt"}"#));
    accepted(
        &gate,
        &with_header(r#"{"alg":"EdDSA","typ":"application/at+jwt"}"#),
    );
    for header in [r#"{"alg":"EdDSA","typ":"JWT"}"#, r#"{"alg":"EdDSA"}"#] {
        assert_refused(
            &gate,
            &with_header(header),
            Reason::InvalidTokenType,
            "`at+jwt` is taken",
        );
    }
}
