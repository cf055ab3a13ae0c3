//! Memory over a hundred thousand requests, many of them abandoned: what the engine keeps must not grow with what it
//! has done. In a process of its own, because other tests' memory would be counted too.

#![allow(clippy::unwrap_used)] // Outside of test functions clippy does not know that this is all test.

#[path = "common/callers.rs"]
mod callers;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mixgate::engine::null::{NullModel, NullName, RealPace};
use mixgate::engine::philox::RandomStream;
use mixgate::engine::{
    Capacity, Engine, EngineConfig, Event, Request, SamplingParams, StopConditions, TokenId,
};

use callers::Callers;

/// A small cache, so that eviction and preemption happen all the time.
const CAPACITY: Capacity = Capacity {
    vocab_size: 1000,
    max_model_len: 256,
    num_blocks: 120,
    block_size: 16,
};
const TASKS: usize = 16;
const WARM_UP: usize = 20_000;
const REQUESTS: usize = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_flat_over_a_hundred_thousand_requests_with_random_cancels() {
    let name = NullName::parse("mixtral-8x7b").unwrap();
    let model = NullModel::new(name, CAPACITY, (3..999).collect(), RealPace::default());
    let config = EngineConfig {
        max_num_seqs: 32,
        ..EngineConfig::default()
    };
    let engine = Engine::start(model, config, vec![2]);
    let callers = Arc::new(Callers::new(&["ann", "bob", "cleo", "dan", "eve"]));

    run(&engine, &callers, WARM_UP, 1).await;
    let before = resident_kib();
    run(&engine, &callers, REQUESTS, 2).await;
    let after = resident_kib();
    println!("{before} KiB resident after {WARM_UP} requests, {after} KiB after {REQUESTS} more");
    assert!(
        after < before + MOST_GROWTH_KIB,
        "{before} KiB grew to {after} KiB"
    );

    engine.shutdown();
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting), (0, 0));
    assert_eq!((stats.kv_blocks_used, stats.waiting_tokens), (0, 0));
    assert_eq!(stats.subjects, 0);
    assert!(
        stats.preemptions_total > 0 && stats.prefix_hits_total > 0,
        "{stats:?}"
    );
    assert!(stats.prefix_evictions_total > 0);
    let [_stop, length, cancelled, aborted, late, revoked, spent] = stats.finished_total;
    assert!(length > 0 && cancelled > 0);
    assert_eq!((aborted, late, revoked, spent), (0, 0, 0, 0));
}

/// 10 bytes per request would show.
const MOST_GROWTH_KIB: u64 = 1 << 10;

/// Sends `count` requests, `TASKS` at a time.
async fn run(engine: &Engine, callers: &Arc<Callers>, count: usize, seed: u64) {
    let next = Arc::new(AtomicUsize::new(0));
    let visitors = (0..TASKS).map(|_| {
        let (engine, callers, next) = (engine.clone(), callers.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    break;
                }
                visit(&engine, &callers, number, seed).await;
            }
        })
    });
    for visitor in visitors.collect::<Vec<_>>() {
        visitor.await.unwrap();
    }
}

/// One request, which every third caller abandons somewhere on its way.
async fn visit(engine: &Engine, callers: &Callers, number: usize, seed: u64) {
    let random = RandomStream::new(seed, number as u32);
    let below = |at: usize, end: usize| (random.uniform(at) * end as f64) as usize;
    let request = Request {
        prompt: prompt(below(0, 8), below(1, 150)),
        n: 1 + below(2, 3) as u32,
        sampling: SamplingParams::default(),
        until: StopConditions {
            max_tokens: 1 + below(3, 60),
            min_tokens: 0,
            stop_token_ids: Vec::new(),
            ignore_eos: true,
        },
        cache_salt: None,
    };
    let mut generation = engine.submit(callers.permit(below(4, 5)), request).unwrap();
    let patience = match below(5, 3) {
        0 => below(6, 40),
        _ => usize::MAX,
    };
    let mut heard = 0;
    while heard < patience {
        match generation.next().await {
            Some(Event::Failed(error)) => panic!("{error}"),
            Some(_) => heard += 1,
            None => break,
        }
    }
}

/// One of a few stems, cut somewhere: others have computed part of it.
fn prompt(stem: usize, len: usize) -> Arc<[TokenId]> {
    (0..=len)
        .map(|at| (stem * 100 + at % 97) as TokenId)
        .collect()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}
