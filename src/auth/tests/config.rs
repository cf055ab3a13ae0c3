//! What does not even start: the gate fails closed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use super::kit::*;
use crate::auth::{AuthConfig, BuiltinIssuer, Gate, IssuerConfig, KeyConfig};
use crate::clock::Clock;

/// The fault that refuses an issuer entry, as text.
fn fault(change: impl FnOnce(&mut IssuerConfig)) -> String {
    let mut issuer = ed_issuer();
    change(&mut issuer);
    try_gate(vec![issuer]).unwrap_err().to_string()
}

#[track_caller]
fn assert_key_refused(key: KeyConfig, about: &str) {
    let fault = fault(|issuer| issuer.keys = vec![key]);
    assert!(
        fault.contains(about),
        "{fault:?} does not mention {about:?}"
    );
}

fn secret_file(folder: &Path, bytes: &[u8], mode: u32) -> KeyConfig {
    let path = folder.join("secret");
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    KeyConfig {
        hmac_secret_file: Some(path),
        ..KeyConfig::default()
    }
}

fn pem(text: &str) -> KeyConfig {
    KeyConfig {
        pem: Some(text.to_owned()),
        ..KeyConfig::default()
    }
}

#[test]
fn nobody_else_goes_by_a_name_under_which_this_server_vouches() {
    for name in ["mixgate:keys", "mixgate:mtls"] {
        assert_eq!(
            fault(|issuer| issuer.issuer = name.to_owned()),
            format!("issuer `{name}`: `issuer` is a name that this server keeps for itself")
        );
    }
}

#[test]
fn nobody_to_believe_is_an_error_and_so_are_two_kinds_of_issuer() {
    let none = AuthConfig::default();
    let error = Gate::new(&none, None, Clock::system()).unwrap_err();
    assert!(error.hint().unwrap().contains("[[auth.issuers]]"));
    let some = AuthConfig {
        issuers: vec![ed_issuer()],
        ..AuthConfig::default()
    };
    let builtin = BuiltinIssuer::ephemeral().unwrap();
    assert!(Gate::new(&some, Some(builtin), Clock::system()).is_err());
}

#[test]
fn a_whole_configuration_is_read_from_toml_and_unknown_names_are_refused() {
    let text = format!(
        "[[issuers]]\nissuer = \"{ISSUER}\"\naudiences = [\"{AUDIENCE}\"]\nalgorithms = [\"EdDSA\"]\n\
         clock_skew_s = 30\nrequired_claims = {{ tid = [\"a\", \"b\"], token_use = \"access\" }}\n\
         [[issuers.keys]]\nkid = \"{KID}\"\npem = '''\n{}'''\n",
        ED.pem()
    );
    let config: AuthConfig = toml::from_str(&text).unwrap();
    let gate = Gate::new(&config, None, Clock::manual(NOW).0).unwrap();
    accepted(
        &gate,
        &token_with(json!({"tid": "a", "token_use": "access"})),
    );
    for typo in ["clock_skew_s", "kid", "issuers"] {
        assert!(
            toml::from_str::<AuthConfig>(&text.replace(typo, &format!("{typo}x"))).is_err(),
            "{typo}"
        );
    }
    let again: AuthConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
}

#[test]
fn equal_issuers_are_refused() {
    let error = try_gate(vec![
        ed_issuer(),
        issuer(ISSUER, vec![pem_key(None, &OTHER_ED)]),
    ])
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the issuer `{ISSUER}` is configured twice")
    );
}

#[test]
fn empty_lists_admit_nobody_and_are_said_to() {
    assert!(fault(|issuer| issuer.audiences.clear()).contains("`audiences` is empty"));
    assert!(fault(|issuer| issuer.keys.clear()).contains("it has no `keys`"));
    assert!(fault(|issuer| issuer.algorithms = Some(vec![])).contains("`algorithms` is empty"));
    assert!(fault(|issuer| issuer.token_types = Some(vec![])).contains("`token_types` is empty"));
    assert!(fault(|issuer| issuer.scope_claims = Some(vec![])).contains("`scope_claims` is empty"));
    assert!(fault(|issuer| issuer.issuer.clear()).contains("`issuer`"));
    assert!(fault(|issuer| issuer.audiences.push(String::new())).contains("`audiences`"));
}

#[test]
fn numbers_out_of_range_are_refused() {
    assert!(
        fault(|issuer| issuer.clock_skew_s = 301)
            .contains("`clock_skew_s` is 301, it must be 0 to 300")
    );
    assert!(fault(|issuer| issuer.clock_skew_s = u64::MAX).contains("`clock_skew_s`"));
    assert!(fault(|issuer| issuer.max_lifetime_s = Some(0)).contains("`max_lifetime_s`"));
    assert!(fault(|issuer| issuer.max_lifetime_s = Some(u64::MAX)).contains("`max_lifetime_s`"));
}

