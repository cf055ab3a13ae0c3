//! How requests end against their caller's will, and that every token is told to the meter, however they end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mixgate::auth::{Identity, Meter, Revocation, ShareConfig, TokensUsed};
use mixgate::engine::EngineConfig;
use serde_json::{Value, json};

use super::harness::{House, Plan, error_of, log_line, refusal, within};
use super::streaming::events;

/// Writes down what it hears.
#[derive(Debug, Default)]
struct Ledger {
    admitted: Mutex<Vec<Revocation>>,
    used: Mutex<Vec<TokensUsed>>,
}

impl Meter for Ledger {
    fn admitted(&self, identity: &Identity, revocation: Revocation) {
        assert_eq!(identity.subject(), "ann");
        self.admitted.lock().unwrap().push(revocation);
    }

    fn used(&self, identity: &Identity, tokens: TokensUsed) {
        assert_eq!(identity.subject(), "ann");
        self.used.lock().unwrap().push(tokens);
    }
}

impl Ledger {
    fn revoke_all(&self) {
        for revocation in self.admitted.lock().unwrap().iter() {
            revocation.revoke();
        }
    }

    fn sum(&self) -> TokensUsed {
        let add = |sum: TokensUsed, used: &TokensUsed| TokensUsed {
            prompt: sum.prompt + used.prompt,
            cached: sum.cached + used.cached,
            completion: sum.completion + used.completion,
        };
        let used = self.used.lock().unwrap();
        used.iter().fold(TokensUsed::default(), add)
    }
}

/// A house where a request that ignores the end of sequence would run for a minute.
async fn slow_house(shares: Vec<ShareConfig>) -> (House, Arc<Ledger>) {
    let ledger = Arc::<Ledger>::default();
    let engine = EngineConfig {
        max_waiting: 64,
        ..Plan::default().engine
    };
    let house = House::with(Plan {
        pace: Duration::from_millis(1),
        max_model_len: 60_000,
        engine,
        shares,
        meter: Some(ledger.clone()),
        ..Plan::default()
    })
    .await;
    (house, ledger)
}

fn a_second_for_all() -> Vec<ShareConfig> {
    vec![ShareConfig {
        max_request_seconds: Some(1),
        ..ShareConfig::default()
    }]
}

/// What was told adds up to what the engine counted, and each sequence was told once.
fn assert_books_agree(house: &House, ledger: &Ledger, sequences: usize) {
    let (stats, sum) = (house.engine.stats(), ledger.sum());
    assert_eq!(ledger.used.lock().unwrap().len(), sequences);
    assert_eq!(stats.finished_total.iter().sum::<u64>(), sequences as u64);
    assert_eq!(sum.prompt as u64, stats.prompt_tokens_total);
    assert_eq!(sum.cached as u64, stats.prefix_hits_total);
    assert_eq!(sum.completion as u64, stats.generation_tokens_total);
}

#[tokio::test]
async fn a_request_over_its_time_is_504_and_not_to_be_sent_again() {
    let (house, ledger) = slow_house(a_second_for_all()).await;
    let response = house.chat(json!({"ignore_eos": true})).await;
    assert_eq!(response.headers()["x-should-retry"], "false");
    assert!(!response.headers().contains_key("retry-after"));
    let refused = refusal(response).await;
    assert_eq!(refused, (504, "deadline_exceeded".to_owned(), None));
    house.idle().await;
    assert_eq!(house.engine.stats().finished_total, [0, 0, 0, 0, 1, 0, 0]);
    assert_books_agree(&house, &ledger, 1);
}

#[tokio::test]
async fn a_stream_over_its_time_ends_with_an_error_event() {
    let (house, ledger) = slow_house(a_second_for_all()).await;
    let request = house
        .chat_request(json!({"stream": true, "ignore_eos": true, "n": 2}))
        .header("x-request-id", "late-stream");
    let events = events(within(request.send()).await.unwrap()).await;
    let [.., before, last] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(error_of(last), ("deadline_exceeded".to_owned(), None));
    let message = last["error"]["message"].as_str().unwrap();
    assert!(message.contains("within the 1 second"), "{message}");
    assert!(before["choices"][0]["delta"]["content"].is_string());
    let ends = |event: &&Value| event["choices"][0]["finish_reason"].is_string();
    assert_eq!(events.iter().filter(ends).count(), 0);
    house.idle().await;
    assert_books_agree(&house, &ledger, 2);
    let line = log_line(&house, "late-stream").await;
    assert!(line.contains("finish=\"deadline_exceeded\""), "{line}");
    assert!(line.contains("status=504"), "{line}");
}

