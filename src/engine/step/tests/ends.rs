//! How sequences end, and what is given back when they do.

use std::sync::Mutex;

use super::*;
use crate::auth::{Identity, Meter, Share, TokensUsed};

/// Seeded requests of which the engine's answers are looked at one by one.
fn only(until: StopConditions, seed: u64) -> Course {
    Bench::new(64, 4, &config(16, 8)).run(&[Request {
        until,
        ..seeded(&[5, 6], 1, seed)
    }])[0][0]
        .clone()
}

/// The first `count` tokens under `seed`, whatever they are.
fn free_run(seed: u64, count: usize) -> Vec<TokenId> {
    alone(&seeded(&[5, 6], count, seed))[0].tokens.clone()
}

#[test]
fn end_of_sequence_is_counted_and_not_announced() {
    // A seed whose free run reaches end-of-sequence as its sixth token or later, for the first time.
    let eos_at = |seed: u64| free_run(seed, 30).iter().position(|&token| token == EOS);
    let seed = (0..).find(|&seed| eos_at(seed) > Some(4)).unwrap();
    let (run, at) = (free_run(seed, 30), eos_at(seed).unwrap());
    let until = StopConditions {
        max_tokens: 30,
        min_tokens: 0,
        stop_token_ids: vec![],
        ignore_eos: false,
    };
    let course = only(until.clone(), seed);
    assert_eq!(course.tokens, run[..at]);
    let usage = Usage {
        prompt_tokens: 2,
        cached_tokens: 0,
        completion_tokens: at + 1,
    };
    assert_eq!(course.end, Some((FinishReason::Stop, usage)));

    let ignored = only(
        StopConditions {
            ignore_eos: true,
            ..until.clone()
        },
        seed,
    );
    assert_eq!(
        (ignored.tokens, ignored.end.unwrap().0),
        (run.clone(), FinishReason::Length)
    );

    let later = only(
        StopConditions {
            min_tokens: at + 3,
            ..until.clone()
        },
        seed,
    );
    assert!(later.tokens.len() >= at + 3 && !later.tokens.contains(&EOS));

    // The very last token allowed is end-of-sequence: it stopped, it was not cut off.
    let last = only(
        StopConditions {
            max_tokens: at + 1,
            ..until.clone()
        },
        seed,
    );
    assert_eq!(last.end.unwrap().0, FinishReason::Stop);
    let cut = only(
        StopConditions {
            max_tokens: at,
            ..until
        },
        seed,
    );
    assert_eq!(cut.end.unwrap().0, FinishReason::Length);
}

#[test]
fn a_stop_id_ends_a_sequence_even_if_end_of_sequence_is_ignored() {
    let run = free_run(3, 10);
    let until = StopConditions {
        max_tokens: 10,
        min_tokens: 0,
        stop_token_ids: vec![run[0]],
        ignore_eos: true,
    };
    let course = only(until, 3);
    assert!(course.tokens.is_empty());
    let usage = Usage {
        prompt_tokens: 2,
        cached_tokens: 0,
        completion_tokens: 1,
    };
    assert_eq!(course.end, Some((FinishReason::Stop, usage)));
}

#[test]
fn one_token_is_one_token() {
    let course = only(
        StopConditions {
            max_tokens: 1,
            min_tokens: 0,
            stop_token_ids: vec![],
            ignore_eos: true,
        },
        3,
    );
    assert_eq!(
        (course.tokens.len(), course.end.unwrap().0),
        (1, FinishReason::Length)
    );
}

#[test]
fn a_dropped_generation_ends_within_one_step_and_gives_everything_back() {
    let mut bench = Bench::new(16, 4, &config(8, 2));
    let permit = Permit::for_tests("leaver");
    let identity = Arc::clone(permit.identity());
    let running = bench
        .engine
        .submit(
            permit,
            Request {
                n: 3,
                ..request(&[5; 9], 20)
            },
        )
        .unwrap();
    let mut other = bench.submit(&request(&[6; 3], 4));
    bench.step();
    bench.step();
    assert_eq!(
        (bench.engine.stats().running, bench.engine.stats().waiting),
        (2, 2)
    );
    drop(running);
    bench.step();
    assert_eq!(
        (bench.engine.stats().running, bench.engine.stats().waiting),
        (1, 0)
    );
    assert_eq!(bench.engine.stats().finished_total, [0, 0, 3, 0, 0, 0, 0]);
    assert_eq!(Arc::strong_count(&identity), 1, "the permit is still held");
    bench.finish();
    assert_eq!(courses(1, &whole(&mut other)), alone(&request(&[6; 3], 4)));
}

#[test]
fn finishing_one_sequence_leaves_its_siblings_running() {
    let request = Request {
        n: 2,
        ..seeded(&[5, 6, 7], 12, 7)
    };
    let expected = alone(&request);
    let mut bench = Bench::new(32, 4, &config(16, 8));
    let mut generation = bench.submit(&request);
    // The second starts once the first has computed their prompt.
    for _ in 0..3 {
        bench.step();
    }
    generation.finish(1);
    generation.finish(1);
    bench.finish();
    let courses = courses(2, &whole(&mut generation));
    assert_eq!(courses[0], expected[0]);
    assert_eq!(courses[1].tokens, expected[1].tokens[..2]);
    let usage = Usage {
        completion_tokens: 2,
        ..Usage::default()
    };
    assert_eq!(courses[1].end, Some((FinishReason::Stop, usage)));
    generation.finish(0);
    bench.step();
}