#[test]
fn algorithms_must_exist_and_have_a_key() {
    for bad in ["none", "None", "HS1", "ES512", "eddsa", ""] {
        let fault = fault(|issuer| issuer.algorithms = Some(vec![bad.to_owned()]));
        assert!(fault.contains("is not supported"), "{fault}");
    }
    let both = ["EdDSA", "RS256"].map(str::to_owned).to_vec();
    assert!(
        fault(|issuer| issuer.algorithms = Some(both))
            .contains("no key serves the algorithm RS256")
    );
    let none = vec!["RS256".to_owned()];
    assert!(
        fault(|issuer| issuer.algorithms = Some(none))
            .contains("serves none of the configured algorithms")
    );
}

#[test]
fn several_keys_need_distinct_ids() {
    let nameless = vec![pem_key(Some("a"), &ED), pem_key(None, &OTHER_ED)];
    assert!(fault(|issuer| issuer.keys = nameless).contains("key 2 has no `kid`"));
    let twins = vec![pem_key(Some("a"), &ED), pem_key(Some("a"), &OTHER_ED)];
    assert!(fault(|issuer| issuer.keys = twins).contains("two keys have the `kid` `a`"));
}

#[test]
fn a_key_has_exactly_one_source_and_one_id() {
    assert_key_refused(KeyConfig::default(), "exactly one of");
    let both = KeyConfig {
        jwk: Some(ED.jwk().to_string()),
        ..pem_key(None, &ED)
    };
    assert_key_refused(both, "exactly one of");
    let mut jwk = ED.jwk();
    jwk["kid"] = json!("own");
    assert_key_refused(
        KeyConfig {
            kid: Some("other".to_owned()),
            ..jwk_key(&jwk)
        },
        "differs from the JWK's own",
    );
    assert_key_refused(pem_key(Some("a\nb"), &ED), "`kid` is not");
    let gone = KeyConfig {
        pem_file: Some("/nonexistent/key.pem".into()),
        ..KeyConfig::default()
    };
    assert_key_refused(gone, "cannot read /nonexistent/key.pem");
}

#[test]
fn pem_must_be_one_public_key_of_a_known_kind() {
    let good = ED.pem();
    assert_key_refused(pem("no pem"), "no PEM block");
    assert_key_refused(
        pem(&good.replace("END PUBLIC", "END OTHER")),
        "no PEM block",
    );
    assert_key_refused(pem(&format!("{good}{good}")), "several PEM blocks");
    assert_key_refused(
        pem(&good.replace("PUBLIC KEY", "PRIVATE KEY")),
        "this is a private key",
    );
    assert_key_refused(
        pem(&good.replace("PUBLIC KEY", "CERTIFICATE")),
        "`CERTIFICATE`",
    );
    assert_key_refused(pem(&good.replace("MC", "MD")), "neither RSA");
    assert_key_refused(
        pem("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"),
        "neither RSA",
    );
    // X25519 differs from Ed25519 in one byte of its identifier, and signs nothing.
    assert_key_refused(pem(&good.replace("K2Vw", "K2Vu")), "neither RSA");
}

#[test]
fn cut_or_changed_key_bytes_never_panic() {
    for key in [&*RSA, &*P256, &*P384, &*ED] {
        let pem_text = key.pem();
        let (_, der) = crate::auth::key::pem::decode(&pem_text).unwrap();
        for cut in 0..der.len() {
            let text = crate::auth::key::pem::encode("PUBLIC KEY", &der[..cut]);
            assert!(crate::auth::key::pem::public_key(&text).is_err());
        }
        for at in 0..der.len().min(60) {
            let mut der = der.clone();
            der[at] ^= 0x41;
            let _ = crate::auth::key::pem::public_key(&crate::auth::key::pem::encode(
                "PUBLIC KEY",
                &der,
            ));
        }
    }
}

#[test]
fn weak_and_broken_rsa_numbers_are_refused() {
    let rsa = |n: &[u8], e: &[u8]| jwk_key(&json!({"kty": "RSA", "n": b64(n), "e": b64(e)}));
    assert_key_refused(rsa(&[0xff; 128], &[1, 0, 1]), "has 1024 bits, 2048 to 8192");
    assert_key_refused(
        rsa(&[&[0x7f][..], &[0xff; 255]].concat(), &[1, 0, 1]),
        "has 2047 bits",
    );
    assert_key_refused(rsa(&[0xff; 1025], &[1, 0, 1]), "has 8200 bits");
    assert_key_refused(rsa(&[0xfe; 256], &[1, 0, 1]), "modulus or exponent");
    assert_key_refused(rsa(&[0xff; 256], &[1]), "modulus or exponent");
    assert_key_refused(rsa(&[0xff; 256], &[2]), "modulus or exponent");
    assert_key_refused(rsa(&[0xff; 256], &[]), "modulus or exponent");
    assert_key_refused(rsa(&[], &[1, 0, 1]), "neither RSA");
}

