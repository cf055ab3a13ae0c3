//! What the gate costs: verifying a token by algorithm and key size, refusing a bad one, and a whole request's passage
//! as a share of that request with a model that computes nothing.
//!
//! `cargo bench --bench auth`. One thread; the tokens are of the size and shape that Auth0 gives out. `request/*` is a
//! chat request of one token over a kept connection on loopback, client included: `passage` over it is the gate's share.

use std::hint::black_box;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use mixgate::auth::{
    Access, AuthConfig, BuiltinIssuer, Caller, Gate, IssuerConfig, KeyConfig, MintRequest,
    NewApiKey, revocation,
};
use mixgate::clock::Clock;
use mixgate::engine::null::{NullModel, NullName, RealPace};
use mixgate::engine::{Capacity, Engine, EngineConfig};
use mixgate::ledger::{Ledger, RevokedName};
use mixgate::server::{App, ModelCard, SamplingDefaults, Server, ServerConfig};
use mixgate::text::{TextFiles, TextModel};
use serde_json::json;
use tempfile::NamedTempFile;

/// When all tokens are good.
const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://acme.eu.auth0.com/";
const AUDIENCE: &str = "https://api.acme.dev";

/// A gate and a token that it takes.
struct Pair {
    gate: Gate,
    token: String,
    _secret: Option<NamedTempFile>,
}

fn verify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(30);
    let pairs = pairs();
    for (name, pair) in &pairs {
        pair.gate.verify(pair.token.as_bytes()).expect("it is good");
        group.bench_function(*name, |bencher| {
            bencher.iter(|| pair.gate.verify(black_box(pair.token.as_bytes())));
        });
    }
    for (name, pair) in &pairs {
        let (head, signature) = pair.token.rsplit_once('.').expect("three parts");
        let first = if signature.starts_with('A') { "B" } else { "A" };
        let bad = format!("{head}.{first}{}", &signature[1..]);
        pair.gate.verify(bad.as_bytes()).expect_err("it is bad");
        group.bench_function(format!("{name}-bad-signature"), |bencher| {
            bencher.iter(|| pair.gate.verify(black_box(bad.as_bytes())));
        });
    }
    let (_, pair) = &pairs[0];
    for (name, token) in [("garbage", "x".repeat(800)), ("opaque", "x".repeat(32))] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| pair.gate.verify(black_box(token.as_bytes())));
        });
    }
    group.finish();
}

/// API keys, and what it costs that credentials can be revoked: among as many keys and revocations as a busy year leaves.
fn kept(criterion: &mut Criterion) {
    let ledger = Ledger::in_memory();
    let mut keys = (0..1_000).map(|number| {
        let key = NewApiKey {
            subject: format!("robot-{number}"),
            scopes: "chat models".to_owned(),
            ..NewApiKey::default()
        };
        let (key, record) = key.make(NOW - 60).expect("the names are plain");
        ledger.put_api_key(&record).expect("memory takes it");
        key
    });
    let key = keys.next().expect("there are keys");
    keys.for_each(drop);
    let (_, Pair { gate, token, .. }) = &pairs()[0];
    let identity = gate.verify(token.as_bytes()).expect("it is good");
    let mut group = criterion.benchmark_group("kept");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(30);
    let check = |name: &str, group: &mut BenchmarkGroup<'_, WallTime>| {
        gate.reload(&ledger).expect("memory is read");
        group.bench_function(name, |bencher| {
            bencher.iter(|| gate.revoked().check(black_box(&identity)));
        });
    };
    check("nothing-revoked", &mut group);
    for number in 0..1_000 {
        for what in [
            RevokedName::Token(format!("token-{number}")),
            RevokedName::Subject(format!("subject-{number}")),
        ] {
            let record = revocation(what, ISSUER, None, NOW).expect("the names are plain");
            ledger.revoke(&record).expect("memory takes it");
        }
    }
    check("2000-revoked", &mut group);
    let mut headers = HeaderMap::new();
    let mut add = |credential: &str| {
        let value = HeaderValue::from_str(&format!("Bearer {credential}"));
        headers.insert("authorization", value.expect("a credential is plain"));
        headers.clone()
    };
    for (name, headers) in [("api-key", add(key.expose())), ("token-HS256", add(token))] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let caller = Caller::local(black_box(&headers));
                let identity = gate.authenticate(caller).now_or_never();
                identity.expect("keys are at hand").expect("it is good")
            });
        });
    }
    group.finish();
}

