//! What the fuzz targets call, and the test that runs the corpus (`tests/fuzz_corpus.rs`): bytes in, no panic, and what
//! must hold of any answer.

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::{LazyLock, OnceLock};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey};
use mixgate::auth::{
    AuthConfig, Caller, Denied, Gate, Identity, IssuerConfig, KeyConfig, Policy, Reason, Vocabulary,
};
use mixgate::clock::Clock;
use mixgate::server::PublicUrl;
use serde_json::json;

/// One token, as it stands behind `Bearer `.
pub fn token(data: &[u8]) {
    judge(GATE.verify(data));
}

/// A request's header lines: `name: value`, any bytes in the value.
pub fn credential(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|&byte| byte == b'\n').take(100) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let answer = GATE.authenticate(Caller::local(&headers)).now_or_never();
    let answer = answer.expect("static keys are never waited for");
    if let Ok(identity) = &answer {
        assert!(
            headers.contains_key("authorization"),
            "nobody is anybody without a credential: {identity:?}"
        );
    }
    judge(answer.map(|identity| (*identity).clone()));
}

/// A header, a line end and claims: signed well, so that what comes after the signature is reached.
pub fn claims(data: &[u8]) {
    let (header, payload) = match data.iter().position(|&byte| byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (&br#"{"alg":"HS256","typ":"at+jwt","kid":"hs"}"#[..], data),
    };
    let input = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let signature = jsonwebtoken::crypto::sign(input.as_bytes(), &SIGNER, Algorithm::HS256)
        .expect("a secret signs anything");
    judge(GATE.verify(format!("{input}.{signature}").as_bytes()));
}

/// One JWK, as it may stand in the configuration.
pub fn jwk(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let key = KeyConfig {
        jwk: Some(text.to_owned()),
        ..KeyConfig::default()
    };
    let config = AuthConfig {
        issuers: vec![issuer("https://jwk.example/", vec![key])],
        ..AuthConfig::default()
    };
    match Gate::new(&config, None, Clock::manual(NOW).0) {
        // What it takes, it can use: any token that is not signed by it is refused, and nothing breaks.
        Ok(gate) => assert!(gate.verify(FOREIGN.as_bytes()).is_err()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A whole JWK set, as an issuer may publish it.
pub fn jwks(data: &[u8]) {
    let Some((names, algorithms)) = mixgate::fuzz::key_set(data) else {
        return;
    };
    assert!(names.len() <= 100);
    let twin = |index: usize| names[..index].contains(&names[index]);
    assert!(!(0..names.len()).any(twin), "one key for each name");
    assert!(!algorithms.is_empty(), "the keys serve something");
    let secret = |it: &Algorithm| it.family() == AlgorithmFamily::Hmac;
    assert!(
        !algorithms.iter().any(secret),
        "what is published is no secret"
    );
}

/// A policy file, and one caller from two places.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let policy = match Policy::parse(text, &VOCABULARY) {
        Ok(policy) => policy,
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in faults {
                let lines = text.matches('\n').count() + 1;
                assert!((1..=lines).contains(&fault.line), "{fault:?}");
                assert!(!fault.message.is_empty() && !fault.to_string().is_empty());
            }
            return;
        }
    };
    for address in ["10.20.1.2", "2001:db8::9"] {
        let address = address.parse().expect("it is an address");
        let decision = policy.decide(&ANN, address);
        for grant in decision.grants() {
            assert!(policy.rule_names().any(|name| name == grant.rule()));
            assert!(!grant.right().is_empty() && grant.amount() != Some(String::new()));
        }
        match decision.rights() {
            Ok(rights) => {
                assert!(policy.allows_address(address) && !rights.rules.is_empty());
                let known = |name| policy.rule_names().any(|it| it == name);
                assert!(rights.rules.iter().all(|name| known(&**name)));
            }
            Err(denied) => assert_eq!(denied.status(), 403, "{denied}"),
        }
    }
}

/// The lists that proxies have written, one on each line.
pub fn forwarded(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|&byte| byte == b'\n').take(20) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("x-forwarded-for", value);
        }
    }
    let stranger = "203.0.113.9".parse().expect("it is an address");
    let proxy = "10.0.0.1".parse().expect("it is an address");
    let trusted = ["10.0.0.0/8", "fd00::/8"];
    let walk = |socket, headers: &HeaderMap| mixgate::fuzz::caller(socket, headers, &trusted);
    assert_eq!(walk(stranger, &headers), stranger, "nobody believes it");
    let caller: IpAddr = walk(proxy, &headers);
    assert_eq!(caller, caller.to_canonical());
    let is_trusted = match caller {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.octets()[0] == 0xfd,
    };
    // What a caller writes itself stands to the left of all that was seen.
    let mut forged = HeaderMap::new();
    for value in ["127.0.0.1", "192.0.2.1, 10.0.0.2"] {
        forged.append("x-forwarded-for", HeaderValue::from_static(value));
    }
    for value in headers.get_all("x-forwarded-for") {
        forged.append("x-forwarded-for", value.clone());
    }
    assert!(is_trusted || walk(proxy, &forged) == caller);
}

