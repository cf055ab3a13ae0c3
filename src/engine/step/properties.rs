//! Random requests that come, go and are cut short, on random small engines.

use proptest::prelude::*;

use super::tests::{Bench, events};
use super::*;
use crate::auth::Permit;
use crate::engine::fake::{Course, VOCAB, alone, config, courses};
use crate::engine::{Event, Generation, Request, SamplingParams, StopConditions};

#[derive(Debug, Clone)]
struct Visit {
    /// Step before which it is submitted.
    arrives: usize,
    request: Request,
    /// What its caller does, and how many steps after its arrival.
    leaves: Option<(Leaving, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Leaving {
    Drop,
    Finish,
}

#[derive(Debug, Clone)]
struct Size {
    budget: usize,
    max_num_seqs: usize,
    block_size: usize,
    /// Beyond what the longest sequence takes.
    spare_blocks: usize,
}

fn visit() -> impl Strategy<Value = Visit> {
    let leaving = (
        prop_oneof![Just(Leaving::Drop), Just(Leaving::Finish)],
        0_usize..12,
    );
    (
        0_usize..20,
        request(),
        proptest::option::weighted(0.3, leaving),
    )
        .prop_map(|(arrives, request, leaves)| Visit {
            arrives,
            request,
            leaves,
        })
}

prop_compose! {
    fn size()(
        budget in 1_usize..24, max_num_seqs in 1_usize..6, block_size in 1_usize..6, spare_blocks in 0_usize..6,
    ) -> Size {
        Size { budget, max_num_seqs, block_size, spare_blocks }
    }
}

prop_compose! {
    fn request()(
        prompt in prop::collection::vec(0..VOCAB as TokenId, 1..=MAX_PROMPT),
        n in 1_u32..3,
        max_tokens in 1..=MAX_TOKENS,
        min_tokens in 0_usize..4,
        stop_token_ids in prop::collection::vec(0..VOCAB as TokenId, 0..2),
        ignore_eos in any::<bool>(),
        temperature in prop_oneof![Just(0.0_f32), Just(0.8), Just(1.5)],
        top_k in proptest::option::of(1_u32..20),
        top_p in prop_oneof![Just(1.0_f32), Just(0.7)],
        frequency_penalty in prop_oneof![Just(0.0_f32), Just(0.5)],
        seed in any::<u64>(),
    ) -> Request {
        let sampling =
            SamplingParams { temperature, top_k, top_p, frequency_penalty, seed: Some(seed), ..SamplingParams::default() };
        let until = StopConditions { max_tokens, min_tokens, stop_token_ids, ignore_eos };
        Request { prompt: prompt.into(), n, sampling, until, cache_salt: None }
    }
}

/// A visit that has begun: its caller's end of it, the events heard and whose permit it took.
struct Guest<'a> {
    visit: &'a Visit,
    generation: Option<Generation>,
    heard: Vec<Event>,
    identity: Arc<crate::auth::Identity>,
}

impl Guest<'_> {
    fn leave_if_it_is_time(&mut self, step: usize) {
        match self.visit.leaves {
            Some((how, after)) if step == self.visit.arrives + after => {
                match (how, &self.generation) {
                    (Leaving::Finish, Some(generation)) => generation.finish(0),
                    _ => self.generation = None,
                }
            }
            _ => {}
        }
    }

    fn listen(&mut self) {
        if let Some(generation) = &mut self.generation {
            self.heard.extend(events(generation));
        }
    }

    /// Compares what was heard with the run alone.
    fn judge(&self) -> Result<(), TestCaseError> {
        let heard = courses(self.visit.request.n, &self.heard);
        let dropped = self.generation.is_none();
        let finished_early = self
            .visit
            .leaves
            .is_some_and(|(how, _)| how == Leaving::Finish);
        for (index, (heard, expected)) in heard.iter().zip(alone(&self.visit.request)).enumerate() {
            let cut_short = dropped || finished_early && index == 0;
            if cut_short {
                prop_assert!(expected.tokens.starts_with(&heard.tokens));
                prop_assert!(dropped || heard.end.is_some());
            } else {
                prop_assert_eq!(heard, &expected);
            }
            if let Course {
                end: Some((_, usage)),
                ..
            } = heard
            {
                let prompt = self.visit.request.prompt.len();
                prop_assert_eq!(usage.prompt_tokens, if index == 0 { prompt } else { 0 });
            }
        }
        prop_assert_eq!(
            Arc::strong_count(&self.identity),
            1,
            "the permit is still held"
        );
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_and_goes_nothing_leaks_and_everybody_is_served_as_if_alone(
        size in size(),
        visits in prop::collection::vec(visit(), 1..10),
    ) {
        let num_blocks = (MAX_PROMPT + MAX_TOKENS).div_ceil(size.block_size) + size.spare_blocks;
        let mut bench = Bench::new(num_blocks, size.block_size, &config(size.budget, size.max_num_seqs));
        let mut guests: Vec<Guest<'_>> = Vec::new();
        for step in 0.. {
            prop_assert!(step < MAX_STEPS, "no end in sight");
            for visit in visits.iter().filter(|visit| visit.arrives == step) {
                let permit = Permit::for_tests("guest");
                let identity = Arc::clone(permit.identity());
                let generation = bench.engine.submit(permit, visit.request.clone()).unwrap();
                guests.push(Guest { visit, generation: Some(generation), heard: Vec::new(), identity });
            }
            for guest in &mut guests {
                guest.leave_if_it_is_time(step);
            }
            // Checks the books, too.
            bench.step();
            for guest in &mut guests {
                guest.listen();
            }
            if guests.len() == visits.len() && bench.engine.stats().running + bench.engine.stats().waiting == 0 {
                break;
            }
        }
        for guest in &guests {
            guest.judge()?;
        }
        let model = bench.stepper.executor.model();
        prop_assert!(model.step_tokens.iter().all(|tokens| (1..=size.budget).contains(tokens)));
        let stats = bench.engine.stats();
        prop_assert_eq!((stats.kv_blocks_used, stats.waiting), (0, 0));
        let sequences: u64 = visits.iter().map(|visit| u64::from(visit.request.n)).sum();
        prop_assert_eq!(stats.finished_total.iter().sum::<u64>(), sequences);
    }
}

const MAX_PROMPT: usize = 12;
const MAX_TOKENS: usize = 10;
/// A guest computes 22 tokens if undisturbed; nine guests of two sequences, each computed anew for each token of an
/// older one, stay far below.
const MAX_STEPS: usize = 10_000;
