//! Random requests of random callers that come, go and are cut short, on random small engines.

mod visits;

use std::sync::{Mutex, PoisonError};

use proptest::prelude::*;

use super::tests::{Bench, events};
use super::*;
use crate::auth::{Identity, Meter, Permit, Priority, Revocation, Share, TokensUsed};
use crate::engine::fake::{self, Course, alone, courses};
use crate::engine::{Event, Generation, SchedulingPolicy, Usage};
use visits::{CALLERS, Leaving, MAX_PROMPT, MAX_TOKENS, PUBLIC, Size, Visit, size, visit};

/// What the engine has told of a request's sequences.
#[derive(Debug, Default)]
struct Bill(Mutex<Vec<TokensUsed>>);

impl Bill {
    fn lines(&self) -> Vec<TokensUsed> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn sum(&self, of: fn(&TokensUsed) -> usize) -> usize {
        self.lines().iter().map(of).sum()
    }
}

impl Meter for Bill {
    fn used(&self, _: &Identity, tokens: TokensUsed) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(tokens);
    }
}

/// A visit that has begun: its caller's end of it, the events heard, whose permit it took and what that was told.
struct Guest<'a> {
    visit: &'a Visit,
    generation: Option<Generation>,
    heard: Vec<Event>,
    identity: Arc<Identity>,
    revocation: Revocation,
    bill: Arc<Bill>,
}

impl<'a> Guest<'a> {
    fn arrive(visit: &'a Visit, bench: &Bench) -> Self {
        let bill = Arc::<Bill>::default();
        let meter: Arc<dyn Meter> = Arc::<Bill>::clone(&bill);
        let permit = Permit::metered(visit.subject, visit.tenant, meter).sharing(visit.share);
        let (identity, revocation) = (Arc::clone(permit.identity()), permit.revocation());
        let generation = bench.engine.submit(permit, visit.request.clone()).unwrap();
        Self {
            visit,
            generation: Some(generation),
            heard: Vec::new(),
            identity,
            revocation,
            bill,
        }
    }

    fn leave_if_it_is_time(&mut self, step: usize) {
        match self.visit.leaves {
            Some((how, after)) if step == self.visit.arrives + after => match how {
                Leaving::Drop => self.generation = None,
                Leaving::Revoked => self.revocation.revoke(),
                Leaving::Finish => {
                    if let Some(generation) = &self.generation {
                        generation.finish(0);
                    }
                }
            },
            _ => {}
        }
    }

    fn listen(&mut self) {
        if let Some(generation) = &mut self.generation {
            self.heard.extend(events(generation));
        }
    }

    /// Compares what was heard with the run alone, and with what the meter was told.
    fn judge(&self) -> Result<(), TestCaseError> {
        let request = &self.visit.request;
        let heard = courses(request.n, &self.heard);
        let dropped = self.generation.is_none();
        let leaves = self.visit.leaves.map(|(how, _)| how);
        let mut completion = 0;
        for (index, (heard, expected)) in heard.iter().zip(alone(request)).enumerate() {
            let cut_short = dropped
                || leaves == Some(Leaving::Revoked)
                || leaves == Some(Leaving::Finish) && index == 0;
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
                match (index, usage.completion_tokens) {
                    // As far as it was computed.
                    (0, 0) => prop_assert!(usage.prompt_tokens <= request.prompt.len()),
                    (0, _) => prop_assert_eq!(usage.prompt_tokens, request.prompt.len()),
                    _ => prop_assert_eq!(usage.prompt_tokens, 0),
                }
                completion += usage.completion_tokens;
            }
        }
        prop_assert_eq!(self.bill.lines().len(), request.n as usize);
        let prompt = self.bill.sum(|used| used.prompt);
        match heard[0].tokens.is_empty() {
            true => prop_assert!(prompt <= request.prompt.len()),
            false => prop_assert_eq!(prompt, request.prompt.len()),
        }
        if dropped {
            let announced = |event: &&Event| matches!(event, Event::Token { .. });
            let announced = self.heard.iter().filter(announced).count();
            prop_assert!(self.bill.sum(|used| used.completion) >= announced);
        } else {
            let ends = self.heard.iter().filter_map(|event| match event {
                Event::Finished { usage, .. } => Some(usage),
                _ => None,
            });
            let told = |usage: &Usage| TokensUsed {
                prompt: usage.prompt_tokens,
                cached: usage.cached_tokens,
                completion: usage.completion_tokens,
            };
            prop_assert_eq!(self.bill.lines(), ends.map(told).collect::<Vec<_>>());
            prop_assert_eq!(self.bill.sum(|used| used.completion), completion);
        }
        prop_assert_eq!(
            Arc::strong_count(&self.identity),
            1,
            "the permit is still held"
        );
        Ok(())
    }

    /// What came from the cache was whole blocks of what is public, or of what its own circle had sent or been answered.
    fn judge_cached(&self, guests: &[Guest<'_>], size: &Size) -> Result<(), TestCaseError> {
        let prompt = &*self.visit.request.prompt;
        let cached = self.bill.sum(|used| used.cached);
        prop_assert!(cached.is_multiple_of(size.block_size) && cached < prompt.len());
        let circle = |visit: &Visit| (visit.tenant, visit.request.cache_salt.clone());
        let public = match prompt.starts_with(&PUBLIC[..size.public]) {
            true => size.public,
            false => 0,
        };
        let theirs = guests.iter().map(|other| {
            if std::ptr::eq(self, other) || circle(self.visit) != circle(other.visit) {
                return 0;
            }
            let alike = |course: Course| {
                let tokens = other.visit.request.prompt.iter().chain(&course.tokens);
                prompt
                    .iter()
                    .zip(tokens)
                    .take_while(|(a, b)| a == b)
                    .count()
            };
            let all = alone(&other.visit.request).into_iter().map(alike);
            all.max().unwrap_or(0)
        });
        let most = theirs.max().unwrap_or(0).max(public);
        prop_assert!(
            cached <= most,
            "{cached} tokens are from the cache, {most} may be"
        );
        prop_assert!(size.prefix_caching || cached == 0);
        Ok(())
    }
}

