use serde_json::{Value, json};

use super::harness::{House, chat_body, error_of, raw_json, refusal, within};

#[tokio::test]
async fn a_body_that_is_no_request_is_a_clear_4xx_and_leaves_nothing_behind() {
    let house = House::open().await;
    for (body, status, code) in [
        (b"".to_vec(), 400, "invalid_json"),
        (b"{".to_vec(), 400, "invalid_json"),
        (b"{} {}".to_vec(), 400, "invalid_json"),
        (
            b"{\"model\":\"parrot\",\"model\":\"parrot\"}".to_vec(),
            400,
            "invalid_json",
        ),
        (b"{\"temperature\":1e999}".to_vec(), 400, "invalid_json"),
        (b"{\"model\":\"\xff\"}".to_vec(), 400, "invalid_utf8"),
        (b"[]".to_vec(), 400, "invalid_type"),
        (b"null".to_vec(), 400, "invalid_type"),
        ("[".repeat(100_000).into_bytes(), 400, "invalid_json"),
    ] {
        let (given_status, given_code, _) = refusal(house.post(body).await).await;
        assert_eq!((given_status, &*given_code), (status, code));
    }
    house.idle().await;
}

#[tokio::test]
async fn a_bad_field_is_named() {
    let house = House::open().await;
    for (fields, code, param) in [
        (json!({"messages": []}), "invalid_value", "messages"),
        (json!({"messages": "hi"}), "invalid_type", "messages"),
        (
            json!({"messages": [{"role": "user", "content": 7}]}),
            "invalid_type",
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "wizard", "content": "x"}]}),
            "invalid_value",
            "messages[0].role",
        ),
        (json!({"temperature": "hot"}), "invalid_type", "temperature"),
        (json!({"temperature": 3}), "invalid_value", "temperature"),
        (
            json!({"logprobs": true}),
            "unsupported_parameter",
            "logprobs",
        ),
        (json!({"tools": [{}]}), "unsupported_parameter", "tools"),
        (json!({"frobnicate": 1}), "unknown_parameter", "frobnicate"),
    ] {
        let response = house.chat(fields).await;
        assert_eq!(
            refusal(response).await,
            (400, code.to_owned(), Some(param.to_owned()))
        );
    }
    house.idle().await;
}

#[tokio::test]
async fn a_prompt_longer_than_the_context_is_400_in_the_words_clients_look_for() {
    let house = House::open().await;
    let response = house
        .chat(json!({"messages": [{"role": "user", "content": "a".repeat(2000)}]}))
        .await;
    assert_eq!(response.status(), 400);
    let body: Value = within(response.json()).await.unwrap();
    assert_eq!(
        error_of(&body),
        (
            "context_length_exceeded".to_owned(),
            Some("messages".to_owned())
        )
    );
    let message = body["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with(
            "This model's maximum context length is 512 tokens. However, you requested 2"
        ),
        "{message}"
    );
    house.idle().await;
}

#[tokio::test]
async fn a_foreign_content_type_is_415() {
    let house = House::open().await;
    let request = house
        .client
        .post(house.url("/v1/chat/completions"))
        .bearer_auth(house.token());
    let response = within(
        request
            .header("content-type", "text/plain")
            .body("{}")
            .send(),
    )
    .await
    .unwrap();
    assert_eq!(
        refusal(response).await,
        (415, "unsupported_media_type".to_owned(), None)
    );
}

#[tokio::test]
async fn ten_megabytes_are_413_even_for_a_client_that_sends_them_all() {
    let house = House::open().await;
    let content = "a".repeat(10 << 20);
    let body = chat_body(json!({"messages": [{"role": "user", "content": content}]}));
    let response = house.post(serde_json::to_vec(&body).unwrap()).await;
    assert_eq!(
        refusal(response).await,
        (413, "request_too_large".to_owned(), None)
    );
    house.idle().await;
}

#[tokio::test]
async fn an_announced_length_over_the_limit_is_413_before_anything_is_read() {
    let house = House::open().await;
    let head = house.raw_head("content-length: 10485760\r\nexpect: 100-continue\r\n\r\n");
    let answer = house.raw(head.as_bytes()).await;
    assert!(answer.contains("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_413() {
    let house = House::open().await;
    let mut bytes = house
        .raw_head("transfer-encoding: chunked\r\nconnection: close\r\n\r\n")
        .into_bytes();
    let chunk = vec![b' '; 1 << 20];
    for _ in 0..5 {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(&chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    let answer = house.raw(&bytes).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_half_sent_body_is_408() {
    let house = House::open().await;
    let half = house.raw_head("content-length: 100\r\n\r\n{\"model\":");
    let answer = house.raw(half.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(error_of(&raw_json(&answer)).0, "request_timeout");
    house.idle().await;
}

#[tokio::test]
async fn a_half_sent_head_is_cut_off() {
    let house = House::open().await;
    for half in [
        &b"POST /v1/chat/comp"[..],
        b"",
        b"PRI * HT",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        // Reading to the end returns only if the server closes.
        house.raw(half).await;
    }
}

#[tokio::test]
async fn a_body_that_ends_early_leaves_nothing_behind() {
    let house = House::open().await;
    for _ in 0..3 {
        let half = house.raw_head("content-length: 100\r\n\r\n{\"model\":");
        let mut socket = tokio::net::TcpStream::connect(house.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut socket, half.as_bytes())
            .await
            .unwrap();
    }
    house.idle().await;
    assert_eq!(house.chat(json!({})).await.status(), 200);
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let house = House::open().await;
    let answer = house
        .raw(
            format!(
                "GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
                "a".repeat(100_000)
            )
            .as_bytes(),
        )
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(),
        "{answer}"
    );
}
