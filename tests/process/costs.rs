//! What a server costs while nobody asks it anything, and after thousands have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::common::within;
use super::harness::Mixgate;

#[tokio::test]
async fn an_idle_engine_takes_no_processor_time_at_all() {
    let server = Mixgate::serve(&[]);
    let asked = server.chat(&json!({"max_tokens": 20})).await;
    assert_eq!(asked.status(), 200);
    within(asked.bytes()).await.unwrap();
    let readiness = async |times| {
        for _ in 0..times {
            let (status, _) = server.readiness().await;
            assert_eq!(status, 200);
        }
        server.engine_effort()
    };
    // On a busy machine its last step may take its time to end. An engine that looks for work now and then would be
    // seen in every one of these intervals.
    for _ in 0..20 {
        let before = server.engine_effort();
        assert!(before.0 > 0, "it has computed an answer");
        if readiness(300).await == before {
            return;
        }
    }
    panic!("the idle engine is awake: {:?}", server.engine_effort());
}

#[tokio::test]
async fn memory_is_flat_over_thousands_of_streams_with_random_hang_ups() {
    let server = Arc::new(Mixgate::serve(&[
        "--model",
        "null:mixtral-8x7b",
        // So that the prefix cache is full before the first look.
        "--kv-cache-tokens=65536",
    ]));
    // Threads, buffers and tables have their size by then.
    visit(&server, 0..8000).await;
    let before = server.resident_mib();
    visit(&server, 8000..20_000).await;
    server.idle().await;
    let after = server.resident_mib();
    println!("{before} MiB resident after 8,000 streams, {after} MiB after 20,000");
    assert!(after <= before + 3, "{before} MiB grew to {after} MiB");
}

/// Asks for a stream each, sixteen at a time; every third hangs up somewhere.
async fn visit(server: &Arc<Mixgate>, numbers: std::ops::Range<usize>) {
    let next = Arc::new(AtomicUsize::new(numbers.start));
    let visitors = (0..16).map(|_| {
        let (server, next, end) = (server.clone(), next.clone(), numbers.end);
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    break;
                }
                let fields = json!({
                    "model": "mixtral-8x7b", "stream": true, "ignore_eos": true,
                    "max_tokens": 1 + number * 7 % 50, "n": 1 + number % 2,
                    // No two are alike: what anybody keeps of them would add up.
                    "messages": [{"role": "user", "content": question(number)}],
                });
                let mut response = server.chat(&fields).await;
                assert_eq!(response.status(), 200);
                let patience = match number % 3 {
                    0 => number % 5,
                    _ => usize::MAX,
                };
                let mut heard = 0;
                while heard < patience && within(response.chunk()).await.unwrap().is_some() {
                    heard += 1;
                }
            }
        })
    });
    for visitor in visitors.collect::<Vec<_>>() {
        visitor.await.unwrap();
    }
}

/// Forty words of which some are in no other question.
fn question(number: usize) -> String {
    let word = |at: usize| format!("bed{} ", number * 31 + at * at);
    (0..40).map(word).collect()
}
