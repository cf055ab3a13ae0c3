mod admission;
mod budgets;
mod ends;
mod failures;
mod prefix;

use futures_util::FutureExt;

use super::*;
use crate::auth::Permit;
use crate::clock::{ManualUptime, Uptime};
use crate::engine::fake::{
    Course, Deferred, EOS, FakeModel, alone, config, courses, request, seeded,
};
use crate::engine::{
    Engine, Event, Generation, ModelRunner, Request, SamplingParams, StopConditions, Usage,
};

/// An engine whose steps the test takes itself.
pub(super) struct Bench {
    pub(super) engine: Engine,
    pub(super) stepper: Stepper<Deferred<ModelRunner<FakeModel>>>,
    pub(super) time: ManualUptime,
}

impl Bench {
    pub(super) fn new(num_blocks: usize, block_size: usize, config: &EngineConfig) -> Self {
        Self::with(FakeModel::new(num_blocks, block_size), config)
    }

    /// One whose steps overlap with what the host does, if so.
    pub(super) fn overlapping(
        num_blocks: usize,
        block_size: usize,
        config: &EngineConfig,
        overlaps: bool,
    ) -> Self {
        let mut bench = Self::new(num_blocks, block_size, config);
        bench.stepper.executor.overlaps = overlaps;
        bench
    }

    fn with(model: FakeModel, config: &EngineConfig) -> Self {
        let (uptime, time) = Uptime::manual();
        let runner = Deferred::new(ModelRunner::new(model), false);
        let (engine, stepper) = Engine::without_thread(runner, config, vec![EOS], uptime);
        Self {
            engine,
            stepper,
            time,
        }
    }

    pub(super) fn submit(&self, request: &Request) -> Generation {
        self.engine
            .submit(Permit::for_tests("somebody"), request.clone())
            .unwrap()
    }

    pub(super) fn step(&mut self) {
        self.stepper.step().unwrap();
        self.stepper.scheduler.check().unwrap();
    }

    /// Steps until nothing is left to do.
    fn finish(&mut self) {
        self.step();
        while !self.stepper.scheduler.is_idle() {
            self.step();
        }
        assert_eq!(self.engine.stats().kv_blocks_used, 0);
    }

    /// Runs requests submitted together and returns how each went.
    fn run(&mut self, requests: &[Request]) -> Vec<Vec<Course>> {
        let mut generations: Vec<Generation> = requests
            .iter()
            .map(|request| self.submit(request))
            .collect();
        self.finish();
        let ended = requests.iter().zip(&mut generations);
        ended
            .map(|(request, generation)| courses(request.n, &events(generation)))
            .collect()
    }
}

/// All events that have arrived.
pub(super) fn events(generation: &mut Generation) -> Vec<Event> {
    std::iter::from_fn(|| generation.next().now_or_never().flatten()).collect()
}

/// The request's events, and whether the stream has ended.
fn whole(generation: &mut Generation) -> Vec<Event> {
    let events = events(generation);
    assert_eq!(
        generation.next().now_or_never(),
        Some(None),
        "the stream goes on"
    );
    events
}

/// Greedy, seeded, filtered and penalised requests of different lengths; some with several sequences.
fn mixed_requests() -> Vec<Request> {
    let picky = SamplingParams {
        temperature: 1.3,
        top_k: Some(9),
        top_p: 0.9,
        min_p: 0.02,
        repetition_penalty: 1.2,
        frequency_penalty: 0.3,
        presence_penalty: 0.2,
        logit_bias: vec![(4, 1.0)],
        seed: Some(99),
    };
    vec![
        request(&[5, 6, 7, 8, 9, 10, 11], 12),
        seeded(&[5, 6, 7, 8, 9, 10, 11], 12, 1),
        Request {
            sampling: picky,
            n: 2,
            ..request(&[1; 10], 8)
        },
        Request {
            n: 3,
            ..seeded(&[3], 15, 2)
        },
        Request {
            until: StopConditions {
                ignore_eos: false,
                ..request(&[3], 18).until
            },
            ..seeded(&[4, 4], 1, 3)
        },
    ]
}

#[test]
fn tokens_are_the_same_alone_batched_and_chunked() {
    let requests = mixed_requests();
    let expected: Vec<_> = requests.iter().map(alone).collect();
    for budget in 1..=48 {
        for (max_num_seqs, overlaps) in [(1, false), (3, true), (16, false), (16, true)] {
            let config = config(budget, max_num_seqs);
            let mut bench = Bench::overlapping(64, 4, &config, overlaps);
            assert_eq!(
                bench.run(&requests),
                expected,
                "budget {budget}, {max_num_seqs} sequences at a time, a step ahead: {overlaps}"
            );
            assert_eq!(bench.engine.stats().preemptions_total, 0);
        }
    }
}

