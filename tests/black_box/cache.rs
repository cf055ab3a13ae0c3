//! Who shares computed beginnings of prompts with whom, as usage tells it.

use mixgate::engine::EngineConfig;
use serde_json::{Value, json};

use super::harness::{House, Plan, REPLY, within};
use super::streaming::events;

/// Tokens of a block of the house's cache.
const BLOCK: u64 = 16;

/// (prompt tokens, cached tokens) of an answer to whoever has this token.
async fn used(house: &House, token: &str, fields: Value) -> (u64, u64) {
    let response = within(house.chat_request_as(token, fields).send()).await;
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    let body: Value = within(response.json()).await.unwrap();
    counted(&body)
}

fn counted(body: &Value) -> (u64, u64) {
    let usage = &body["usage"];
    (
        usage["prompt_tokens"].as_u64().unwrap(),
        usage["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap(),
    )
}

/// Whole blocks before the last token, whose logits are wanted: what a prompt that was seen before need not compute.
fn again(prompt: u64) -> u64 {
    (prompt - 1) / BLOCK * BLOCK
}

#[tokio::test]
async fn the_second_turn_of_a_chat_finds_the_first_in_the_cache() {
    let house = House::open().await;
    let ann = house.token();
    let question = json!({"role": "user", "content": "When do I sow carrots?"});
    let (first, cached) = used(&house, &ann, json!({"messages": [question]})).await;
    assert_eq!(cached, 0);
    let talk = json!({"messages": [question, {"role": "assistant", "content": REPLY}, {"role": "user", "content": "And beans?"}]});
    let (second, cached) = used(&house, &ann, talk).await;
    assert!(first > 2 * BLOCK && second > first + REPLY.len() as u64);
    assert_eq!(cached, first / BLOCK * BLOCK);
    house.idle().await;
}

#[tokio::test]
async fn streams_and_single_bodies_count_cached_tokens_once_for_all_completions() {
    let house = House::open().await;
    let ann = house.token();
    let (prompt, _) = used(&house, &ann, json!({})).await;
    assert_eq!(
        used(&house, &ann, json!({"n": 3})).await,
        (prompt, again(prompt))
    );
    let fields = json!({"n": 3, "stream": true, "stream_options": {"include_usage": true}});
    let events = events(house.chat(fields).await).await;
    let usage = &events[events.len() - 2];
    assert_eq!(counted(usage), (prompt, again(prompt)));
    let stats = house.engine.stats();
    assert_eq!(stats.prefix_hits_total, 2 * again(prompt));
}

#[tokio::test]
async fn members_of_a_tenant_share_and_nobody_else_does() {
    let house = House::open().await;
    let [ann, bob] = ["ann", "bob"].map(|member| house.token_of(member, Some("acme")));
    let eve = house.token_of("eve", Some("evil"));
    let alone = house.token_of("ann", None);
    let (prompt, cached) = used(&house, &ann, json!({})).await;
    assert_eq!(cached, 0);
    assert_eq!(used(&house, &bob, json!({})).await.1, again(prompt));
    assert_eq!(used(&house, &eve, json!({})).await.1, 0);
    assert_eq!(
        used(&house, &alone, json!({})).await.1,
        0,
        "a subject without a tenant is one by itself"
    );
}

#[tokio::test]
async fn a_salt_narrows_and_never_widens() {
    let house = House::open().await;
    let (ann, eve) = (house.token(), house.token_of("eve", None));
    let salted = |salt: &str| json!({"cache_salt": salt});
    let (prompt, _) = used(&house, &ann, json!({})).await;
    assert_eq!(used(&house, &ann, salted("a")).await.1, 0);
    assert_eq!(used(&house, &ann, salted("a")).await.1, again(prompt));
    assert_eq!(used(&house, &ann, salted("b")).await.1, 0);
    assert_eq!(used(&house, &ann, json!({})).await.1, again(prompt));
    assert_eq!(used(&house, &eve, salted("a")).await.1, 0);
}

#[tokio::test]
async fn without_prefix_caching_nothing_is_found() {
    let engine = EngineConfig {
        prefix_caching: false,
        ..Plan::default().engine
    };
    let house = House::with(Plan {
        engine,
        ..Plan::default()
    })
    .await;
    for _ in 0..2 {
        assert_eq!(used(&house, &house.token(), json!({})).await.1, 0);
    }
}
