//! Forges tokens without the code under test: JSON is text, signatures come from aws-lc directly.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
    RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use aws_lc_rs::{encoding, hmac};
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use crate::auth::{
    AuthConfig, Caller, Denied, Gate, GateError, Identity, IssuerConfig, KeyConfig, Reason,
};
use crate::clock::Clock;

/// The Unix second at which all tests happen, unless they move the clock.
pub const NOW: u64 = 1_800_000_000;
/// With the trailing slash that people forget.
pub const ISSUER: &str = "https://idp.example/";
pub const AUDIENCE: &str = "https://api.example/v1";
pub const KID: &str = "key-1";

/// A private key of any family.
pub enum TestKey {
    Ed(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Secret(Vec<u8>),
}

pub static ED: LazyLock<TestKey> =
    LazyLock::new(|| TestKey::Ed(Ed25519KeyPair::generate().unwrap()));
pub static OTHER_ED: LazyLock<TestKey> =
    LazyLock::new(|| TestKey::Ed(Ed25519KeyPair::generate().unwrap()));
pub static P256: LazyLock<TestKey> = LazyLock::new(|| {
    TestKey::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
});
pub static P384: LazyLock<TestKey> = LazyLock::new(|| {
    TestKey::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
});
pub static RSA: LazyLock<TestKey> =
    LazyLock::new(|| TestKey::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));
pub static SECRET: LazyLock<TestKey> = LazyLock::new(|| {
    let mut secret = vec![0; 64];
    aws_lc_rs::rand::fill(&mut secret).unwrap();
    // A line end at the end of the file would be taken for the file's own, wherever a test cuts the secret.
    secret
        .iter_mut()
        .filter(|byte| b"\r\n".contains(byte))
        .for_each(|byte| *byte = b'x');
    TestKey::Secret(secret)
});

impl TestKey {
    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
            Self::P256(key) | Self::P384(key) => {
                key.sign(&random, message).unwrap().as_ref().to_vec()
            }
            Self::Rsa(key) => {
                let scheme: &'static dyn RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(scheme, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Secret(secret) => {
                let digest = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(digest, secret), message)
                    .as_ref()
                    .to_vec()
            }
        }
    }

    pub fn pem(&self) -> String {
        fn der(key: &impl AsDer<encoding::PublicKeyX509Der<'static>>) -> Vec<u8> {
            key.as_der().unwrap().as_ref().to_vec()
        }
        let der = match self {
            Self::Ed(key) => der(key.public_key()),
            Self::P256(key) | Self::P384(key) => der(key.public_key()),
            Self::Rsa(key) => der(key.public_key()),
            Self::Secret(_) => panic!("a secret has no public half"),
        };
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der)
        )
    }

    pub fn jwk(&self) -> Value {
        match self {
            Self::Ed(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key())}),
            Self::P256(key) | Self::P384(key) => {
                let point = key.public_key().as_ref();
                let len = point.len() / 2;
                let curve = if len == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": curve, "x": b64(&point[1..=len]), "y": b64(&point[1 + len..])})
            }
            Self::Rsa(key) => {
                let numbers = RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
                json!({"kty": "RSA", "n": b64(&numbers.n), "e": b64(&numbers.e)})
            }
            Self::Secret(secret) => json!({"kty": "oct", "k": b64(secret)}),
        }
    }
}

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What the gate says to these headers. Keys that are at hand need no waiting.
pub fn arrive(gate: &Gate, headers: &HeaderMap) -> Result<Arc<Identity>, Denied> {
    gate.authenticate(Caller::local(headers))
        .now_or_never()
        .expect("static keys never wait")
}

/// A token of exactly this header and payload text, signed with `key` as the header's `alg` says.
pub fn forge(key: &TestKey, header: &str, payload: &str) -> String {
    let algorithm = header
        .split(r#""alg":""#)
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or("");
    let input = format!("{}.{}", b64(header), b64(payload));
    let signature = key.sign(algorithm, input.as_bytes());
    format!("{input}.{}", b64(signature))
}

/// Claims that the gate takes.
pub fn good_claims() -> Value {
    json!({"iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "iat": NOW - 60, "exp": NOW + 600, "scope": "chat models"})
}

/// The good claims with some replaced; `null` removes one.
pub fn claims_with(changes: Value) -> String {
    let mut claims = good_claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().shift_remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims.to_string()
}

pub const GOOD_HEADER: &str = r#"{"alg":"EdDSA","typ":"at+jwt","kid":"key-1"}"#;

/// A good token but for these claims.
pub fn token_with(changes: Value) -> String {
    forge(&ED, GOOD_HEADER, &claims_with(changes))
}

pub fn good_token() -> String {
    token_with(json!({}))
}

/// An issuer entry with these keys and defaults everywhere else.
pub fn issuer(name: &str, keys: Vec<KeyConfig>) -> IssuerConfig {
    let mut config: IssuerConfig =
        serde_json::from_value(json!({"issuer": name, "audiences": [AUDIENCE], "keys": []}))
            .unwrap();
    config.keys = keys;
    config
}

pub fn pem_key(kid: Option<&str>, key: &TestKey) -> KeyConfig {
    KeyConfig {
        kid: kid.map(str::to_owned),
        pem: Some(key.pem()),
        ..KeyConfig::default()
    }
}

pub fn jwk_key(jwk: &Value) -> KeyConfig {
    KeyConfig {
        jwk: Some(jwk.to_string()),
        ..KeyConfig::default()
    }
}

/// The issuer that most tests use: one Ed25519 key of id [`KID`].
pub fn ed_issuer() -> IssuerConfig {
    issuer(ISSUER, vec![pem_key(Some(KID), &ED)])
}

pub fn try_gate(issuers: Vec<IssuerConfig>) -> Result<Gate, GateError> {
    let config = AuthConfig {
        issuers,
        ..AuthConfig::default()
    };
    Gate::new(&config, None, Clock::manual(NOW).0)
}

pub fn gate_of(issuers: Vec<IssuerConfig>) -> Gate {
    try_gate(issuers).unwrap()
}

/// A gate over [`ed_issuer`] with some settings changed.
pub fn gate_with(change: impl FnOnce(&mut IssuerConfig)) -> Gate {
    let mut issuer = ed_issuer();
    change(&mut issuer);
    gate_of(vec![issuer])
}

pub fn gate() -> Gate {
    gate_of(vec![ed_issuer()])
}

pub fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append("authorization", HeaderValue::from_str(value).unwrap());
    }
    headers
}

pub fn accepted(gate: &Gate, token: &str) -> Identity {
    match arrive(gate, &headers(&[&format!("Bearer {token}")])) {
        Ok(identity) => (*identity).clone(),
        Err(denied) => panic!("refused: {denied}"),
    }
}

pub fn refused(gate: &Gate, token: &str) -> Denied {
    match arrive(gate, &headers(&[&format!("Bearer {token}")])) {
        Ok(identity) => panic!("accepted: {identity:?}"),
        Err(denied) => denied,
    }
}

/// Refused with this reason, and with a detail that mentions `about`.
#[track_caller]
pub fn assert_refused(gate: &Gate, token: &str, reason: Reason, about: &str) {
    let denied = refused(gate, token);
    assert_eq!(denied.reason(), reason, "{}", denied.detail());
    assert!(
        denied.detail().contains(about),
        "{:?} does not mention {about:?}",
        denied.detail()
    );
}

/// Refused before the signature counts, for the reason that `about` names.
#[track_caller]
pub fn assert_invalid(gate: &Gate, token: &str, about: &str) {
    assert_refused(gate, token, Reason::InvalidToken, about);
}