/// From headers to a permit, and a whole request.
fn request(criterion: &mut Criterion) {
    let issuer = BuiltinIssuer::ephemeral().expect("there is randomness");
    let clock = Clock::system();
    let gate = || {
        Gate::new(&AuthConfig::default(), Some(issuer.clone()), clock.clone())
            .expect("the configuration is good")
    };
    let token = issuer
        .mint(
            &MintRequest {
                subject: "bench".to_owned(),
                ttl: BuiltinIssuer::MAX_TTL,
                scopes: "chat models".to_owned(),
                claims: serde_json::Map::new(),
            },
            clock.unix_seconds(),
        )
        .expect("the request is good");
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(&format!("Bearer {token}")).expect("a token is plain");
    headers.insert("authorization", value);

    let mut group = criterion.benchmark_group("request");
    group
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5))
        .sample_size(50);
    let passed = gate();
    group.bench_function("passage", |bencher| {
        bencher.iter(|| {
            let caller = Caller::local(black_box(&headers));
            let identity = passed
                .authenticate(caller)
                .now_or_never()
                .expect("keys are at hand")
                .expect("the token is good");
            let rights = passed
                .rights(&identity, caller.address)
                .expect("all are let in");
            passed
                .authorise(&identity, &rights, Access::Scope("chat"), "chat")
                .expect("the scope is there");
            black_box(passed.admit(identity, rights).expect("nothing limits"))
        });
    });

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads can be had");
    let server = runtime
        .block_on(Server::bind(
            ServerConfig {
                host: IpAddr::V4(Ipv4Addr::LOCALHOST),
                port: 0,
                ..ServerConfig::default()
            },
            app(gate(), clock.clone()),
        ))
        .expect("a port is free");
    let url = format!("http://{}", server.address());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = runtime.spawn(server.run(async {
        let _ = stopped.await;
    }));
    let client = reqwest::Client::new();
    let body = json!({
        "model": "null",
        "messages": [{"role": "user", "content": "When do I sow carrots in a cold climate?"}],
        "max_tokens": 1,
    });
    let ask = |path: &str, with_token: bool| {
        let mut request = match path {
            "/livez" => client.get(format!("{url}{path}")),
            _ => client.post(format!("{url}{path}")).json(&body),
        };
        if with_token {
            request = request.bearer_auth(&token);
        }
        async {
            let response = request.send().await.expect("the server answers");
            let status = response.status().as_u16();
            response.bytes().await.expect("to the end");
            status
        }
    };
    for (name, path, with_token, status) in [
        ("chat", "/v1/chat/completions", true, 200),
        ("refused", "/v1/chat/completions", false, 401),
        ("livez", "/livez", false, 200),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                assert_eq!(runtime.block_on(ask(path, with_token)), status);
            });
        });
    }
    group.finish();
    let _ = stop.send(());
    let _ = runtime.block_on(serving);
}

/// A server whose model answers at once.
fn app(gate: Gate, clock: Clock) -> App {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/seedling");
    let tokenizer = std::fs::read(folder.join("tokenizer.json")).expect("the seedling is there");
    let files = TextFiles {
        tokenizer: &tokenizer,
        tokenizer_config: None,
        chat_template: None,
    };
    let text = Arc::new(TextModel::new(&files).expect("its tokenizer loads"));
    let (eos, vocab_size) = (text.eos(), text.vocab_size());
    let capacity = Capacity {
        vocab_size,
        max_model_len: 4096,
        num_blocks: 4096,
        block_size: 16,
    };
    let name = NullName::parse("mixtral-8x7b").expect("a known name");
    // Ordinary tokens of the seedling: its letters.
    let model = NullModel::new(name, capacity, (300..400).collect(), RealPace::default());
    let engine = Engine::start(model, EngineConfig::default(), vec![eos]);
    let card = ModelCard {
        id: "null".to_owned(),
        created: 1,
        owned_by: "bench".to_owned(),
        max_model_len: engine.max_model_len(),
        vocab_size,
        sampling: SamplingDefaults::default(),
    };
    App {
        engine,
        gate,
        text,
        model: card,
        ledger: Ledger::in_memory(),
        clock,
    }
}

