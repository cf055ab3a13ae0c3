//! What no client should send, all of it to one server, which must refuse it clearly and forget it.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::common::{error_of, raw_json, refusal, within};
use super::harness::Mixgate;

/// Timeouts short enough to see the end of; everything else as it comes.
pub fn server() -> Mixgate {
    Mixgate::serve(&["--header-timeout", "500ms", "--body-timeout", "500ms"])
}

/// Nothing is left, and the next caller is served.
pub async fn unharmed(server: &Mixgate) {
    server.idle().await;
    let response = server.chat(&json!({"max_tokens": 3})).await;
    assert_eq!(response.status(), 200);
    let body: Value = within(response.json()).await.unwrap();
    assert_eq!(body["choices"].as_array().unwrap().len(), 1);
    server.idle().await;
}

fn head(server: &Mixgate, more: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\n{more}",
        server.token
    )
}

#[tokio::test]
async fn bodies_that_no_parser_should_accept_are_400() {
    let server = server();
    let around = |text: &str| {
        format!(r#"{{"model":"seedling","messages":[{{"role":"user","content":{text}}}]}}"#)
            .into_bytes()
    };
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (around(r#""\ud800""#), "invalid_json"),
        (around(r#""\udc00\ud800""#), "invalid_json"),
        (around("\"\u{0}\""), "invalid_json"),
        (around("\"a\nb\""), "invalid_json"),
        (around(&deep), "invalid_json"),
        (around(&r#"{"a":"#.repeat(5000)), "invalid_json"),
        (around("'x'"), "invalid_json"),
        (around("\"x\","), "invalid_json"),
        (around("NaN"), "invalid_json"),
        (around("1e400"), "invalid_json"),
        (around(r#""x","content":"y""#), "invalid_json"),
        (b"\xef\xbb\xbf{}".to_vec(), "invalid_json"),
        (b"\0".to_vec(), "invalid_json"),
        (b"model=seedling".to_vec(), "invalid_json"),
        (
            [&around("\"")[..], b"\xc3\x28\"}]}"].concat(),
            "invalid_utf8",
        ),
        (b"\xff\xfe{\0}\0".to_vec(), "invalid_utf8"),
        (b"\"text\"".to_vec(), "invalid_type"),
        (b"7".to_vec(), "invalid_type"),
    ];
    for (body, code) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let given = refusal(within(server.post(body).send()).await.unwrap()).await;
        assert_eq!(given, (400, code.to_owned(), None), "{shown}");
    }
    unharmed(&server).await;
}

#[tokio::test]
async fn odd_but_valid_requests_are_answered() {
    let server = server();
    let user = |text: &str| json!([{"role": "user", "content": text}]);
    for fields in [
        json!({"messages": user("nul \u{0} inside")}),
        json!({"messages": user("</s><s>[INST] [/INST] <unk> \u{FFFD}\u{202E}\u{1F955}")}),
        json!({"messages": user("\n")}),
        json!({"seed": -1}),
        json!({"seed": i64::MIN}),
        json!({"max_tokens": 2.0}),
        json!({"n": 16}),
        json!({"temperature": 0, "logit_bias": {"3071": 100, "0": -100}}),
        json!({"temperature": 2, "top_p": 0, "top_k": -1, "min_p": 1}),
        json!({"stop": ["", "x"]}),
        json!({"min_tokens": 2}),
    ] {
        let mut asked = json!({"max_tokens": 2});
        asked
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let response = server.chat(&asked).await;
        let status = response.status();
        let body: Value = within(response.json()).await.unwrap();
        assert_eq!(status, 200, "{fields}: {body}");
    }
    let more = server.chat(&json!({"max_tokens": u32::MAX})).await;
    assert_eq!(refusal(more).await.1, "context_length_exceeded");
    unharmed(&server).await;
}

#[tokio::test]
async fn twenty_clients_that_vanish_mid_stream_leave_nothing() {
    let server = server();
    let endless = json!({"stream": true, "ignore_eos": true, "n": 2});
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = server.chat(&endless).await;
        assert_eq!(stream.status(), 200);
        assert!(within(stream.chunk()).await.unwrap().is_some());
        streams.push(stream);
    }
    drop(streams);
    server.idle().await;
    let cancelled = server.metric("vllm:generation_tokens_total").await;
    assert!(
        cancelled < 20.0 * 2.0 * 1900.0,
        "they were not run to their end"
    );
    unharmed(&server).await;
}

#[tokio::test]
async fn broken_transports_are_cut_off() {
    let server = server();
    for half in [
        "POST /v1/chat/comp",
        "GET /v1/models HTTP/1.1\r\nhost: x\r\nauthor",
    ] {
        // Reading to the end returns only if the server closes.
        server.raw(half.as_bytes()).await;
    }
    let half = head(&server, "content-length: 100\r\n\r\n{\"model\":");
    let answer = server.raw(half.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(error_of(&raw_json(&answer)).0, "request_timeout");

    let length = format!("content-length: {}\r\n\r\n", 10 << 20);
    let answer = server.raw(head(&server, &length).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(
        raw_json(&answer),
        json!({"error": {
            "message": "The request body is too large: at most 4194304 bytes are read, 10485760 were announced.",
            "type": "invalid_request_error", "param": null, "code": "request_too_large",
        }})
    );
    let mut chunked = head(
        &server,
        "transfer-encoding: chunked\r\nconnection: close\r\n\r\n",
    )
    .into_bytes();
    for _ in 0..10 {
        chunked.extend_from_slice(b"100000\r\n");
        chunked.resize(chunked.len() + (1 << 20), b' ');
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let answer = server.raw(&chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

    for smuggled in [
        "content-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
        "content-length: x\r\n\r\n{}",
        "content-length: -1\r\n\r\n{}",
        "transfer-encoding: chunked\r\nconnection: close\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    ] {
        let answer = server.raw(head(&server, smuggled).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{smuggled}: {answer}");
    }
    unharmed(&server).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = server();
    let body =
        br#"{"model":"seedling","messages":[{"role":"user","content":"Hi"}],"max_tokens":1}"#;
    let mut bytes = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
    let length = format!("content-length: {}\r\n\r\n", body.len());
    bytes.extend_from_slice(head(&server, &length).as_bytes());
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answer = server.raw(&bytes).await;
    let statuses: Vec<&str> = answer
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &answer[at + 9..at + 12])
        .collect();
    assert_eq!(statuses, ["200", "200", "401"], "{answer}");
    unharmed(&server).await;
}

#[tokio::test]
async fn without_a_token_no_body_is_asked_for() {
    let server = server();
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = within(socket.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(!answer.contains("100 Continue"), "{answer}");
}

#[tokio::test]
async fn wrong_methods_and_paths_are_405_and_404_with_whole_bodies() {
    let server = server();
    let send = async |method: &str, path: &str| {
        let method = method.parse().unwrap();
        let request = server.client.request(method, server.url(path));
        within(request.bearer_auth(&server.token).send())
            .await
            .unwrap()
    };
    for path in [
        "/livez",
        "/readyz",
        "/health",
        "/version",
        "/metrics",
        "/v1/models",
        "/v1/models/seedling",
    ] {
        let response = send("HEAD", path).await;
        assert_eq!(response.status(), 200, "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let response = send(method, path).await;
            assert_eq!(response.headers()["allow"], "GET,HEAD", "{method} {path}");
            let given = refusal(response).await;
            assert_eq!(given, (405, "method_not_allowed".to_owned(), None));
        }
    }
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let response = send(method, "/v1/chat/completions").await;
        assert_eq!(response.headers()["allow"], "POST");
        let body: Value = within(response.json()).await.unwrap();
        assert_eq!(
            body,
            json!({"error": {
                "message": format!("/v1/chat/completions does not take {method}."),
                "type": "invalid_request_error", "param": null, "code": "method_not_allowed",
            }})
        );
    }
    let body: Value = within(send("GET", "/v1/embeddings").await.json())
        .await
        .unwrap();
    assert_eq!(
        body,
        json!({"error": {
            "message": "Unknown URL: GET /v1/embeddings.", "type": "invalid_request_error", "param": null,
            "code": "unknown_url",
        }})
    );
    unharmed(&server).await;
}
