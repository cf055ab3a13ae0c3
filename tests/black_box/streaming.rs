use std::time::Duration;

use mixgate::server::ServerConfig;
use serde_json::{Value, json};

use super::harness::{House, Plan, REPLY, within};

/// The `data:` documents of a stream, in order; the last is `[DONE]` as a string.
pub async fn events(response: reqwest::Response) -> Vec<Value> {
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
    let text = within(response.text()).await.unwrap();
    let blocks = text
        .split_terminator("\n\n")
        .filter(|block| !block.starts_with(':'));
    blocks
        .map(|block| {
            block
                .strip_prefix("data: ")
                .unwrap_or_else(|| panic!("an odd block: {block:?}"))
        })
        .map(|data| serde_json::from_str(data).unwrap_or(json!(data)))
        .collect()
}

fn text(events: &[Value]) -> String {
    events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect()
}

#[tokio::test]
async fn a_stream_says_what_a_single_body_says() {
    let house = House::open().await;
    // From now on both find the prompt in the cache.
    within(house.chat(json!({})).await.bytes()).await.unwrap();
    for fields in [json!({}), json!({"max_tokens": 4}), json!({"stop": "last"})] {
        let whole: Value = within(house.chat(fields.clone()).await.json())
            .await
            .unwrap();
        let mut streamed = fields;
        streamed["stream"] = json!(true);
        streamed["stream_options"] = json!({"include_usage": true});
        let events = events(house.chat(streamed).await).await;
        let [chunks @ .., usage, done] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(done, "[DONE]");
        assert_eq!(usage["choices"], json!([]));
        assert_eq!(usage["usage"], whole["usage"]);
        assert_eq!(text(chunks), whole["choices"][0]["message"]["content"]);
        assert_eq!(
            chunks.last().unwrap()["choices"][0]["finish_reason"],
            whole["choices"][0]["finish_reason"]
        );
    }
    house.idle().await;
}

#[tokio::test]
async fn the_role_is_in_the_first_chunk_with_text_and_in_no_other() {
    let house = House::open().await;
    let events = events(house.chat(json!({"stream": true})).await).await;
    assert_eq!(
        events[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": "S"})
    );
    let roles = events
        .iter()
        .filter(|event| event["choices"][0]["delta"].get("role").is_some())
        .count();
    let ends = events
        .iter()
        .filter(|event| event["choices"][0]["finish_reason"].is_string())
        .count();
    assert_eq!((roles, ends), (1, 1));
    assert!(
        events.iter().all(|event| event.get("usage").is_none()),
        "usage was not asked for"
    );
    assert_eq!(text(&events), REPLY);
}

#[tokio::test]
async fn characters_are_never_split_between_chunks() {
    let house = House::with(Plan {
        reply: "a🥕é",
        ..Plan::default()
    })
    .await;
    let events = events(house.chat(json!({"stream": true})).await).await;
    let pieces: Vec<_> = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(pieces, ["a", "🥕", "é"]);
}

#[tokio::test]
async fn a_silent_stream_is_kept_open_with_comments() {
    let server = ServerConfig {
        ping_interval: Duration::from_millis(5),
        ..Plan::default().server
    };
    let house = House::with(Plan {
        server,
        ..Plan::default()
    })
    .await;
    house.brake.allow(0);
    let mut response = house.chat(json!({"stream": true})).await;
    for _ in 0..2 {
        assert_eq!(
            within(response.chunk()).await.unwrap().unwrap(),
            ": ping\n\n"
        );
    }
    house.brake.release();
    assert_eq!(events(response).await.last().unwrap(), "[DONE]");
}
