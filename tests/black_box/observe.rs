use serde_json::json;

use super::harness::{House, log_line, logs, within};

async fn metrics(house: &House) -> String {
    within(house.get("/metrics").await.text()).await.unwrap()
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let house = House::open().await;
    assert_eq!(house.chat(json!({"max_tokens": 5})).await.status(), 200);
    within(house.client.get(house.url("/metrics")).send())
        .await
        .unwrap();
    house.idle().await;
    let text = metrics(&house).await;
    for line in [
        r#"vllm:num_requests_running{engine="0",model_name="parrot"} 0"#,
        r#"vllm:num_requests_waiting{engine="0",model_name="parrot"} 0"#,
        r#"vllm:kv_cache_usage_perc{engine="0",model_name="parrot"} 0"#,
        r#"vllm:generation_tokens_total{engine="0",model_name="parrot"} 5"#,
        r#"vllm:request_success_total{engine="0",finished_reason="length",model_name="parrot"} 1"#,
        r#"vllm:time_to_first_token_seconds_count{engine="0",model_name="parrot"} 1"#,
        r#"vllm:inter_token_latency_seconds_count{engine="0",model_name="parrot"} 4"#,
        r#"vllm:e2e_request_latency_seconds_count{engine="0",model_name="parrot"} 1"#,
        r#"vllm:request_generation_tokens_sum{engine="0",model_name="parrot"} 5"#,
        r#"vllm:request_params_max_tokens_sum{engine="0",model_name="parrot"} 5"#,
        r#"vllm:request_params_n_sum{engine="0",model_name="parrot"} 1"#,
        r#"mixgate_sequences_finished_total{engine="0",model_name="parrot",reason="length"} 1"#,
        r#"mixgate_refused_total{reason="queue_full"} 0"#,
        r#"http_requests_total{handler="/v1/chat/completions",method="POST",status="200"} 1"#,
        r#"http_requests_total{handler="none",method="GET",status="401"} 1"#,
        r#"mixgate_denied_total{code="missing_credentials"} 1"#,
    ] {
        assert!(
            text.lines().any(|given| given == line),
            "{line}\nis not in\n{text}"
        );
    }
}

#[tokio::test]
async fn a_request_id_is_echoed_or_made() {
    let house = House::open().await;
    let request = house
        .client
        .get(house.url("/livez"))
        .header("x-request-id", "abc-1");
    assert_eq!(
        within(request.send()).await.unwrap().headers()["x-request-id"],
        "abc-1"
    );
    let made = house.get("/nothing").await.headers()["x-request-id"].clone();
    assert!(made.to_str().unwrap().starts_with("req-"));
}

#[tokio::test]
async fn a_finished_request_leaves_one_log_line_without_its_text_or_its_token() {
    let house = House::open().await;
    let token = house.token();
    let body = super::harness::chat_body(
        json!({"messages": [{"role": "user", "content": "SENTINEL-PROMPT"}]}),
    );
    let request = house
        .client
        .post(house.url("/v1/chat/completions"))
        .bearer_auth(&token);
    let response = within(
        request
            .header("x-request-id", "the-logged-one")
            .json(&body)
            .send(),
    )
    .await
    .unwrap();
    assert_eq!(response.status(), 200);
    within(response.bytes()).await.unwrap();

    let line = log_line(&house, "the-logged-one").await;
    let text = String::from_utf8(logs().lock().unwrap().clone()).unwrap();
    for part in [
        "subject=\"",
        "status=200",
        "cached_tokens=0",
        "completion_tokens=34",
        "finish=\"stop\"",
        "ttft_ms=",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!text.contains("\"ann\""), "subjects are hashed by default");
    // All tests of this binary write here, so this watches them all.
    assert!(!text.contains("SENTINEL-PROMPT"));
    assert!(!text.contains(&token) && !text.contains(token.rsplit('.').next().unwrap()));
}