/// Runs the visits to their ends on an engine of that size, and judges everybody's.
fn serve(size: &Size, visits: &[Visit]) -> Result<(), TestCaseError> {
    let num_blocks = (MAX_PROMPT + MAX_TOKENS).div_ceil(size.block_size) + size.spare_blocks;
    let mut bench = Bench::overlapping(num_blocks, size.block_size, &size.config(), size.overlaps);
    let mut guests: Vec<Guest<'_>> = Vec::new();
    for step in 0.. {
        prop_assert!(step < MAX_STEPS, "no end in sight");
        let arriving = visits.iter().filter(|visit| visit.arrives == step);
        guests.extend(arriving.map(|visit| Guest::arrive(visit, &bench)));
        for guest in &mut guests {
            guest.leave_if_it_is_time(step);
        }
        // Checks the books, too.
        bench.step();
        bench.time.advance(size.pace);
        for guest in &mut guests {
            guest.listen();
        }
        if guests.len() == visits.len()
            && bench.engine.stats().running + bench.engine.stats().waiting == 0
        {
            break;
        }
    }
    for guest in &guests {
        guest.judge()?;
        guest.judge_cached(&guests, size)?;
    }
    let model = bench.stepper.executor.inner.model();
    prop_assert!(
        model
            .step_tokens
            .iter()
            .all(|tokens| (1..=size.budget).contains(tokens))
    );
    let stats = bench.engine.stats();
    prop_assert_eq!(
        (stats.kv_blocks_used, stats.waiting, stats.subjects),
        (0, 0, 0)
    );
    let sequences: u64 = visits.iter().map(|visit| u64::from(visit.request.n)).sum();
    prop_assert_eq!(stats.finished_total.iter().sum::<u64>(), sequences);

    let told: Vec<TokensUsed> = guests.iter().flat_map(|guest| guest.bill.lines()).collect();
    let sum = |of: fn(&TokensUsed) -> usize| told.iter().map(of).sum::<usize>() as u64;
    prop_assert_eq!(sum(|used| used.completion), stats.generation_tokens_total);
    // Prompts of those that were told so, but saw no token of theirs, are in the bill alone.
    let answered = |used: &TokensUsed| if used.completion > 0 { used.prompt } else { 0 };
    prop_assert_eq!(sum(answered), stats.prompt_tokens_total);
    let cached = sum(|used| used.cached);
    match visits.iter().any(|visit| visit.leaves.is_some()) {
        // Where a request's first sequence was ended early, another has found the prompt.
        true => prop_assert!(cached <= stats.prefix_hits_total),
        false => prop_assert_eq!(cached, stats.prefix_hits_total),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_and_goes_nothing_leaks_and_everybody_is_served_as_if_alone(
        size in size(),
        visits in prop::collection::vec(visit(), 1..10),
    ) {
        serve(&size, &visits)?;
    }
}

/// Found by the property: the second of "ann" lost its blocks while it was catching up, got others in the same step, and
/// was in that step twice.
#[test]
fn who_makes_room_and_finds_room_in_the_same_step_is_in_it_once() {
    let size = Size {
        budget: 13,
        max_prefill_tokens: 11,
        max_num_seqs: 3,
        block_size: 1,
        spare_blocks: 1,
        policy: SchedulingPolicy::Fair,
        prefix_caching: false,
        max_tenant_blocks_percent: None,
        public: 0,
        overlaps: false,
        pace: Duration::from_secs(9),
    };
    let visit = |arrives, caller: (&'static str, &'static str), prompt: &[TokenId]| Visit {
        arrives,
        subject: caller.0,
        tenant: caller.1,
        share: Share {
            priority: Priority::Low,
            ..Share::default()
        },
        request: fake::request(prompt, 1),
        leaves: None,
    };
    let mut visits = [
        visit(0, CALLERS[0], &PUBLIC),
        visit(6, CALLERS[1], &PUBLIC),
        visit(0, CALLERS[3], &[PUBLIC, PUBLIC].concat()),
        visit(3, CALLERS[2], &[5, 6, 7, 5, 6, 7, 8, 5]),
    ];
    let several = [(2, 6, 0.8, 536_851_390_908_373_379), (3, 4, 0.0, 0)];
    for (at, max_tokens, temperature, seed) in several {
        let request = &mut visits[at].request;
        request.n = 2;
        request.until.max_tokens = max_tokens;
        request.sampling.temperature = temperature;
        request.sampling.seed = Some(seed);
        request.until.min_tokens = 1;
        request.until.ignore_eos = false;
    }
    visits[2].request.until.stop_token_ids = vec![10];
    serve(&size, &visits).unwrap();
}

/// A guest computes 22 tokens if undisturbed; nine guests of four sequences, each computed anew for each token of an
/// older one, stay far below.
const MAX_STEPS: usize = 20_000;
