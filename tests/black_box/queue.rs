//! Who is refused while others wait, and in which order refusals come.

use mixgate::engine::EngineConfig;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::harness::{House, Plan, refusal, within};

type Waiting = JoinHandle<reqwest::Result<reqwest::Response>>;

/// A house in which one request runs, held by the brake, and one of the same caller waits.
async fn busy(engine: EngineConfig) -> (House, [Waiting; 2]) {
    let engine = EngineConfig {
        max_num_batched_tokens: 64,
        max_num_seqs: 1,
        ..engine
    };
    let house = House::with(Plan {
        engine,
        ..Plan::default()
    })
    .await;
    house.brake.allow(1);
    let asked = json!({"max_tokens": 40});
    let first = tokio::spawn(house.chat_request(asked.clone()).send());
    house
        .eventually("the first request runs", || {
            house.engine.stats().running == 1
        })
        .await;
    let second = tokio::spawn(house.chat_request(asked).send());
    house
        .eventually("the second request waits", || {
            house.engine.stats().waiting == 1
        })
        .await;
    (house, [first, second])
}

async fn all_answered(house: &House, waiting: impl IntoIterator<Item = Waiting>) {
    house.brake.release();
    for request in waiting {
        assert_eq!(within(request).await.unwrap().unwrap().status(), 200);
    }
    house.idle().await;
}

async fn is_counted(house: &House, reason: &str) {
    let text = within(house.get("/metrics").await.text()).await.unwrap();
    let line = format!("mixgate_refused_total{{reason=\"{reason}\"}} 1");
    assert!(text.lines().any(|given| given == line), "{line}\n{text}");
}

fn one_waits() -> EngineConfig {
    EngineConfig {
        max_waiting: 1,
        ..EngineConfig::default()
    }
}

#[tokio::test]
async fn a_full_queue_is_503_with_a_time_to_come_back() {
    let (house, waiting) = busy(one_waits()).await;
    let third = house.chat(json!({})).await;
    let header = |name| third.headers()[name].to_str().unwrap().to_owned();
    let (seconds, millis) = (header("retry-after"), header("retry-after-ms"));
    let millis: u64 = millis.parse().unwrap();
    assert_eq!(seconds.parse::<u64>().unwrap(), millis.div_ceil(1000));
    assert!((50..=120_000).contains(&millis), "{millis}");
    let body: Value = within(third.json()).await.unwrap();
    let message =
        format!("The server is full: at most 1 completions may wait. Try again in {seconds} s.");
    assert_eq!(
        body["error"],
        json!({"message": message, "type": "server_error", "param": null, "code": "overloaded"})
    );
    is_counted(&house, "queue_full").await;
    all_answered(&house, waiting).await;
}

#[tokio::test]
async fn reserved_tokens_fill_the_queue_too() {
    let engine = EngineConfig {
        max_waiting_tokens: 100,
        // One caller may have all of it.
        max_waiting_per_subject: EngineConfig::default().max_waiting,
        ..EngineConfig::default()
    };
    let (house, waiting) = busy(engine).await;
    let large = house.chat(json!({"max_tokens": 90})).await;
    assert!(large.headers().contains_key("retry-after-ms"));
    assert_eq!(refusal(large).await, (503, "overloaded".to_owned(), None));
    is_counted(&house, "queue_tokens").await;
    all_answered(&house, waiting).await;
}

#[tokio::test]
async fn a_full_share_of_the_reserved_tokens_is_429() {
    let engine = EngineConfig {
        max_waiting_tokens: 100,
        ..EngineConfig::default()
    };
    let (house, waiting) = busy(engine).await;
    let large = house.chat(json!({"max_tokens": 90})).await;
    let code = "rate_limit_exceeded".to_owned();
    assert_eq!(refusal(large).await, (429, code, None));
    is_counted(&house, "over_share").await;
    all_answered(&house, waiting).await;
}

#[tokio::test]
async fn a_full_share_of_the_queue_is_429_and_leaves_room_for_others() {
    let engine = EngineConfig {
        max_waiting_per_subject: 1,
        ..EngineConfig::default()
    };
    let (house, waiting) = busy(engine).await;
    let third = house.chat(json!({})).await;
    assert_eq!(third.status(), 429);
    assert!(third.headers().contains_key("retry-after"));
    assert!(third.headers().contains_key("retry-after-ms"));
    let body: Value = within(third.json()).await.unwrap();
    let error = &body["error"];
    assert_eq!(error["type"], "rate_limit_error");
    assert_eq!(error["code"], "rate_limit_exceeded");
    is_counted(&house, "over_share").await;

    let bob = house.token_of("bob", None);
    let fourth = tokio::spawn(house.chat_request_as(&bob, json!({})).send());
    house
        .eventually("another subject waits", || {
            house.engine.stats().waiting == 2
        })
        .await;
    all_answered(&house, waiting.into_iter().chain([fourth])).await;
}

#[tokio::test]
async fn an_overloaded_server_makes_no_prompts() {
    let (house, waiting) = busy(one_waits()).await;
    // Making a prompt of it would find the fault.
    let unspeakable = json!({"messages": [{"role": "wizard", "content": "x"}]});
    assert_eq!(refusal(house.chat(unspeakable.clone()).await).await.0, 503);
    all_answered(&house, waiting).await;
    assert_eq!(refusal(house.chat(unspeakable).await).await.0, 400);
}

#[tokio::test]
async fn what_can_never_fit_is_400_even_while_the_queue_is_full() {
    let (house, waiting) = busy(one_waits()).await;
    let never = json!({"max_tokens": 513});
    let response = house.chat(never.clone()).await;
    let body: Value = within(response.json()).await.unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    let sentence = "This model's maximum context length is 512 tokens. However, you requested ";
    let about = message.strip_prefix(sentence).unwrap();
    assert!(about.starts_with("at least 51"), "{about}");
    all_answered(&house, waiting).await;

    // With time for it, the numbers are exact.
    let fits: Value = within(house.chat(json!({"max_tokens": 1})).await.json())
        .await
        .unwrap();
    let prompt = fits["usage"]["prompt_tokens"].as_u64().unwrap();
    let response = house.chat(never).await;
    assert_eq!(response.status(), 400);
    let body: Value = within(response.json()).await.unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    assert_eq!(
        message,
        format!(
            "{sentence}{} tokens ({prompt} in the messages, 513 in the completion). Please reduce the length of the \
             messages or completion.",
            prompt + 513
        )
    );
}
