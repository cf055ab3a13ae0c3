//! What happens to sequences whose callers have budgets.

use super::*;
use crate::auth::{Limit, Limits, Measure, Per, Rights};
use crate::clock::{Clock, Uptime};
use crate::engine::fake::Mishap;

/// So many tokens a day for each subject, and as many sequences at the same time as it likes.
struct Budget {
    limits: Arc<Limits>,
    rights: Rights,
    most: u64,
}

impl Budget {
    fn of(most: u64) -> Self {
        let limit = |measure, most| Limit {
            measure,
            per: Per::Subject,
            most,
        };
        Self {
            limits: Arc::new(Limits::new(Clock::manual(0).0, Uptime::manual().0)),
            rights: Rights {
                limits: Arc::new([
                    limit(Measure::TokensPerDay, most),
                    limit(Measure::ConcurrentSequences, 100),
                ]),
                ..Rights::default()
            },
            most,
        }
    }

    fn submit(&self, bench: &Bench, request: Request) -> Generation {
        let permit = Permit::limited("ann", self.rights.clone(), &self.limits).unwrap();
        let (prompt, most) = (request.prompt.len(), request.until.max_tokens);
        permit.reserve(prompt, request.n, most, true).unwrap();
        bench.engine.submit(permit, request).unwrap()
    }

    /// Used or reserved.
    fn taken(&self) -> u64 {
        let ann = crate::auth::Identity::for_tests("ann");
        let standing = self.limits.standing(&ann, &self.rights);
        self.most - standing.tokens.unwrap().remaining
    }
}

#[test]
fn a_sequence_whose_budget_is_spent_ends_in_the_step_of_its_last_token() {
    spend(false);
}

/// When the last token that the caller may have turns out to be that, the one after it is under way, and is nobody's.
#[test]
fn a_token_computed_beyond_a_budget_is_neither_told_nor_counted() {
    spend(true);
}

fn spend(ahead: bool) {
    let budget = Budget::of(9);
    let mut bench = Bench::overlapping(16, 4, &config(16, 4), ahead);
    let mut spender = budget.submit(&bench, request(&[5; 5], 50));
    let mut other = bench.submit(&request(&[6; 3], 6));
    for _ in 0..4 + usize::from(ahead) {
        bench.step();
    }
    let events = whole(&mut spender);
    let [tokens @ .., last] = &events[..] else {
        panic!("no events")
    };
    let expected = &alone(&request(&[5; 5], 50))[0].tokens[..4];
    let heard: Vec<TokenId> = tokens.iter().map(token_of).collect();
    assert_eq!(heard, expected);
    let usage = Usage {
        prompt_tokens: 5,
        cached_tokens: 0,
        completion_tokens: 4,
    };
    let end = Event::Finished {
        index: 0,
        reason: FinishReason::BudgetSpent,
        usage,
    };
    assert_eq!(*last, end);
    assert_eq!(budget.taken(), 9);
    assert_eq!(bench.engine.stats().running, 1);
    bench.finish();
    assert_eq!(courses(1, &whole(&mut other)), alone(&request(&[6; 3], 6)));
    assert_eq!(
        bench.engine.stats().finished_total,
        [0, 1, 0, 0, 0, 0, 1, 0],
        "one ended by length, one by its budget"
    );
    // The engine counts what was told.
    assert_eq!(bench.engine.stats().generation_tokens_total, 10);
}

fn token_of(event: &Event) -> TokenId {
    match event {
        Event::Token { id, .. } => *id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_several_sequences_one_ends_and_the_others_share_what_is_left() {
    let budget = Budget::of(5 + 11);
    let mut bench = Bench::new(32, 4, &config(16, 4));
    let three = Request {
        n: 3,
        ..request(&[5; 5], 6)
    };
    let mut generation = budget.submit(&bench, three);
    bench.finish();
    let courses = courses(3, &whole(&mut generation));
    let completions = courses.iter().map(|course| course.tokens.len());
    assert_eq!(completions.sum::<usize>(), 11);
    let spent = |course: &&Course| course.end.unwrap().0 == FinishReason::BudgetSpent;
    assert!(courses.iter().filter(spent).count() >= 2);
    assert_eq!(budget.taken(), 16);
}

#[test]
fn what_is_left_goes_back_however_a_request_ends() {
    let budget = Budget::of(1000);
    let mut bench = Bench::new(16, 4, &config(16, 1));
    let running = budget.submit(&bench, request(&[5; 5], 50));
    let waiting = budget.submit(&bench, request(&[6; 7], 50));
    let permit = Permit::limited("ann", budget.rights.clone(), &budget.limits).unwrap();
    permit.reserve(4, 1, 50, true).unwrap();
    let revocation = permit.revocation();
    let mut revoked = bench.engine.submit(permit, request(&[7; 4], 50)).unwrap();
    bench.step();
    bench.step();
    assert_eq!(budget.taken(), 55 + 57 + 54);
    revocation.revoke();
    bench.step();
    assert_eq!(whole(&mut revoked).len(), 1);
    assert_eq!(budget.taken(), 55 + 57);
    drop(waiting);
    bench.step();
    assert_eq!(budget.taken(), 55);
    drop(running);
    bench.finish();
    // The prompt, and a token for each of four steps.
    assert_eq!(budget.taken(), 5 + 4);
}

#[test]
fn what_is_left_goes_back_when_the_engine_fails() {
    for mishap in [Mishap::Panic, Mishap::Error] {
        let budget = Budget::of(1000);
        let mut model = FakeModel::new(8, 4);
        model.mishap = Some((2, mishap));
        let bench = Bench::with(model, &config(16, 1));
        let mut running = budget.submit(&bench, request(&[5; 3], 9));
        let _waiting = budget.submit(&bench, request(&[6; 3], 9));
        let Bench {
            engine, stepper, ..
        } = bench;
        stepper.run();
        assert_eq!(whole(&mut running).len(), 3);
        assert_eq!(budget.taken(), 3 + 2);
        let permit = Permit::limited("ann", budget.rights.clone(), &budget.limits).unwrap();
        permit.reserve(3, 1, 9, true).unwrap();
        assert!(engine.submit(permit, request(&[5; 3], 9)).is_err());
        assert_eq!(budget.taken(), 3 + 2);
    }
}