fn pairs() -> Vec<(&'static str, Pair)> {
    let ed = Ed25519KeyPair::generate().expect("a key");
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key");
    let rsa = |size| RsaKeyPair::generate(size).expect("a key");
    let (rsa_2048, rsa_4096) = (rsa(KeySize::Rsa2048), rsa(KeySize::Rsa4096));
    let random = SystemRandom::new();
    let ecdsa = |key: &EcdsaKeyPair, message: &[u8]| {
        let signature = key.sign(&random, message).expect("it signs");
        signature.as_ref().to_vec()
    };
    let rsa = |key: &RsaKeyPair, scheme: &'static dyn RsaEncoding, message: &[u8]| {
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(scheme, &random, message, &mut signature)
            .expect("it signs");
        signature
    };
    vec![
        ("HS256", secret_pair()),
        (
            "RS256-2048",
            pair("RS256", pem(rsa_2048.public_key()), |message| {
                rsa(&rsa_2048, &RSA_PKCS1_SHA256, message)
            }),
        ),
        (
            "RS256-4096",
            pair("RS256", pem(rsa_4096.public_key()), |message| {
                rsa(&rsa_4096, &RSA_PKCS1_SHA256, message)
            }),
        ),
        (
            "PS256-2048",
            pair("PS256", pem(rsa_2048.public_key()), |message| {
                rsa(&rsa_2048, &RSA_PSS_SHA256, message)
            }),
        ),
        (
            "ES256",
            pair("ES256", pem(p256.public_key()), |message| {
                ecdsa(&p256, message)
            }),
        ),
        (
            "ES384",
            pair("ES384", pem(p384.public_key()), |message| {
                ecdsa(&p384, message)
            }),
        ),
        (
            "EdDSA",
            pair("EdDSA", pem(ed.public_key()), |message| {
                ed.sign(message).as_ref().to_vec()
            }),
        ),
    ]
}

fn pair(algorithm: &str, pem: String, sign: impl Fn(&[u8]) -> Vec<u8>) -> Pair {
    let key = KeyConfig {
        kid: Some("bench".to_owned()),
        pem: Some(pem),
        ..KeyConfig::default()
    };
    Pair {
        gate: gate(algorithm, key),
        token: token(algorithm, sign),
        _secret: None,
    }
}

fn secret_pair() -> Pair {
    let secret = b"bench: 7Qm2xVbK0fZtR9wLc4Hd8JyNs6GpAe1U";
    let mut file = NamedTempFile::new().expect("a temporary file can be made");
    file.write_all(secret).expect("and written");
    let key = KeyConfig {
        kid: Some("bench".to_owned()),
        hmac_secret_file: Some(file.path().to_owned()),
        ..KeyConfig::default()
    };
    let signer = hmac::Key::new(hmac::HMAC_SHA256, secret);
    Pair {
        gate: gate("HS256", key),
        token: token("HS256", |message| {
            hmac::sign(&signer, message).as_ref().to_vec()
        }),
        _secret: Some(file),
    }
}

fn gate(algorithm: &str, key: KeyConfig) -> Gate {
    let entry =
        json!({"issuer": ISSUER, "audiences": [AUDIENCE], "keys": [], "algorithms": [algorithm]});
    let mut issuer: IssuerConfig = serde_json::from_value(entry).expect("the entry is good");
    issuer.keys = vec![key];
    let config = AuthConfig {
        issuers: vec![issuer],
        ..AuthConfig::default()
    };
    Gate::new(&config, None, Clock::manual(NOW).0).expect("the configuration is good")
}

fn token(algorithm: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let header = json!({"alg": algorithm, "typ": "JWT", "kid": "bench"});
    let claims = json!({
        "iss": ISSUER,
        "sub": "q7d0nJh3kVxY2mB9sLw4RtGc8ZpEa1Uf@clients",
        "aud": [AUDIENCE, "https://acme.eu.auth0.com/userinfo"],
        "iat": NOW - 60,
        "exp": NOW + 86_000,
        "azp": "q7d0nJh3kVxY2mB9sLw4RtGc8ZpEa1Uf",
        "gty": "client-credentials",
        "scope": "chat models",
        "permissions": ["chat", "models"],
    });
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let input = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let signature = encode(&sign(input.as_bytes()));
    format!("{input}.{signature}")
}

fn pem(key: &impl AsDer<PublicKeyX509Der<'static>>) -> String {
    let der = key.as_der().expect("a public key can be written");
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(der.as_ref())
    )
}

criterion_group!(benches, verify, kept, request);
criterion_main!(benches);
