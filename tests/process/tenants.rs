//! That a cached prompt cannot be told by its time from outside its tenant. The null model takes the time that an A100
//! would need, so that a prompt's computation is well above the noise.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::common::within;
use super::harness::{Mixgate, events};

const MODEL: &str = "null:mixtral-8x7b@a100-w4a16";

/// Some 2,000 tokens: 170 ms on an A100.
fn prompt(topic: &str) -> String {
    let sentence = |at: usize| format!("Note {at} on {topic}: the beans need water and the sun. ");
    (0..140).map(sentence).collect()
}

/// Time to the first token, and how many prompt tokens were cached.
async fn ask(server: &Mixgate, token: &str, prompt: &str) -> (Duration, u64) {
    let body = json!({
        "model": "mixtral-8x7b@a100-w4a16", "max_tokens": 2, "ignore_eos": true,
        "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": prompt}],
    });
    let request = server.client.post(server.url("/v1/chat/completions"));
    let request = request.bearer_auth(token).json(&body);
    let asked = Instant::now();
    let mut response = within(request.send()).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut text = within(response.chunk()).await.unwrap().unwrap().to_vec();
    let first = asked.elapsed();
    while let Some(more) = within(response.chunk()).await.unwrap() {
        text.extend_from_slice(&more);
    }
    let events = events(std::str::from_utf8(&text).unwrap());
    let usage = &events[events.len() - 2]["usage"];
    let count = |value: &Value| value.as_u64().unwrap();
    assert!(count(&usage["prompt_tokens"]) > 1500, "{usage}");
    (
        first,
        count(&usage["prompt_tokens_details"]["cached_tokens"]),
    )
}

#[tokio::test]
async fn another_tenants_cached_prompt_takes_as_long_as_a_cold_one() {
    let server = Mixgate::serve(&["--model", MODEL]);
    let other = server.home.token_of("other", "chat");
    let mut cold_times = Vec::new();
    for topic in ["tomatoes", "radishes", "parsnips"] {
        let prompt = prompt(topic);
        let (cold, cached) = ask(&server, &server.token, &prompt).await;
        assert_eq!(cached, 0);
        let (warm, cached) = ask(&server, &server.token, &prompt).await;
        assert!(cached > 1400, "{cached} tokens cached");
        let (theirs, cached) = ask(&server, &other, &prompt).await;
        assert_eq!(cached, 0);
        println!("{topic}: cold {cold:?}, again {warm:?}, another tenant {theirs:?}");
        cold_times.push((cold, warm, theirs));
    }
    // The device's time is a lower bound, so the least of several is close to it on a busy machine too.
    let least = |of: fn(&(Duration, Duration, Duration)) -> Duration| {
        cold_times.iter().map(of).min().unwrap().as_secs_f64()
    };
    let (cold, warm, theirs) = (least(|t| t.0), least(|t| t.1), least(|t| t.2));
    assert!(warm < cold / 3.0, "{warm} s cached, {cold} s cold");
    assert!(
        (theirs / cold - 1.0).abs() < 0.1,
        "{theirs} s, {cold} s cold"
    );
}