#[tokio::test]
async fn shares_are_the_verified_identity_s_whatever_the_request_says() {
    let shares = vec![ShareConfig {
        subject: Some("ann".to_owned()),
        max_request_seconds: Some(1),
        ..ShareConfig::default()
    }];
    let house = House::with(Plan {
        pace: Duration::from_millis(1),
        max_model_len: 60_000,
        shares,
        ..Plan::default()
    })
    .await;
    let fields = json!({"ignore_eos": true, "max_tokens": 1500, "user": "bob"});
    let bob = house.token_of("bob", None);
    let bobs = tokio::spawn(house.chat_request_as(&bob, fields.clone()).send());
    let anns = house
        .chat_request(fields)
        .header("x-vllm-priority", "100")
        .header("x-request-timeout", "600");
    let anns = within(anns.send()).await.unwrap();
    assert_eq!(refusal(anns).await.0, 504);
    assert_eq!(within(bobs).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_revoked_request_is_403_if_nothing_was_sent_yet() {
    let (house, ledger) = slow_house(Vec::new()).await;
    let request = tokio::spawn(house.chat_request(json!({"ignore_eos": true})).send());
    house
        .eventually("a running request", || house.engine.stats().running == 1)
        .await;
    ledger.revoke_all();
    let response = within(request).await.unwrap().unwrap();
    let challenge = response.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    let refused = refusal(response).await;
    assert_eq!(refused, (403, "access_revoked".to_owned(), None));
    house.idle().await;
    assert_eq!(house.engine.stats().finished_total, [0, 0, 0, 0, 0, 1, 0]);
    // Another permit of the same caller is another matter.
    assert_eq!(house.chat(json!({"max_tokens": 1})).await.status(), 200);
}

#[tokio::test]
async fn a_revoked_stream_ends_with_an_error_event() {
    let (house, ledger) = slow_house(Vec::new()).await;
    let fields = json!({"stream": true, "ignore_eos": true});
    let mut stream = house.chat(fields).await;
    assert!(within(stream.chunk()).await.unwrap().is_some());
    ledger.revoke_all();
    let events = events(stream).await;
    let code = error_of(events.last().unwrap()).0;
    assert_eq!(code, "access_revoked");
    house.idle().await;
    assert_books_agree(&house, &ledger, 1);
}

#[tokio::test]
async fn every_token_of_streams_killed_anywhere_is_told_to_the_meter_once() {
    let (house, ledger) = slow_house(Vec::new()).await;
    let mut dice = 7u64;
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (dice >> 33) % sides
    };
    let (mut streams, mut sequences) = (Vec::new(), 0);
    for _ in 0..24 {
        let n = 1 + roll(3);
        let fields = match roll(3) {
            0 => json!({"stream": true, "n": n, "ignore_eos": true}),
            1 => json!({"stream": true, "n": n, "max_tokens": 5 + roll(30)}),
            _ => json!({"stream": true, "n": n, "stop": "last"}),
        };
        let request = house.chat_request(fields).send();
        let chunks = 1 + roll(60);
        sequences += n as usize;
        streams.push(tokio::spawn(async move {
            let mut stream = request.await.unwrap();
            assert_eq!(stream.status(), 200);
            for _ in 0..chunks {
                if stream.chunk().await.unwrap().is_none() {
                    break;
                }
            }
        }));
        // Not all at once: some are to wait, others to run while the next one comes.
        while streams.len() > 5 {
            within(streams.remove(0)).await.unwrap();
        }
    }
    for stream in streams {
        within(stream).await.unwrap();
    }
    house.idle().await;
    assert_books_agree(&house, &ledger, sequences);
    let ended = house.engine.stats().finished_total;
    assert!(ended[..3].iter().all(|&ends| ends > 0), "{ended:?}");
}