/// The body of a chat request.
pub fn wire(data: &[u8]) {
    mixgate::fuzz::chat_request(data);
}

/// The name by which a caller calls this server.
pub fn host(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(url) = PublicUrl::parse(text) {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let allowed = |byte| plain(byte) || b"-.:/[]".contains(&byte);
        assert!(url.as_str().bytes().all(allowed), "{url:?}");
        assert_eq!(
            PublicUrl::parse(url.as_str()),
            Some(url),
            "parsed once is parsed"
        );
    }
}

/// What must hold of any answer of the gate.
fn judge(answer: Result<Identity, Denied>) {
    match answer {
        Ok(identity) => {
            assert_eq!(identity.issuer(), ISSUER);
            let subject = identity.subject();
            assert!((1..=256).contains(&subject.len()) && !subject.chars().any(char::is_control));
            assert!(identity.expires().is_some_and(|at| at + 60 > NOW));
        }
        Err(denied) => {
            assert!(matches!(denied.status(), 400 | 401), "{denied}");
            assert!(!denied.detail().chars().any(char::is_control), "{denied:?}");
            if denied.step().is_some() {
                assert_eq!(
                    denied.reason(),
                    Reason::InvalidToken,
                    "one answer: {denied}"
                );
            }
        }
    }
}

/// Believes an issuer with a key of each kind. The private halves of the public keys are gone; what they signed is in the corpus.
pub static GATE: LazyLock<Gate> = LazyLock::new(|| {
    let pem = |kid: &str, text: &str| KeyConfig {
        kid: Some(kid.to_owned()),
        pem: Some(text.to_owned()),
        ..KeyConfig::default()
    };
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    file.write_all(SECRET).expect("and written");
    let secret = KeyConfig {
        kid: Some("hs".to_owned()),
        hmac_secret_file: Some(file.path().to_owned()),
        ..KeyConfig::default()
    };
    let keys = vec![
        secret,
        pem("rs", include_str!("keys/rs.pem")),
        pem("p256", include_str!("keys/p256.pem")),
        pem("p384", include_str!("keys/p384.pem")),
        pem("ed", include_str!("keys/ed.pem")),
    ];
    let config = AuthConfig {
        issuers: vec![issuer(ISSUER, keys)],
        ..AuthConfig::default()
    };
    Gate::new(&config, None, Clock::manual(NOW).0).expect("the configuration is good")
});

/// Whom the policies judge: what a provider says of somebody with roles, a tenant and a client.
static ANN: LazyLock<Identity> = LazyLock::new(|| {
    let token = include_bytes!("corpus/token/keycloak");
    GATE.verify(token).expect("the token is good")
});

/// The names that the policies may use.
pub static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| {
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Vocabulary {
        issuers: all(&[ISSUER]),
        routes: all(&["chat", "metrics", "models"]),
        fields: all(&["logit_bias", "seed", "tools"]),
    }
});

static SIGNER: LazyLock<EncodingKey> = LazyLock::new(|| EncodingKey::from_secret(SECRET));

fn issuer(name: &str, keys: Vec<KeyConfig>) -> IssuerConfig {
    static TEMPLATE: OnceLock<IssuerConfig> = OnceLock::new();
    let template = TEMPLATE.get_or_init(|| {
        let entry = json!({
            "issuer": "",
            "audiences": ["https://api.example"],
            "keys": [],
            "tenant_claim": "tenant",
            "scope_claims": ["scope", "/realm_access/roles"],
        });
        serde_json::from_value(entry).expect("the entry is good")
    });
    IssuerConfig {
        issuer: name.to_owned(),
        keys,
        ..template.clone()
    }
}

/// The time of all runs; the corpus's tokens are good then.
const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://idp.example/";
/// Guards nothing: the issuer exists in fuzz runs alone.
const SECRET: &[u8] = b"fuzzing only: 7Qm2xVbK0fZtR9wLc4Hd8JyNs6GpAe1U";
/// A token of somebody else.
const FOREIGN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2p3ay5leGFtcGxlLyJ9.AAAA";
