use serde_json::json;

use super::common::{forged, secret, within};
use super::harness::Mixgate;

/// Nowhere but in what these tests send.
const SENTINEL: &str = "SENTINEL7f3a";

#[tokio::test]
async fn nothing_secret_reaches_stdout_stderr_or_metrics() {
    let server = Mixgate::serve(&[]);
    let token = server.token.clone();
    let mut secrets = vec![secret(SENTINEL.to_owned())];

    let talk = json!([
        {"role": "system", "content": format!("{SENTINEL} system")},
        {"role": "user", "content": format!("{SENTINEL} user")},
    ]);
    for fields in [
        json!({"messages": talk, "max_tokens": 5}),
        json!({"messages": talk, "max_tokens": 5, "stream": true, "user": SENTINEL, "stop": SENTINEL}),
    ] {
        let response = server.chat(&fields).await;
        assert_eq!(response.status(), 200);
        within(response.bytes()).await.unwrap();
    }
    for fields in [
        json!({"model": SENTINEL}),
        json!({"messages": [{"role": SENTINEL, "content": "x"}]}),
        json!({"temperature": SENTINEL}),
        json!({"messages": [{"role": "user", "content": SENTINEL.repeat(20_000)}]}),
        json!({SENTINEL: 1}),
        json!({"logit_bias": {SENTINEL: 1}}),
    ] {
        assert!(server.chat(&fields).await.status().is_client_error());
    }
    for body in [
        format!("{{\"{SENTINEL}\":"),
        SENTINEL.to_owned(),
        format!("{{\"{SENTINEL}\":1,\"{SENTINEL}\":2}}"),
    ] {
        let response = within(server.post(body.into_bytes()).send()).await.unwrap();
        assert_eq!(response.status(), 400);
    }

    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = head.split_once('.').unwrap();
    let forged = forged(&token);
    for authorization in [
        format!("Bearer {forged}"),
        format!("Bearer {header}.{claims}{SENTINEL}.{signature}"),
        format!("Bearer {SENTINEL}"),
        format!("Basic {SENTINEL}"),
        format!("{SENTINEL} {token}"),
        SENTINEL.to_owned(),
    ] {
        let request = server.client.get(server.url("/v1/models"));
        let request = request.header("authorization", authorization);
        let status = within(request.send()).await.unwrap().status();
        assert!(status == 401 || status == 400, "{status}");
    }
    for (path, with_token) in [
        (format!("/v1/models?access_token={SENTINEL}"), true),
        (format!("/v1/models?access_token={token}"), false),
        (format!("/{SENTINEL}"), true),
        (format!("/v1/models/{SENTINEL}"), true),
    ] {
        let mut request = server
            .client
            .get(server.url(&path))
            .header("cookie", SENTINEL)
            .header("user-agent", SENTINEL)
            .header("x-api-key", SENTINEL)
            // Not fit for a name, so it must be replaced rather than logged.
            .header("x-request-id", format!("{SENTINEL} {{}}\"\t"));
        if with_token {
            request = request.bearer_auth(&token);
        }
        within(request.send()).await.unwrap();
    }
    let method = reqwest::Method::from_bytes(SENTINEL.as_bytes()).unwrap();
    let request = server.client.request(method, server.url("/metrics"));
    within(request.bearer_auth(&token).send()).await.unwrap();

    let metrics = within(server.get("/metrics").await.text()).await.unwrap();
    assert!(metrics.contains("mixgate_denied_total"), "{metrics}");
    secrets.extend([signature.to_owned(), claims.to_owned(), forged]);
    let key = server.home.key();
    secrets.extend(key.lines().map(str::to_owned));
    // Part of a key is a part too many.
    let body: String = key.lines().filter(|line| !line.contains("---")).collect();
    secrets.extend(
        body.as_bytes()
            .windows(24)
            .map(|part| String::from_utf8(part.to_vec()).unwrap()),
    );

    server.terminate();
    let ended = server.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("request"),
        "something was logged: {}",
        ended.stderr
    );
    for (place, text) in [
        ("stdout", &ended.stdout),
        ("stderr", &ended.stderr),
        ("/metrics", &metrics),
    ] {
        for secret in &secrets {
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "{secret:?} is in {place}");
        }
    }
}
