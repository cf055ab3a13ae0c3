use serde_json::Value;

use super::common::{error_of, forged, within};
use super::harness::Mixgate;

/// The audit's lines in what a server has logged.
fn audit(stderr: &str) -> Vec<Value> {
    stderr
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["target"] == "mixgate::audit")
        .collect()
}

/// `GET path` with this token and request id; the status.
async fn ask(server: &Mixgate, path: &str, token: Option<&str>, id: &str) -> u16 {
    let mut request = server.client.get(server.url(path));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = within(request.header("x-request-id", id).send()).await;
    response.unwrap().status().as_u16()
}

async fn logged(server: Mixgate) -> Vec<Value> {
    server.terminate();
    let ended = server.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    audit(&ended.stderr)
}

fn line<'a>(lines: &'a [Value], id: &str) -> &'a Value {
    let found: Vec<_> = lines.iter().filter(|it| it["request_id"] == id).collect();
    let [line] = found[..] else {
        panic!("{id} has {} lines: {lines:?}", found.len())
    };
    line
}

#[tokio::test]
async fn each_decision_leaves_one_line_that_says_who_what_where_and_why() {
    let server = Mixgate::serve(&["--log-format", "json"]);
    let token = server.token.clone();
    let chat = server.home.token("chat");
    let forged = forged(&token);
    for (path, token, id, status) in [
        ("/v1/models?secret=hidden", Some(&*token), "good", 200),
        ("/v1/models/x", Some(&*chat), "scope", 403),
        ("/v1/models", None, "none", 401),
        ("/v1/models", Some("opaque"), "opaque", 401),
        ("/v1/chat/completions", Some(&*forged), "forged", 401),
        ("/nowhere", Some("a.b.c"), "nowhere", 401),
        ("/livez", None, "probe", 200),
    ] {
        assert_eq!(ask(&server, path, token, id).await, status, "{id}");
    }
    let lines = logged(server).await;

    let good = line(&lines, "good");
    assert_eq!(good["decision"], "allow");
    for (name, value) in [
        ("method", "GET"),
        ("route", "/v1/models"),
        ("address", "127.0.0.1"),
        ("issuer", "mixgate:local"),
        ("credential", "token"),
    ] {
        assert_eq!(good[name], value, "{good}");
    }
    assert_eq!(good["key_id"].as_str().unwrap().len(), 43, "{good}");
    let subject = good["subject"].as_str().unwrap();
    assert!(subject.len() == 16 && subject != "you", "{good}");

    let scope = line(&lines, "scope");
    assert_eq!(
        (&scope["decision"], &scope["reason"], &scope["route"]),
        (
            &"deny".into(),
            &"insufficient_scope".into(),
            &"/v1/models/{*id}".into()
        )
    );
    assert_eq!(scope["subject"], subject);
    assert!(scope["detail"].as_str().unwrap().contains("`models`"));

    for (id, reason, step, route) in [
        ("none", "missing_credentials", None, "/v1/models"),
        ("opaque", "invalid_token", Some("form"), "/v1/models"),
        (
            "forged",
            "invalid_token",
            Some("signature"),
            "/v1/chat/completions",
        ),
        ("nowhere", "invalid_token", Some("form"), "none"),
    ] {
        let line = line(&lines, id);
        assert_eq!(
            (&line["decision"], &line["reason"]),
            (&"deny".into(), &reason.into())
        );
        assert_eq!(
            (line["step"].as_str(), &line["route"]),
            (step, &route.into())
        );
        assert_eq!(line.get("subject"), None, "{line}");
        assert_eq!(line.get("key_id"), None, "nobody vouches for it: {line}");
    }
    assert!(lines.iter().all(|line| line["request_id"] != "probe"));
    let all = format!("{lines:?}");
    for secret in ["hidden", &token, &forged, token.rsplit('.').next().unwrap()] {
        assert!(!all.contains(secret), "{secret} is in {all}");
    }
}

#[tokio::test]
async fn a_subject_stands_in_clear_where_that_is_asked_for() {
    let server = Mixgate::serve(&["--log-format", "json", "--audit-subjects", "clear"]);
    let token = server.token.clone();
    assert_eq!(ask(&server, "/v1/models", Some(&token), "good").await, 200);
    assert_eq!(line(&logged(server).await, "good")["subject"], "you");
}

#[tokio::test]
async fn a_flood_of_bad_tokens_hears_429_fills_no_log_and_harms_no_good_token() {
    let server = Mixgate::serve(&[
        "--log-format",
        "json",
        "--max-failures-per-minute",
        "5",
        "--audit-denials-per-second",
        "3",
    ]);
    let token = server.token.clone();
    let mut codes = Vec::new();
    for _ in 0..40 {
        let request = server.client.get(server.url("/v1/models"));
        let response = within(request.bearer_auth("bad").send()).await.unwrap();
        if response.status() == 429 {
            let after: u64 = response.headers()["retry-after"]
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            assert!((1..=12).contains(&after), "{after}");
        }
        let body: Value = within(response.json()).await.unwrap();
        codes.push(error_of(&body).0);
        assert_eq!(ask(&server, "/v1/models", Some(&token), "good").await, 200);
    }
    assert_eq!(codes[..5], ["invalid_token"; 5]);
    assert_eq!(codes[5], "too_many_failures");

    let lines = logged(server).await;
    let denied = lines.iter().filter(|it| it.get("reason").is_some()).count();
    let left_out: u64 = lines
        .iter()
        .filter_map(|it| it["suppressed"].as_u64())
        .sum();
    assert!(denied <= 9, "{denied} lines");
    assert_eq!(denied as u64 + left_out, 40, "each denial is counted");
    assert_eq!(
        lines.iter().filter(|it| it["decision"] == "allow").count(),
        40
    );
}

#[tokio::test]
async fn a_running_server_takes_up_a_rotated_key_and_drops_a_retired_one() {
    let server = Mixgate::serve(&[]);
    let old = server.token.clone();
    let state_dir = server.home.state_dir();
    let token = |words: &[&str]| {
        let dir = ["--state-dir", state_dir.to_str().unwrap()];
        let said = server.home.run(&[&["token"], words, &dir].concat());
        assert_eq!((said.code, &*said.stderr), (Some(0), ""));
        said.stdout
    };
    let listed = token(&["rotate", "--keep", "1d"]);
    assert_eq!(listed, token(&["keys"]));
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let new = server.home.token("models");
    assert_eq!(ask(&server, "/v1/models", Some(&new), "new").await, 200);
    assert_eq!(ask(&server, "/v1/models", Some(&old), "old").await, 200);
    let request = server.client.get(server.url("/.well-known/jwks.json"));
    let keys: Value = within(within(request.send()).await.unwrap().json())
        .await
        .unwrap();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);

    token(&["rotate", "--retire-now"]);
    let newest = server.home.token("models");
    assert_eq!(
        ask(&server, "/v1/models", Some(&newest), "newest").await,
        200
    );
    for held in [&old, &new] {
        assert_eq!(ask(&server, "/v1/models", Some(held), "held").await, 401);
    }
}