#[test]
fn a_waiting_sequence_can_be_finished_too() {
    let mut bench = Bench::new(4, 4, &config(16, 1));
    let _running = bench.submit(&request(&[5; 3], 5));
    let mut waiting = bench.submit(&request(&[5; 3], 5));
    bench.step();
    waiting.finish(0);
    bench.step();
    // Nothing of its prompt was computed.
    let usage = Usage::default();
    assert_eq!(
        whole(&mut waiting),
        [Event::Finished {
            index: 0,
            reason: FinishReason::Stop,
            usage
        }]
    );
}

#[test]
fn the_permit_is_held_until_the_request_has_ended() {
    let mut bench = Bench::new(4, 4, &config(16, 1));
    let permit = Permit::for_tests("somebody");
    let identity = Arc::clone(permit.identity());
    let mut generation = bench.engine.submit(permit, request(&[5; 3], 2)).unwrap();
    bench.step();
    assert_eq!(Arc::strong_count(&identity), 2);
    bench.step();
    assert_eq!(whole(&mut generation).len(), 3);
    assert_eq!(Arc::strong_count(&identity), 1);
}

#[test]
fn a_request_ends_when_its_time_is_over_wherever_it_is() {
    let share = Share {
        deadline: Some(Duration::from_secs(30)),
        ..Share::default()
    };
    let mut bench = Bench::new(4, 4, &config(16, 1));
    let submit = |bench: &Bench, subject| {
        let permit = Permit::with_share(subject, share);
        bench.engine.submit(permit, request(&[5; 3], 9)).unwrap()
    };
    let (mut running, mut waiting) = (submit(&bench, "a"), submit(&bench, "b"));
    bench.step();
    bench.time.advance(Duration::from_millis(29_999));
    bench.step();
    assert_eq!(events(&mut running).len(), 2);
    bench.time.advance(Duration::from_millis(1));
    bench.step();
    let ended = |prompt, completion| Event::Finished {
        index: 0,
        reason: FinishReason::DeadlineExceeded,
        usage: Usage {
            prompt_tokens: prompt,
            cached_tokens: 0,
            completion_tokens: completion,
        },
    };
    assert_eq!(whole(&mut running), [ended(3, 2)]);
    assert_eq!(whole(&mut waiting), [ended(0, 0)]);
    let stats = bench.engine.stats();
    assert_eq!(
        (stats.kv_blocks_used, stats.waiting, stats.waiting_tokens),
        (0, 0, 0)
    );
    assert_eq!(stats.finished_total, [0, 0, 0, 0, 2, 0, 0]);
}

#[test]
fn a_revoked_permit_ends_all_that_runs_under_it_within_one_step() {
    let mut bench = Bench::new(16, 4, &config(16, 2));
    let permit = Permit::for_tests("a");
    let revocation = permit.revocation();
    let three = Request {
        n: 3,
        ..request(&[5; 3], 9)
    };
    let mut revoked = bench.engine.submit(permit, three).unwrap();
    let mut other = bench.submit(&request(&[6; 3], 4));
    bench.step();
    bench.step();
    events(&mut revoked);
    revocation.revoke();
    bench.step();
    let ends = whole(&mut revoked);
    let is_revoked = |event: &Event| {
        matches!(
            event,
            Event::Finished {
                reason: FinishReason::Revoked,
                ..
            }
        )
    };
    assert_eq!((ends.len(), ends.iter().all(is_revoked)), (3, true));
    bench.finish();
    assert_eq!(courses(1, &whole(&mut other)), alone(&request(&[6; 3], 4)));
}

/// Sums up what it is told, and counts how often.
#[derive(Debug, Default)]
struct Sum(Mutex<(TokensUsed, usize)>);

impl Meter for Sum {
    fn used(&self, _: &Identity, tokens: TokensUsed) {
        let mut sum = self.0.lock().unwrap();
        sum.0.prompt += tokens.prompt;
        sum.0.cached += tokens.cached;
        sum.0.completion += tokens.completion;
        sum.1 += 1;
    }
}

#[test]
fn each_sequence_is_settled_once_however_it_ends() {
    let sum = Arc::new(Sum::default());
    let mut bench = Bench::new(32, 4, &config(16, 3));
    let submit = |bench: &Bench, request: &Request| {
        let permit = Permit::metered("a", "acme", sum.clone());
        bench.engine.submit(permit, request.clone()).unwrap()
    };
    let three = Request {
        n: 3,
        ..seeded(&[5; 9], 9, 1)
    };
    let whole = submit(&bench, &three);
    let dropped = submit(&bench, &three);
    let finished = submit(&bench, &three);
    let never_started = submit(&bench, &three);
    for _ in 0..4 {
        bench.step();
    }
    drop(dropped);
    finished.finish(1);
    drop(never_started);
    bench.finish();
    drop((whole, finished));
    let (used, times) = *sum.0.lock().unwrap();
    assert_eq!(times, 12);
    // The fourth prompt was never computed.
    assert_eq!(used.prompt, 3 * 9);
    let generated = bench.engine.stats().generation_tokens_total;
    assert_eq!(used.completion as u64, generated);
    assert_eq!(used.cached as u64, bench.engine.stats().prefix_hits_total);
}

#[test]
fn a_step_that_panics_settles_what_was_used() {
    let sum = Arc::new(Sum::default());
    let mut model = FakeModel::new(8, 4);
    model.mishap = Some((2, crate::engine::fake::Mishap::Panic));
    let Bench {
        engine, stepper, ..
    } = Bench::with(model, &config(16, 1));
    let permit = Permit::metered("a", "acme", sum.clone());
    let _generation = engine.submit(permit, request(&[5; 3], 9)).unwrap();
    stepper.run();
    let used = TokensUsed {
        prompt: 3,
        cached: 0,
        completion: 2,
    };
    assert_eq!(*sum.0.lock().unwrap(), (used, 1));
}
