//! What the scheduler costs: a step's plan and commit by running sequences and context, admission with and without a
//! prefix hit, and what an arrival costs its caller.
//!
//! `cargo bench --bench scheduler`. There is no model: every sequence is given the next token of a fixed stream.
//! Nobody ends, and each sequence fills a block, names it and takes another every 16 steps.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mixgate::auth::{IdentityKey, Priority};
use mixgate::engine::scheduler::{Outcome, Scheduler, StepPlan};
use mixgate::engine::sequence::{Arrival, SequenceId, Standing};
use mixgate::engine::{
    Capacity, EngineConfig, FinishReason, Request, SamplingParams, StopConditions, TokenId,
};

/// Tokens per block.
const BLOCK: usize = 16;
/// Steps measured before the scheduler is set back, so that contexts stay what the row says.
const STEPS: u64 = 256;

fn step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan+commit");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(20);
    for context in [1024, 8192] {
        for seqs in [1, 64, 256, 1024] {
            let decoding = decoding(seqs, context);
            group.throughput(Throughput::Elements(seqs as u64));
            group.bench_function(
                BenchmarkId::new(format!("{}k", context / 1024), seqs),
                |bencher| bencher.iter_custom(|steps| time(&decoding, steps)),
            );
        }
    }
    group.finish();
}

fn admission(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("admission");
    group.sample_size(50);
    for context in [1024, 8192] {
        let cold = scheduler(1, context);
        let mut warm = cold.clone();
        warm.add(arrival(0, context, 0));
        run(&mut warm, 1);
        let id = SequenceId {
            request: 0,
            index: 0,
        };
        warm.end(id, FinishReason::Cancelled);
        for (name, mut scheduler) in [("cold", cold), ("hit", warm)] {
            scheduler.add(arrival(1, context, 0));
            let row = BenchmarkId::new(name, format!("{}k", context / 1024));
            group.bench_function(row, |bencher| {
                let fresh = || (scheduler.clone(), StepPlan::default());
                let plan = |(mut scheduler, mut plan): (Scheduler, StepPlan)| {
                    scheduler.plan(Duration::ZERO, &mut plan);
                    (scheduler, plan)
                };
                bencher.iter_batched(fresh, plan, BatchSize::LargeInput);
            });
        }
    }
    group.finish();
}

/// The caller's thread names the prompt's blocks: a SHA-256 for each.
fn arrive(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("arrival");
    for context in [1024, 8192] {
        let request = request(context, 0);
        let standing = standing(0);
        group.throughput(Throughput::Elements(context as u64));
        let row = BenchmarkId::from_parameter(format!("{}k", context / 1024));
        group.bench_function(row, |bencher| {
            bencher.iter(|| {
                let request = black_box(&request).clone();
                Arrival::new(0, request, standing, BLOCK, &[], 0)
            });
        });
    }
    group.finish();
}

/// How long `steps` steps take, a few hundred from each time that the scheduler is set back.
fn time(decoding: &Scheduler, steps: u64) -> Duration {
    let mut took = Duration::ZERO;
    let mut left = steps;
    while left > 0 {
        let mut scheduler = decoding.clone();
        // A clone has no spare memory: its first tokens and blocks would pay for that.
        run(&mut scheduler, 2 * BLOCK as u64);
        let steps = left.min(STEPS);
        took += run(&mut scheduler, steps);
        left -= steps;
    }
    took
}

fn run(scheduler: &mut Scheduler, steps: u64) -> Duration {
    let mut plan = StepPlan::default();
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut sampled: Vec<TokenId> = Vec::new();
    let start = Instant::now();
    for step in 0..steps {
        scheduler.plan(Duration::ZERO, &mut plan);
        sampled.clear();
        sampled.resize(plan.num_due(), step as TokenId);
        scheduler.begin(black_box(&plan));
        scheduler.commit(black_box(&plan), &sampled, &mut outcomes);
        black_box(&outcomes);
    }
    start.elapsed()
}

/// A scheduler whose `seqs` sequences have computed prompts of `context` tokens and decode.
fn decoding(seqs: usize, context: usize) -> Scheduler {
    let mut scheduler = scheduler(seqs, context);
    for number in 0..seqs as u64 {
        scheduler.add(arrival(number, context, number));
        run(&mut scheduler, 1);
    }
    scheduler
}

/// Room for `seqs` sequences of `context` tokens that go on for as long as is measured.
fn scheduler(seqs: usize, context: usize) -> Scheduler {
    let longest = context + 2 * STEPS as usize + 2 * seqs;
    let capacity = Capacity {
        vocab_size: 32_000,
        max_model_len: 1 << 20,
        num_blocks: (seqs + 1) * longest.div_ceil(BLOCK),
        block_size: BLOCK,
    };
    let config = EngineConfig {
        max_num_batched_tokens: context + seqs,
        max_prefill_tokens: context,
        max_num_seqs: seqs,
        ..EngineConfig::default()
    };
    Scheduler::new(capacity, &config, Arc::default())
}

fn arrival(number: u64, context: usize, text: u64) -> Arrival {
    let request = request(context, text);
    Arrival::new(number, request, standing(number), BLOCK, &[], 0)
}

fn request(context: usize, text: u64) -> Request {
    let token = |at: usize| ((text as usize * 7919 + at * 104_729 + 17) % 32_000) as TokenId;
    Request {
        prompt: (0..context).map(token).collect(),
        n: 1,
        sampling: SamplingParams::default(),
        until: StopConditions {
            max_tokens: usize::MAX,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
            ignore_eos: true,
        },
        cache_salt: None,
    }
}

/// Sixteen subjects of one tenant.
fn standing(number: u64) -> Standing {
    Standing {
        subject: IdentityKey::of(&["subject", &(number % 16).to_string()]),
        tenant: IdentityKey::of(&["tenant"]),
        weight: NonZeroU32::MIN,
        priority: Priority::Normal,
        arrived: Duration::ZERO,
    }
}

criterion_group!(benches, step, admission, arrive);
criterion_main!(benches);
