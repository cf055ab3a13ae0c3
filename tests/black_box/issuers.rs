//! Issuers that publish their keys: a real server against a provider that rotates, fails and lies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use mixgate::auth::IssuerConfig;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::common::{LEAK_CHECK, said_by_a_server};
use super::harness::{House, PATIENCE, Plan, logs, refusal, within};
use super::idp::{AUDIENCE, Idp, Mood, Signer};
use super::wire::Authority;

async fn house(issuers: Vec<IssuerConfig>) -> House {
    House::with(Plan {
        issuers,
        ..Plan::default()
    })
    .await
}

async fn house_of(idp: &Idp) -> House {
    house(vec![idp.config(json!({}))]).await
}

/// What `/v1/models` answers to this token: `200` or the error's code.
async fn code(house: &House, token: &str) -> String {
    let request = house.client.get(house.url("/v1/models")).bearer_auth(token);
    let response = within(request.send()).await.unwrap();
    match response.status().as_u16() {
        200 => "200".to_owned(),
        _ => refusal(response).await.1,
    }
}

async fn ready(house: &House) -> (u16, Value) {
    let response = within(house.client.get(house.url("/readyz")).send())
        .await
        .unwrap();
    let status = response.status().as_u16();
    (status, within(response.json()).await.unwrap())
}

