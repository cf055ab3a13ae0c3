//! Every algorithm family, end to end, from PEM and from JWK.

use serde_json::json;

use super::kit::*;
use crate::auth::{Access, KeyConfig};

/// A gate that takes `algorithm` with `key`, given as PEM or as JWK.
fn accepts(key: &TestKey, algorithm: &str, as_jwk: bool) {
    let folder = tempfile::tempdir().unwrap();
    let config = match key {
        TestKey::Secret(secret) => secret_file(folder.path(), secret, as_jwk.then(|| key.jwk())),
        key if as_jwk => jwk_key(&key.jwk()),
        key => pem_key(None, key),
    };
    let mut issuer = issuer(ISSUER, vec![config]);
    issuer.algorithms = Some(vec![algorithm.to_owned()]);
    let gate = gate_of(vec![issuer]);
    let token = forge(
        key,
        &format!(r#"{{"alg":"{algorithm}"}}"#),
        &good_claims().to_string(),
    );
    assert_eq!(accepted(&gate, &token).subject(), "alice", "{algorithm}");
    let (input, signature) = token.rsplit_once('.').unwrap();
    for forged in [
        // One bit of the claims, and one of the signature's first byte.
        token.replacen('.', ".A", 1),
        format!(
            "{input}.{}{}",
            if signature.starts_with('A') { 'B' } else { 'A' },
            &signature[1..]
        ),
        format!("{input}.{}", b64(vec![0; signature.len() * 3 / 4])),
        format!("{input}.{}", &signature[..signature.len() / 4 * 2]),
    ] {
        assert_eq!(
            refused(&gate, &forged).code(),
            "invalid_token",
            "{algorithm}"
        );
    }
}

fn secret_file(
    folder: &std::path::Path,
    secret: &[u8],
    jwk: Option<serde_json::Value>,
) -> KeyConfig {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join("secret");
    match &jwk {
        Some(jwk) => std::fs::write(&path, jwk.to_string()).unwrap(),
        None => std::fs::write(&path, [secret, b"\n"].concat()).unwrap(),
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    match jwk {
        Some(_) => KeyConfig {
            jwk_file: Some(path),
            ..KeyConfig::default()
        },
        None => KeyConfig {
            hmac_secret_file: Some(path),
            ..KeyConfig::default()
        },
    }
}

#[test]
fn every_rsa_algorithm_is_verified_with_pem_and_jwk() {
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        accepts(&RSA, algorithm, false);
        accepts(&RSA, algorithm, true);
    }
}

#[test]
fn every_curve_is_verified_with_pem_and_jwk() {
    for (key, algorithm) in [(&P256, "ES256"), (&P384, "ES384"), (&ED, "EdDSA")] {
        accepts(key, algorithm, false);
        accepts(key, algorithm, true);
    }
}

#[test]
fn ed25519_goes_by_its_new_name_too() {
    let mut jwk = ED.jwk();
    jwk["alg"] = json!("Ed25519");
    let mut by_name = issuer(ISSUER, vec![jwk_key(&jwk)]);
    by_name.algorithms = Some(vec!["Ed25519".to_owned()]);
    let gate = gate_of(vec![by_name]);
    let claims = good_claims().to_string();
    for algorithm in ["Ed25519", "EdDSA"] {
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        accepted(&gate, &forge(&ED, &header, &claims));
        assert_invalid(&gate, &forge(&OTHER_ED, &header, &claims), "does not match");
    }
    // The other curve that `EdDSA` may mean, and spellings that nobody uses.
    for algorithm in ["Ed448", "ed25519", "ED25519"] {
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        assert_invalid(&gate, &forge(&ED, &header, &claims), "is not supported");
    }
    let rsa = gate_of(vec![issuer(ISSUER, vec![pem_key(None, &RSA)])]);
    let crossed = forge(&RSA, r#"{"alg":"Ed25519"}"#, &claims);
    assert_invalid(&rsa, &crossed, "the algorithm is EdDSA");
}

#[test]
fn without_a_key_id_the_only_key_of_the_algorithm_is_tried() {
    let keys = vec![
        pem_key(Some("ed"), &ED),
        pem_key(Some("rsa"), &RSA),
        pem_key(Some("rsa-2"), &RSA),
    ];
    let gate = gate_of(vec![issuer(ISSUER, keys)]);
    let claims = good_claims().to_string();
    accepted(&gate, &forge(&ED, r#"{"alg":"EdDSA"}"#, &claims));
    assert_invalid(
        &gate,
        &forge(&RSA, r#"{"alg":"RS256"}"#, &claims),
        "the token names no key (`kid`), and this issuer has 2 for RS256",
    );
}

#[test]
fn every_hmac_algorithm_is_verified_with_a_secret_file_and_an_oct_jwk_file() {
    for algorithm in ["HS256", "HS384", "HS512"] {
        accepts(&SECRET, algorithm, false);
        accepts(&SECRET, algorithm, true);
    }
}

#[test]
fn pkcs1_public_keys_are_read() {
    use aws_lc_rs::signature::KeyPair as _;
    use base64::Engine as _;
    let TestKey::Rsa(pair) = &*RSA else {
        unreachable!()
    };
    let der = base64::engine::general_purpose::STANDARD.encode(pair.public_key());
    let pem = format!("-----BEGIN RSA PUBLIC KEY-----\n{der}\n-----END RSA PUBLIC KEY-----");
    let gate = gate_of(vec![issuer(
        ISSUER,
        vec![KeyConfig {
            pem: Some(pem),
            ..KeyConfig::default()
        }],
    )]);
    accepted(
        &gate,
        &forge(&RSA, r#"{"alg":"RS256"}"#, &good_claims().to_string()),
    );
}

#[test]
fn without_a_list_each_key_serves_its_usual_algorithm_alone() {
    let gate = gate_of(vec![issuer(ISSUER, vec![pem_key(None, &RSA)])]);
    let claims = good_claims().to_string();
    accepted(&gate, &forge(&RSA, r#"{"alg":"RS256"}"#, &claims));
    assert_invalid(
        &gate,
        &forge(&RSA, r#"{"alg":"PS256"}"#, &claims),
        "the algorithm is PS256",
    );
}

#[test]
fn an_identity_says_what_the_token_says() {
    let gate = gate_with(|issuer| issuer.tenant_claim = Some("org".to_owned()));
    let token = token_with(json!({"org": "acme", "azp": "notebook", "jti": "t-1"}));
    let identity = accepted(&gate, &token);
    assert_eq!(identity.issuer(), ISSUER);
    assert_eq!(identity.subject(), "alice");
    assert_eq!(identity.tenant(), Some("acme"));
    assert_eq!(identity.client(), Some("notebook"));
    assert_eq!(identity.token_id(), Some("t-1"));
    assert_eq!(identity.scopes().collect::<Vec<_>>(), ["chat", "models"]);
    assert_eq!(identity.expires(), Some(NOW + 600));
}

#[test]
fn identity_goes_through_authorise_and_admit() {
    let gate = gate();
    let identity = arrive(&gate, &headers(&[&format!("Bearer {}", good_token())])).unwrap();
    assert_eq!(gate.authorise(&identity, Access::Scope("chat")), Ok(()));
    assert_eq!(gate.authorise(&identity, Access::Verified), Ok(()));
    let permit = gate
        .admit(identity.clone(), std::sync::Arc::default())
        .unwrap();
    assert_eq!(permit.identity(), &identity);
}

#[test]
fn a_missing_scope_is_403_and_named_in_the_challenge() {
    let gate = gate();
    let denied = gate
        .authorise(&accepted(&gate, &good_token()), Access::Scope("admin"))
        .unwrap_err();
    assert_eq!(
        (denied.status(), denied.error_type()),
        (403, "permission_error")
    );
    assert_eq!(denied.code(), "insufficient_scope");
    assert_eq!(
        denied.challenge().unwrap(),
        r#"Bearer realm="llm", error="insufficient_scope", scope="admin""#
    );
}

#[test]
fn keys_separate_subjects_by_issuer_and_by_length() {
    let two = gate_of(vec![
        ed_issuer(),
        issuer("https://idp.example/a", vec![pem_key(None, &OTHER_ED)]),
    ]);
    let alice = accepted(&two, &good_token());
    let again = accepted(&two, &token_with(json!({"exp": NOW + 60, "jti": "other"})));
    let bob = accepted(&two, &token_with(json!({"sub": "bob"})));
    // The same text when issuer and subject are put together.
    let near = accepted(&two, &token_with(json!({"sub": "ab"})));
    let claims = claims_with(json!({"iss": "https://idp.example/a", "sub": "b"}));
    let far = accepted(&two, &forge(&OTHER_ED, r#"{"alg":"EdDSA"}"#, &claims));
    assert_eq!(alice.subject_key(), again.subject_key());
    assert_ne!(alice.subject_key(), bob.subject_key());
    assert_ne!(near.subject_key(), far.subject_key());
}

#[test]
fn tenants_share_a_key_and_a_subject_without_tenant_shares_with_nobody() {
    let gate = gate_with(|issuer| issuer.tenant_claim = Some("org".to_owned()));
    let of = |sub: &str, org: serde_json::Value| {
        accepted(&gate, &token_with(json!({"sub": sub, "org": org}))).tenant_key()
    };
    assert_eq!(of("alice", json!("acme")), of("bob", json!("acme")));
    assert_ne!(of("alice", json!("acme")), of("alice", json!("other")));
    assert_ne!(of("alice", json!(null)), of("bob", json!(null)));
    // A tenant that is named like a subject is still not that subject.
    assert_ne!(of("bob", json!("alice")), of("alice", json!(null)));
}