#[test]
fn preempted_sequences_yield_the_same_tokens_as_alone() {
    let requests = mixed_requests();
    let expected: Vec<_> = requests.iter().map(alone).collect();
    for (num_blocks, block_size) in [(20, 1), (10, 2), (7, 3), (5, 4), (25, 1), (8, 4), (2, 16)] {
        for (budget, overlaps) in [1, 2, 3, 7, 64]
            .map(|budget| [(budget, false), (budget, true)])
            .concat()
        {
            let config = config(budget, 8);
            let mut bench = Bench::overlapping(num_blocks, block_size, &config, overlaps);
            assert_eq!(
                bench.run(&requests),
                expected,
                "{num_blocks} blocks of {block_size}, budget {budget}, a step ahead: {overlaps}"
            );
            if budget == 64 && block_size < 16 {
                assert!(
                    bench.engine.stats().preemptions_total > 0,
                    "{num_blocks} blocks of {block_size}"
                );
            }
        }
    }
}

#[test]
fn a_cache_that_holds_one_sequence_serves_five() {
    let requests: Vec<_> = (0..5)
        .map(|number| seeded(&[number + 5, 6, 7], 13, u64::from(number)))
        .collect();
    let expected: Vec<_> = requests.iter().map(alone).collect();
    let mut bench = Bench::new(4, 4, &config(64, 8));
    assert_eq!(bench.engine.max_model_len(), 16);
    assert_eq!(bench.run(&requests), expected);
    assert_eq!(
        bench.engine.stats().finished_total,
        [0, 5, 0, 0, 0, 0, 0, 0]
    );
}

/// The third step is begun before the second is finished, and everybody hears all that was told before.
#[test]
fn a_step_ahead_each_token_comes_one_step_later_and_a_place_is_free_one_step_sooner() {
    let mut bench = Bench::overlapping(8, 4, &config(16, 1), true);
    let mut first = bench.submit(&request(&[5; 3], 2));
    let mut second = bench.submit(&request(&[6; 3], 1));
    let mut heard = || [&mut first, &mut second].map(|generation| events(generation).len());
    let mut steps = Vec::new();
    for _ in 0..4 {
        bench.step();
        steps.push((heard(), bench.engine.stats().running));
    }
    // The prompt of the first; its second token, the last that it may have; in its place the prompt of the second.
    assert_eq!(steps, [([0, 0], 1), ([1, 0], 1), ([2, 0], 1), ([0, 2], 0)]);
    assert_eq!(bench.engine.stats().steps_total, 3);
}

/// Whoever arrives during a short step is in the next but one, during a long one in the next.
#[test]
fn a_long_step_is_waited_for_before_the_next_is_planned() {
    for (prompt, step) in [(LONG, 3), (LONG + 1, 2)] {
        let config = config(2 * LONG, 4);
        let mut bench = Bench::overlapping(1000, 4, &config, true);
        let mut long = bench.submit(&request(&vec![5; prompt], 9));
        bench.step();
        // The next is planned at once.
        if prompt <= LONG {
            bench.step();
        }
        let mut arrived = bench.submit(&request(&[6; 3], 9));
        let mut steps = if prompt <= LONG { 2 } else { 1 };
        while events(&mut arrived).is_empty() {
            bench.step();
            steps += 1;
        }
        // It was in the step before the one that told it so.
        assert_eq!(steps - 1, step, "{prompt} tokens");
        bench.finish();
        let expected = alone(&request(&vec![5; prompt], 9));
        assert_eq!(courses(1, &whole(&mut long)), expected);
    }
}

#[test]
fn the_sequences_of_one_request_draw_from_different_streams() {
    let request = Request {
        n: 3,
        ..seeded(&[5, 6], 12, 7)
    };
    let [a, b, c] = &Bench::new(32, 4, &config(16, 8)).run(&[request])[0][..] else {
        panic!("three sequences")
    };
    assert!(a.tokens != b.tokens && b.tokens != c.tokens && a.tokens != c.tokens);
}

#[test]
fn without_a_seed_two_requests_go_their_own_ways() {
    let unseeded = Request {
        sampling: SamplingParams::default(),
        ..request(&[5, 6], 20)
    };
    let courses = Bench::new(32, 4, &config(16, 8)).run(&[unseeded.clone(), unseeded]);
    assert_ne!(courses[0], courses[1]);
}