#[test]
fn points_off_their_curve_are_refused() {
    let mut jwk = P256.jwk();
    jwk["x"] = json!(b64([7; 32]));
    assert_key_refused(jwk_key(&jwk), "not a point of its curve");
    let mut jwk = P256.jwk();
    jwk["crv"] = json!("P-384");
    assert_key_refused(jwk_key(&jwk), "as long as the curve says");
}

#[test]
fn a_jwk_is_held_to_what_its_labels_say() {
    let with = |member: &str, value: Value| {
        let mut jwk = RSA.jwk();
        jwk[member] = value;
        jwk_key(&jwk)
    };
    for (member, value, about) in [
        ("use", json!("enc"), "`use`"),
        ("use", json!(["sig"]), "`use`"),
        ("key_ops", json!(["encrypt"]), "`key_ops`"),
        ("key_ops", json!([]), "`key_ops`"),
        ("key_ops", json!("verify"), "`key_ops`"),
        ("alg", json!("RSA-OAEP"), "`alg`"),
        ("alg", json!("none"), "`alg`"),
        ("alg", json!("ES256"), "`alg`"),
        ("alg", json!("HS256"), "`alg`"),
        ("kty", json!("rsa"), "`kty`"),
        ("kty", json!(null), "`kty`"),
        ("n", json!("AQAB=="), "`n`"),
        ("n", json!([1]), "`n`"),
        ("d", json!("AQAB"), "this is a private key"),
        ("kid", json!(7), "`kid`"),
    ] {
        assert_key_refused(with(member, value), about);
    }
    let twice = RSA.jwk().to_string().replacen('{', r#"{"kty":"RSA","#, 1);
    assert_key_refused(
        KeyConfig {
            jwk: Some(twice),
            ..KeyConfig::default()
        },
        "occurs twice",
    );
    let mut pinned = RSA.jwk();
    pinned["alg"] = json!("PS384");
    let gate = gate_of(vec![issuer(ISSUER, vec![jwk_key(&pinned)])]);
    let claims = good_claims().to_string();
    accepted(&gate, &forge(&RSA, r#"{"alg":"PS384"}"#, &claims));
    assert_invalid(
        &gate,
        &forge(&RSA, r#"{"alg":"RS256"}"#, &claims),
        "tokens have `PS384`",
    );
}

#[test]
fn secrets_are_long_private_and_not_guessable() {
    let folder = tempfile::tempdir().unwrap();
    let TestKey::Secret(good) = &*SECRET else {
        unreachable!()
    };
    let file = |bytes: &[u8], mode| secret_file(folder.path(), bytes, mode);
    assert_key_refused(
        file(&good[..31], 0o600),
        "has 31 bytes, HS256 needs at least 32",
    );
    assert_key_refused(file(b"", 0o600), "");
    for mode in [0o644, 0o640, 0o604, 0o660, 0o622] {
        assert_key_refused(file(good, mode), &format!("mode {mode:04o}"));
    }
    assert_key_refused(file(ED.pem().as_bytes(), 0o600), "is a PEM block");
    assert_key_refused(
        file(b"a-string-secret-at-least-256-bits-long", 0o600),
        "published example",
    );
    assert_key_refused(file(&b"secret".repeat(8), 0o600), "repeats itself");
    assert_key_refused(file(&[0; 64], 0o600), "repeats itself");
    let listed = |algorithm: &str, len| {
        let mut entry = issuer(ISSUER, vec![file(&good[..len], 0o600)]);
        entry.algorithms = Some(vec!["HS256".to_owned(), algorithm.to_owned()]);
        try_gate(vec![entry])
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert!(
        listed("HS384", 47)
            .unwrap_err()
            .contains("HS384 needs at least 48")
    );
    assert!(
        listed("HS512", 63)
            .unwrap_err()
            .contains("HS512 needs at least 64")
    );
    assert!(listed("HS512", 64).is_ok());
}

#[test]
fn secrets_stay_out_of_the_configuration_and_out_of_sight() {
    assert_key_refused(
        jwk_key(&SECRET.jwk()),
        "must not stand in the configuration",
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.jwk");
    std::fs::write(&path, SECRET.jwk().to_string()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_key_refused(
        KeyConfig {
            jwk_file: Some(path),
            ..KeyConfig::default()
        },
        "mode 0644",
    );
    let TestKey::Secret(secret) = &*SECRET else {
        unreachable!()
    };
    let gate = gate_of(vec![issuer(
        ISSUER,
        vec![secret_file(folder.path(), secret, 0o600)],
    )]);
    assert_eq!(
        format!("{gate:?}"),
        format!("Gate {{ issuers: [{ISSUER:?}], .. }}")
    );
}
