//! The null model in an engine: its tokens do not depend on company, its time is the roofline's.

use std::time::Duration;

use super::pace::ManualPace;
use super::*;
use crate::auth::Permit;
use crate::engine::fake::{arrival, config, request};
use crate::engine::scheduler::Scheduler;
use crate::engine::{Engine, EngineConfig, Event, Request, StopConditions};

const CARD: &str = "mixtral-8x7b@a100-w4a16";
const EOS: TokenId = 2;
const WORDS: std::ops::Range<TokenId> = 10..90;

fn engine(name: &str, num_blocks: usize, config: EngineConfig, pace: &ManualPace) -> Engine {
    let capacity = Capacity {
        vocab_size: 100,
        max_model_len: 32_768,
        num_blocks,
        block_size: 4,
    };
    let name = NullName::parse(name).unwrap();
    let model = NullModel::new(name, capacity, WORDS.collect(), pace.clone());
    Engine::start(model, config, vec![EOS])
}

/// The tokens of requests that are submitted together: where steps take time, none ends before all are there.
async fn tokens_of(engine: &Engine, pace: &ManualPace, requests: &[Request]) -> Vec<Vec<TokenId>> {
    let permit = || Permit::for_tests("somebody");
    let stopped = pace.stop();
    let generations: Vec<_> = requests
        .iter()
        .map(|request| engine.submit(permit(), request.clone()).unwrap())
        .collect();
    drop(stopped);
    let mut all = Vec::new();
    for mut generation in generations {
        let mut tokens = Vec::new();
        while let Some(event) = generation.next().await {
            match event {
                Event::Token { id, .. } => tokens.push(id),
                Event::Finished { .. } => {}
                Event::Failed(error) => panic!("{error}"),
            }
        }
        all.push(tokens);
    }
    all
}

fn prompts(count: u32, length: u32) -> Vec<Request> {
    let prompt = |i: u32| (0..length).map(|at| 10 + (7 * i + at * at) % 80).collect();
    (0..count)
        .map(|i| {
            let prompt: Vec<TokenId> = prompt(i);
            request(&prompt, 24)
        })
        .collect()
}

#[tokio::test]
async fn tokens_are_the_same_alone_batched_chunked_and_preempted() {
    let requests = prompts(12, 30);
    let pace = ManualPace::default();
    let roomy = engine("mixtral-8x7b", 10_000, config(4096, 64), &pace);
    let mut alone = Vec::new();
    for request in &requests {
        alone.extend(tokens_of(&roomy, &pace, std::slice::from_ref(request)).await);
    }
    assert_eq!(roomy.stats().preemptions_total, 0);
    assert_eq!(pace.now(), Duration::ZERO, "without a card no time passes");
    let roomy = engine(CARD, 10_000, config(4096, 64), &pace);
    let batched = tokens_of(&roomy, &pace, &requests).await;
    let chunked = engine(CARD, 10_000, config(7, 64), &pace);
    let chunked = tokens_of(&chunked, &pace, &requests).await;
    // Three of twelve fit at their full length.
    let tight = engine(CARD, 42, config(64, 64), &pace);
    let preempted = tokens_of(&tight, &pace, &requests).await;
    assert!(tight.stats().preemptions_total > 0);
    assert_eq!(alone, batched);
    assert_eq!(alone, chunked);
    assert_eq!(alone, preempted);
    assert!(alone.iter().all(|tokens| tokens.len() == 24));
    assert!(alone.iter().flatten().all(|id| WORDS.contains(id)));
    for (at, tokens) in alone.iter().enumerate() {
        assert!(
            !alone[..at].contains(tokens),
            "different prompts, one answer"
        );
    }
}

#[tokio::test]
async fn a_stop_id_is_not_said_before_the_least_length() {
    let pace = ManualPace::default();
    let engine = engine("mixtral-8x7b", 1000, config(512, 8), &pace);
    let mut request = prompts(1, 9).remove(0);
    let free = tokens_of(&engine, &pace, std::slice::from_ref(&request))
        .await
        .remove(0);
    request.until = StopConditions {
        min_tokens: 10,
        stop_token_ids: free.clone(),
        ..request.until
    };
    let bound = tokens_of(&engine, &pace, &[request]).await.remove(0);
    assert!(bound.len() >= 10, "{bound:?}");
    assert!(bound[..10].iter().all(|id| !free.contains(id)));
}

#[tokio::test]
async fn a_run_takes_the_time_that_the_roofline_gives_its_steps() {
    let pace = ManualPace::default();
    let engine = engine(CARD, 10_000, config(2048, 64), &pace);
    let prompt: Vec<TokenId> = (0..1024).map(|at| 10 + at % 80).collect();
    tokens_of(&engine, &pace, &[request(&prompt, 129)]).await;
    // The prompt is bound by arithmetic: 84 ms. Then 128 steps of 7.0 GB at 1.935 TB/s: 3.61 ms each.
    let seconds = pace.now().as_secs_f64();
    assert!(
        (seconds / (0.084 + 128.0 * 0.00361) - 1.0).abs() < 0.02,
        "{seconds}"
    );
}

/// What one step takes, alone and as the sum of several.
#[test]
fn a_step_begun_in_time_follows_at_once_and_one_begun_late_leaves_the_device_idle() {
    let pace = ManualPace::default();
    let capacity = Capacity {
        vocab_size: 100,
        max_model_len: 4096,
        num_blocks: 100,
        block_size: 4,
    };
    let name = NullName::parse(CARD).unwrap();
    let mut model = NullModel::new(name, capacity, WORDS.collect(), pace.clone());
    let mut scheduler = Scheduler::new(capacity, &config(64, 4), [].into());
    scheduler.add(arrival(0, request(&[5; 9], 50), "somebody"));
    let mut plan = StepPlan::default();
    let mut start = |model: &mut NullModel<ManualPace>, before: Option<Vec<TokenId>>| {
        let running = plan.clone();
        scheduler.plan(Duration::ZERO, &mut plan);
        model.start(&plan, scheduler.sequences()).unwrap();
        if let Some(sampled) = before {
            scheduler.commit(&running, &sampled, &mut Vec::new());
        }
        scheduler.begin(&plan);
    };
    start(&mut model, None);
    let first = model.finish().unwrap();
    let ends = pace.now();
    // The host takes its time.
    pace.advance(Duration::from_micros(70));
    start(&mut model, Some(first));
    let second = model.last.clone();
    pace.advance(Duration::from_micros(20));
    start(&mut model, Some(second.clone()));
    assert_eq!(model.finish().unwrap(), second);
    assert_eq!(model.idled(), Some(Duration::from_micros(70)));
    model.finish().unwrap();
    assert_eq!(model.idled(), Some(Duration::ZERO));
    let step = (pace.now() - ends - Duration::from_micros(70)) / 2;
    assert!(
        (step.as_secs_f64() / 0.00356 - 1.0).abs() < 0.02,
        "{step:?}"
    );
}

#[test]
fn a_late_step_is_not_made_up_for() {
    let pace = ManualPace::default();
    let mut waiting = pace.clone();
    waiting.wait_until(Duration::from_millis(5));
    pace.advance(Duration::from_millis(7));
    waiting.wait_until(Duration::from_millis(10));
    assert_eq!(pace.now(), Duration::from_millis(12));
}

#[test]
fn a_real_wait_never_ends_early() {
    let mut pace = RealPace::default();
    for micros in [0, 20, 300, 1500] {
        let deadline = pace.now() + Duration::from_micros(micros);
        pace.wait_until(deadline);
        assert!(pace.now() >= deadline);
    }
}