/// Waits until this token gets this answer.
async fn until(house: &House, token: &str, wanted: &str) {
    let begun = Instant::now();
    loop {
        let code = code(house, token).await;
        if code == wanted {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "still {code}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn metrics(house: &House, token: &str) -> String {
    let request = house.client.get(house.url("/metrics")).bearer_auth(token);
    let response = within(request.send()).await.unwrap();
    within(response.text()).await.unwrap()
}

fn with(claims: &Value, changes: Value) -> Value {
    let mut claims = claims.clone();
    let changes = changes.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(changes);
    claims
}

#[tokio::test]
async fn a_token_of_a_discovered_issuer_gets_a_completion_and_others_a_401() {
    let idp = Idp::start().await;
    let house = house_of(&idp).await;
    let token = idp.token();
    let answer = within(house.chat_request_as(&token, json!({})).send())
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!((idp.discoveries(), idp.key_fetches()), (1, 1));
    let key = idp.key();
    for (changes, expected) in [
        (json!({"iss": "https://other.example/"}), "invalid_token"),
        (
            json!({"iss": idp.issuer().trim_end_matches('/')}),
            "invalid_token",
        ),
        (json!({"aud": "https://other.example"}), "invalid_audience"),
        (
            json!({"exp": 1_700_000_000, "iat": 1_699_999_000}),
            "token_expired",
        ),
        (json!({"nonce": "n"}), "invalid_token_type"),
    ] {
        let token = key.token(&with(&idp.claims(), changes));
        assert_eq!(code(&house, &token).await, expected);
    }
    // None of this asked the provider for anything, and the built-in issuer is nobody here.
    assert_eq!(code(&house, &house.token()).await, "invalid_token");
    assert_eq!((idp.discoveries(), idp.key_fetches()), (1, 1));
    let text = metrics(&house, &token).await;
    for line in [
        r#"mixgate_issuer_key_fetches_total{issuer="1",outcome="ok"} 1"#,
        r#"mixgate_issuer_key_fetches_total{issuer="1",outcome="invalid"} 0"#,
        r#"mixgate_issuer_keys{issuer="1"} 1"#,
        r#"mixgate_issuer_key_fetch_failures{issuer="1"} 0"#,
        r#"mixgate_issuer_unknown_keys_total{issuer="1"} 0"#,
        r#"mixgate_issuer_keys_age_seconds{issuer="1"} "#,
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(!text.contains(&idp.issuer()));
}

#[tokio::test]
async fn a_rotated_key_is_taken_at_once_and_a_withdrawn_one_dies_with_it() {
    let idp = Idp::start().await;
    let house = house_of(&idp).await;
    let old = idp.token();
    assert_eq!(code(&house, &old).await, "200");
    let (first, next) = (idp.key(), Arc::new(Signer::new("b")));
    idp.publish(&[&first, &next]);
    let new = next.token(&idp.claims());
    let codes = futures_util::future::join_all((0..20).map(|_| code(&house, &new))).await;
    assert_eq!(codes, vec!["200"; 20]);
    assert_eq!(idp.key_fetches(), 2, "one fetch for all who wait");
    assert_eq!(code(&house, &old).await, "200");
    idp.publish(&[&next]);
    // The start has used one of two fetches that tokens may cause, the rotation the other.
    let unknown = Signer::new("c").token(&idp.claims());
    assert_eq!(code(&house, &unknown).await, "invalid_token");
    assert_eq!(idp.key_fetches(), 2);
}

#[tokio::test]
async fn a_key_that_is_withdrawn_in_a_rotation_is_dead_after_the_first_new_token() {
    let idp = Idp::start().await;
    let house = house_of(&idp).await;
    let old = idp.token();
    assert_eq!(code(&house, &old).await, "200");
    let next = Arc::new(Signer::new("b"));
    idp.publish(&[&next]);
    assert_eq!(code(&house, &old).await, "200", "nobody has looked yet");
    assert_eq!(code(&house, &next.token(&idp.claims())).await, "200");
    assert_eq!(code(&house, &old).await, "invalid_token");
}

#[tokio::test]
async fn keys_go_on_serving_while_the_provider_is_down() {
    let idp = Idp::start().await;
    let house = house_of(&idp).await;
    let token = idp.token();
    assert_eq!(code(&house, &token).await, "200");
    idp.feel(Mood::Down);
    let unknown = Signer::new("b").token(&idp.claims());
    assert_eq!(code(&house, &unknown).await, "invalid_token");
    for _ in 0..20 {
        assert_eq!(code(&house, &token).await, "200");
    }
    assert_eq!(ready(&house).await.0, 200);
    let text = metrics(&house, &token).await;
    assert!(text.contains(r#"mixgate_issuer_key_fetches_total{issuer="1",outcome="refused"} "#));
    assert!(!text.contains(r#"mixgate_issuer_key_fetch_failures{issuer="1"} 0"#));
}

#[tokio::test]
async fn without_keys_at_the_start_the_server_runs_is_not_ready_and_recovers_by_itself() {
    let idp = Idp::start().await;
    idp.feel(Mood::Down);
    let house = house_of(&idp).await;
    let request = house.client.get(house.url("/v1/models"));
    let response = within(request.bearer_auth(idp.token()).send())
        .await
        .unwrap();
    assert_eq!(response.headers()["retry-after"], "5");
    assert!(!response.headers().contains_key("www-authenticate"));
    let body: Value = {
        assert_eq!(response.status(), 503);
        within(response.json()).await.unwrap()
    };
    assert_eq!(
        body,
        json!({"error": {
            "message": "The server cannot check tokens of this issuer now: its keys could not be fetched.",
            "type": "server_error", "param": null, "code": "auth_unavailable"
        }})
    );
    assert_eq!(
        ready(&house).await,
        (503, json!({"status": "no issuer keys yet"}))
    );
    let alive = within(house.client.get(house.url("/livez")).send())
        .await
        .unwrap();
    assert_eq!(alive.status(), 200);
    idp.feel(Mood::Well);
    until(&house, &idp.token(), "200").await;
    assert_eq!(ready(&house).await, (200, json!({"status": "ready"})));
}

#[tokio::test]
async fn an_issuer_that_is_not_required_does_not_hold_up_readiness() {
    let (well, down) = (Idp::start().await, Idp::start().await);
    down.feel(Mood::Down);
    let optional = down.config(json!({"required": false}));
    let house = house(vec![well.config(json!({})), optional]).await;
    assert_eq!(code(&house, &well.token()).await, "200");
    assert_eq!(ready(&house).await.0, 200);
    assert_eq!(code(&house, &down.token()).await, "auth_unavailable");
}

#[tokio::test]
async fn issuers_do_not_wait_for_each_other_nor_vouch_for_each_other() {
    let (well, silent) = (Idp::start().await, Idp::start().await);
    silent.feel(Mood::Silent);
    let house = house(vec![silent.config(json!({})), well.config(json!({}))]).await;
    let begun = Instant::now();
    assert_eq!(code(&house, &well.token()).await, "200");
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(code(&house, &silent.token()).await, "auth_unavailable");
    // The same key id, another issuer's key.
    let forged = well.key().token(&silent.claims());
    assert_eq!(code(&house, &forged).await, "auth_unavailable");
    silent.feel(Mood::Well);
    until(&house, &silent.token(), "200").await;
    assert_eq!(code(&house, &forged).await, "invalid_token");
    assert_eq!(
        code(&house, &silent.key().token(&well.claims())).await,
        "invalid_token"
    );
}

#[tokio::test]
async fn ten_thousand_random_key_ids_cost_the_provider_two_fetches_and_good_tokens_nothing() {
    let idp = Idp::start().await;
    let mut plan = Plan {
        issuers: vec![idp.config(json!({}))],
        ..Plan::default()
    };
    // The flood keeps its connections, and each waits its turn.
    plan.server.header_timeout = PATIENCE;
    // It comes from one address here, and must reach the keys all the same.
    plan.server.max_failures_per_minute = u32::MAX;
    let house = House::with(plan).await;
    let good = idp.token();
    assert_eq!(code(&house, &good).await, "200");
    // Slower than any good token may be.
    let delay = Duration::from_millis(1500);
    idp.feel(Mood::Slow(delay));
    let client = reqwest::Client::new();
    let forger = Signer::new("x");
    let claims = idp.claims();
    let flood = futures_util::stream::iter(0..10_000u32)
        .map(|number| {
            let header = json!({"alg": "EdDSA", "kid": format!("{number:08x}")});
            let token = forger.token_with(header, &claims);
            let request = client.get(house.url("/v1/models")).bearer_auth(token);
            async move { request.send().await.unwrap().status().as_u16() }
        })
        .buffer_unordered(64)
        .collect::<Vec<_>>();
    let before = idp.key_fetches();
    let begun = Instant::now();
    let honest = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let asked = Instant::now();
            assert_eq!(code(&house, &good).await, "200");
            slowest = slowest.max(asked.elapsed());
            sleep(Duration::from_millis(20)).await;
        }
        slowest
    };
    let (statuses, slowest) = tokio::join!(flood, honest);
    assert!(statuses.iter().all(|status| *status == 401));
    let windows = 1 + begun.elapsed().as_secs() as usize / 30;
    let fetches = idp.key_fetches() - before;
    assert!(
        (1..=2 * windows).contains(&fetches),
        "{fetches} fetches in {windows} windows"
    );
    assert!(slowest < delay, "a good token took {slowest:?}");
}

#[tokio::test]
async fn hostile_answers_give_no_keys_and_are_followed_nowhere() {
    let signer = Arc::new(Signer::new("a"));
    let mut secret =
        json!({"kty": "oct", "kid": "a", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ1"});
    secret["alg"] = json!("HS256");
    let mut private = signer.jwk();
    private["d"] = json!("AQAB");
    let mut encrypting = signer.jwk();
    encrypting["use"] = json!("enc");
    let twins = json!({"keys": [signer.jwk(), Signer::new("a").jwk()]});
    let padded = format!(
        "{{\"keys\":[{}],\"x\":\"{}\"}}",
        signer.jwk(),
        "x".repeat(512 << 10)
    );
    let keys = |keys: Value| Mood::Keys(json!({"keys": keys}).to_string());
    let moods = [
        ("refused", Mood::Moved(301)),
        ("refused", Mood::Moved(302)),
        ("refused", Mood::Moved(307)),
        ("refused", Mood::Down),
        ("invalid", Mood::Encoded("gzip")),
        ("invalid", Mood::Keys(padded)),
        ("invalid", Mood::Keys(String::new())),
        ("invalid", Mood::Keys("<html>keys</html>".to_owned())),
        (
            "invalid",
            Mood::Keys(format!("{{\"keys\":[{}", signer.jwk())),
        ),
        ("invalid", keys(json!({"a": signer.jwk()}))),
        ("invalid", keys(json!([secret]))),
        ("invalid", keys(json!([private]))),
        ("invalid", keys(json!([encrypting]))),
        ("invalid", keys(json!(vec![signer.jwk(); 101]))),
        ("invalid", Mood::Keys(twins.to_string())),
        ("invalid", Mood::Document("{}".to_owned())),
        ("invalid", Mood::Document("[]".to_owned())),
        ("invalid", Mood::Document("ISSUER_OF_OTHERS".to_owned())),
        ("invalid", Mood::Document("PLAIN_HTTP_KEYS".to_owned())),
    ];
    let signer = &signer;
    let checks = moods.map(|(outcome, mood)| async move {
        let idp = Idp::start().await;
        idp.publish(&[signer]);
        let keys = idp.url("/keys");
        let mood = match mood {
            Mood::Document(name) if name == "ISSUER_OF_OTHERS" => {
                let near = idp.issuer().trim_end_matches('/').to_owned();
                Mood::Document(json!({"issuer": near, "jwks_uri": keys}).to_string())
            }
            Mood::Document(name) if name == "PLAIN_HTTP_KEYS" => Mood::Document(
                json!({"issuer": idp.issuer(), "jwks_uri": "http://keys.example/keys"}).to_string(),
            ),
            mood => mood,
        };
        let said: String = format!("{mood:?}").chars().take(60).collect();
        idp.feel(mood);
        let house = house_of(&idp).await;
        assert_eq!(
            code(&house, &idp.token()).await,
            "auth_unavailable",
            "{said}"
        );
        assert_eq!(idp.strays(), [""; 0], "{said}");
        idp.feel(Mood::Well);
        until(&house, &idp.token(), "200").await;
        let text = metrics(&house, &idp.token()).await;
        let line =
            format!("mixgate_issuer_key_fetches_total{{issuer=\"1\",outcome=\"{outcome}\"}} 0");
        assert!(!text.contains(&line), "{said}: {text}");
    });
    // Each waits a second for the second try; together they do so once.
    futures_util::future::join_all(checks).await;
}

#[tokio::test]
async fn an_answer_that_never_ends_is_given_up_and_nobody_waits_for_it_longer_than_two_seconds() {
    for mood in [Mood::Silent, Mood::Stuck] {
        let idp = Idp::start().await;
        idp.feel(mood);
        let house = house_of(&idp).await;
        let begun = Instant::now();
        assert_eq!(code(&house, &idp.token()).await, "auth_unavailable");
        let waited = begun.elapsed();
        assert!(waited > Duration::from_millis(1500), "{waited:?}");
        assert!(waited < Duration::from_secs(4), "{waited:?}");
        idp.feel(Mood::Well);
        // After five seconds the fetch is given up, after one more it is tried again.
        until(&house, &idp.token(), "200").await;
    }
}

#[tokio::test]
async fn keys_that_a_token_brings_are_never_fetched_nor_used() {
    let idp = Idp::start().await;
    let house = house_of(&idp).await;
    assert_eq!(code(&house, &idp.token()).await, "200");
    let forger = Signer::new("a");
    for (name, value) in [
        ("jku", json!(idp.url("/evil"))),
        ("x5u", json!(idp.url("/evil"))),
        ("jwk", forger.jwk()),
        ("x5c", json!(["MIIB"])),
    ] {
        let mut header = json!({"alg": "EdDSA", "kid": "a"});
        header[name] = value;
        let token = forger.token_with(header, &idp.claims());
        assert_eq!(code(&house, &token).await, "invalid_token", "{name}");
    }
    assert_eq!((idp.strays(), idp.key_fetches()), (Vec::new(), 1));
}

#[tokio::test]
async fn all_that_fails_before_a_good_signature_is_answered_alike() {
    let idp = Idp::start().await;
    let house = house_of(&idp).await;
    assert_eq!(code(&house, &idp.token()).await, "200");
    let (key, forger) = (idp.key(), Signer::new("a"));
    let other = with(&idp.claims(), json!({"iss": "https://unknown.example/"}));
    let expired = with(&idp.claims(), json!({"exp": 1, "aud": "x", "cnf": {}}));
    let header = |alg: &str, kid: &str| json!({"alg": alg, "kid": kid});
    let mut answers = Vec::new();
    for token in [
        forger.token(&idp.claims()),
        forger.token(&expired),
        forger.token(&other),
        key.token(&other),
        key.token_with(header("HS256", "a"), &idp.claims()),
        key.token_with(header("none", "a"), &idp.claims()),
        key.token_with(header("RS256", "a"), &idp.claims()),
        key.token_with(header("EdDSA", "unknown"), &idp.claims()),
        key.token_with(header("EdDSA", "unknown"), &expired),
        key.token_with(header("EdDSA", "another"), &idp.claims()),
        key.token_with(
            json!({"alg": "EdDSA", "kid": "a", "crit": ["b64"]}),
            &idp.claims(),
        ),
        "x.y.z".to_owned(),
    ] {
        let request = house.client.get(house.url("/v1/models")).bearer_auth(token);
        let response = within(request.send()).await.unwrap();
        let mut headers = response.headers().clone();
        headers.remove("x-request-id");
        headers.remove("date");
        let status = response.status();
        answers.push((
            status,
            format!("{headers:?}"),
            within(response.text()).await.unwrap(),
        ));
    }
    assert!(
        answers.windows(2).all(|pair| pair[0] == pair[1]),
        "{answers:#?}"
    );
    assert_eq!(answers[0].0, 401);
}

#[tokio::test]
async fn keys_over_https_are_taken_from_whom_the_named_authority_vouches_for_and_nobody_else() {
    let (root, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let ca_file = |name: &str, authority: &Authority| {
        let path = folder.path().join(name);
        std::fs::write(&path, authority.pem()).unwrap();
        json!({"ca_file": path, "allow_http_loopback": false})
    };
    let trusting = ca_file("root.pem", &root);
    let system = json!({"allow_http_loopback": false});
    for (what, pair, fields, expected) in [
        (
            "all is well",
            root.issue("localhost", 2050),
            &trusting,
            "200",
        ),
        (
            "the system knows no such root",
            root.issue("localhost", 2050),
            &system,
            "auth_unavailable",
        ),
        (
            "another root",
            other.issue("localhost", 2050),
            &trusting,
            "auth_unavailable",
        ),
        (
            "another name",
            root.issue("idp.example", 2050),
            &trusting,
            "auth_unavailable",
        ),
        (
            "expired",
            root.issue("localhost", 2021),
            &trusting,
            "auth_unavailable",
        ),
    ] {
        for by_url in [false, true] {
            let idp = Idp::start_secure(&pair.certificate, &pair.key).await;
            let mut config = idp.config(fields.clone());
            if by_url {
                config.discovery = None;
                config.jwks_url = Some(idp.url("/keys"));
            }
            let house = house(vec![config]).await;
            assert_eq!(code(&house, &idp.token()).await, expected, "{what}");
            let asked = usize::from(expected == "200");
            assert_eq!(idp.key_fetches(), asked, "{what}");
            let status = if asked == 1 { 200 } else { 503 };
            assert_eq!(ready(&house).await.0, status, "{what}");
        }
    }
}

#[tokio::test]
async fn private_addresses_are_refused_where_that_is_asked_for() {
    let idp = Idp::start().await;
    let config = idp.config(json!({"refuse_private_addresses": true}));
    let mut by_name = idp.config(json!({"refuse_private_addresses": true}));
    by_name.issuer = idp.issuer().replace("127.0.0.1", "localhost");
    let house = house(vec![config, by_name.clone()]).await;
    assert_eq!(code(&house, &idp.token()).await, "auth_unavailable");
    let claims = with(&idp.claims(), json!({"iss": by_name.issuer}));
    assert_eq!(
        code(&house, &idp.key().token(&claims)).await,
        "auth_unavailable"
    );
    assert_eq!((idp.discoveries(), idp.key_fetches()), (0, 0));
}

#[tokio::test]
async fn tenants_of_a_template_share_keys_and_nothing_else() {
    let idp = Idp::start().await;
    let (one, two) = (
        "11111111-2222-3333-4444-555555555555",
        "99999999-8888-7777-6666-555555555555",
    );
    let template = format!("{}{{tenantid}}/v2.0", idp.issuer());
    let mut jwk = idp.key().jwk();
    jwk["issuer"] = json!(template);
    let mut tied = Signer::new("tied").jwk();
    tied["issuer"] = json!(template.replace("{tenantid}", two));
    idp.feel(Mood::Keys(json!({"keys": [jwk, tied]}).to_string()));
    let config = idp.config(
        json!({"preset": "entra", "issuer": template, "tenants": [one], "algorithms": ["EdDSA"],
        "jwks_url": idp.url("/keys")}),
    );
    let house = house(vec![config]).await;
    let claims = |iss: &str, tid: &str| {
        with(
            &idp.claims(),
            json!({"iss": template.replace("{tenantid}", iss), "tid": tid, "oid": "ann", "azp": "app", "ver": "2.0",
                "scp": "models"}),
        )
    };
    let key = idp.key();
    assert_eq!(code(&house, &key.token(&claims(one, one))).await, "200");
    assert_eq!(
        code(&house, &key.token(&claims(one, two))).await,
        "invalid_token"
    );
    assert_eq!(
        code(&house, &key.token(&claims(two, two))).await,
        "invalid_token"
    );
}

#[tokio::test]
async fn a_provider_is_told_of_in_logs_by_name_and_without_its_tokens() {
    let idp = Idp::start().await;
    idp.feel(Mood::Down);
    let house = house_of(&idp).await;
    let token = idp.token();
    assert_eq!(code(&house, &token).await, "auth_unavailable");
    let logged = String::from_utf8(logs().lock().unwrap().clone()).unwrap();
    assert!(logged.contains(&format!(
        "an issuer's keys could not be fetched issuer=\"{}\"",
        idp.issuer()
    )));
    assert!(
        logged.contains("127.0.0.1 answered 503, 200 is wanted and redirects are not followed")
    );
    assert!(!logged.contains(token.split('.').nth(1).unwrap()));
}

/// Runs the program with a file that knows this provider, and this on its stdin.
async fn mixgate(idp: &Idp, args: &'static [&str], stdin: String) -> (bool, String) {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mixgate.toml");
    let text = format!(
        "[[auth.issuers]]\nissuer = \"{}\"\naudiences = [\"{AUDIENCE}\"]\ndiscovery = true\nallow_http_loopback = true\n",
        idp.issuer()
    );
    std::fs::write(&path, text).unwrap();
    let run = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mixgate"))
            .args(args)
            .arg("--config")
            .arg(&path)
            .env("MIXGATE_STATE_DIR", folder.path())
            .env_remove(LEAK_CHECK)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        said_by_a_server(&said);
        (output.status.success(), said)
    });
    within(run).await.unwrap()
}

#[tokio::test]
async fn token_verify_fetches_the_keys_once() {
    let idp = Idp::start().await;
    let token = idp.token();
    let (good, said) = mixgate(&idp, &["token", "verify"], format!("Bearer {token}\n")).await;
    assert!(good, "{said}");
    assert!(
        said.starts_with("valid: ") && said.contains("subject  ann"),
        "{said}"
    );
    assert_eq!(idp.key_fetches(), 1);
    idp.feel(Mood::Down);
    let (good, said) = mixgate(&idp, &["token", "verify"], token).await;
    assert!(!good);
    assert!(
        said.contains("this issuer's keys could not be fetched: 127.0.0.1 answered 503")
            && said.contains("the server answers 503 auth_unavailable")
            && said.contains("hint: this machine must reach the issuer's key server"),
        "{said}"
    );
}

#[tokio::test]
async fn config_check_needs_no_network() {
    let idp = Idp::start().await;
    let (good, said) = mixgate(&idp, &["config", "check"], String::new()).await;
    assert!(good, "{said}");
    assert_eq!((idp.discoveries(), idp.key_fetches()), (0, 0));
}
