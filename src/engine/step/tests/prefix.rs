//! What is computed once and used again, and by whom.

use super::*;
use crate::auth::{Meter, TokensUsed};
use crate::engine::SchedulingPolicy;

#[derive(Debug)]
struct Nobody;

impl Meter for Nobody {
    fn used(&self, _: &crate::auth::Identity, _: TokensUsed) {}
}

/// Somebody of `tenant`.
fn of_tenant(subject: &str, tenant: &str) -> Permit {
    Permit::metered(subject, tenant, Arc::new(Nobody))
}

/// An engine with blocks of four tokens.
fn bench() -> Bench {
    Bench::new(64, 4, &config(64, 8))
}

/// Runs a request to its end; its events and the tokens that the model computed for it.
fn run(bench: &mut Bench, permit: Permit, request: &Request) -> (Vec<Event>, usize) {
    let computed = |bench: &Bench| {
        let steps = &bench.stepper.executor.inner.model().step_tokens;
        steps.iter().sum::<usize>()
    };
    let before = computed(bench);
    let mut generation = bench.engine.submit(permit, request.clone()).unwrap();
    bench.finish();
    (whole(&mut generation), computed(bench) - before)
}

fn cached_tokens(events: &[Event]) -> usize {
    let cached = |event: &Event| match event {
        Event::Finished { usage, .. } => usage.cached_tokens,
        _ => 0,
    };
    events.iter().map(cached).sum()
}

fn prompt(len: u32) -> Vec<TokenId> {
    (0..len).map(|at| 3 + at * 7 % 19).collect()
}

#[test]
fn a_prompt_that_was_computed_is_not_computed_again() {
    let mut bench = bench();
    let request = seeded(&prompt(13), 6, 1);
    let expected = alone(&request);
    let (first, cold) = run(&mut bench, of_tenant("ann", "acme"), &request);
    let (second, warm) = run(&mut bench, of_tenant("bob", "acme"), &request);
    assert_eq!((cached_tokens(&first), cached_tokens(&second)), (0, 12));
    assert_eq!((cold, warm), (13 + 5, 1 + 5));
    for events in [first, second] {
        assert_eq!(courses(1, &events), expected);
    }
    let stats = bench.engine.stats();
    assert_eq!(
        (stats.prefix_queries_total, stats.prefix_hits_total),
        (26, 12)
    );
}

#[test]
fn the_last_token_is_always_computed_since_its_logits_are_wanted() {
    let mut bench = bench();
    let request = request(&prompt(12), 2);
    run(&mut bench, of_tenant("ann", "acme"), &request);
    let (again, _) = run(&mut bench, of_tenant("ann", "acme"), &request);
    assert_eq!(cached_tokens(&again), 8);
    assert_eq!(courses(1, &again), alone(&request));
}

#[test]
fn the_next_turn_of_a_chat_finds_the_answer_too() {
    let mut bench = bench();
    let turn = request(&prompt(10), 9);
    run(&mut bench, of_tenant("ann", "acme"), &turn);
    let mut history = prompt(10);
    history.extend(&alone(&turn)[0].tokens);
    history.extend([4, 5, 6]);
    let next = request(&history, 4);
    let (events, computed) = run(&mut bench, of_tenant("ann", "acme"), &next);
    // Of 19 tokens, all but the very last one are in the cache: four whole blocks.
    assert_eq!(cached_tokens(&events), 16);
    assert_eq!(computed, 22 - 16 + 3);
    assert_eq!(courses(1, &events), alone(&next));
}

#[test]
fn another_tenant_computes_everything_itself() {
    let mut bench = bench();
    let request = request(&prompt(20), 3);
    let (_, cold) = run(&mut bench, of_tenant("ann", "acme"), &request);
    for stranger in [
        of_tenant("ann", "other"),
        Permit::for_tests("ann"),
        Permit::for_tests("bob"),
    ] {
        let (events, computed) = run(&mut bench, stranger, &request);
        assert_eq!((cached_tokens(&events), computed), (0, cold));
    }
}

#[test]
fn a_salt_narrows_the_circle_and_never_widens_it() {
    let mut bench = bench();
    let plain = request(&prompt(9), 1);
    let salted = |salt: &str| Request {
        cache_salt: Some(salt.into()),
        ..plain.clone()
    };
    let mut cached = |tenant, request: &Request| {
        cached_tokens(&run(&mut bench, of_tenant("ann", tenant), request).0)
    };
    assert_eq!(cached("acme", &plain), 0);
    assert_eq!(cached("acme", &salted("s")), 0);
    assert_eq!(cached("acme", &salted("s")), 8);
    assert_eq!(cached("acme", &salted("t")), 0);
    assert_eq!(cached("other", &salted("s")), 0);
    assert_eq!(cached("acme", &plain), 8);
}

#[test]
fn a_declared_public_prefix_is_shared_by_all_as_far_as_it_fills_blocks() {
    let public: Arc<[TokenId]> = prompt(10).into();
    let config = EngineConfig {
        public_prefixes: vec![public],
        ..config(64, 8)
    };
    let mut bench = Bench::new(64, 4, &config);
    let mut whole_prompt = prompt(10);
    whole_prompt.extend([20, 21, 22, 20, 21, 22]);
    let request = request(&whole_prompt, 1);
    let mut cached = |tenant| cached_tokens(&run(&mut bench, of_tenant("ann", tenant), &request).0);
    assert_eq!((cached("acme"), cached("acme")), (0, 12));
    assert_eq!((cached("other"), cached("other")), (8, 12));
}

#[test]
fn the_completions_of_a_request_share_its_prompt_down_to_the_last_token() {
    for prefix_caching in [true, false] {
        for prompt_len in [1, 4, 5, 11, 13] {
            let config = EngineConfig {
                prefix_caching,
                ..config(64, 8)
            };
            let mut bench = Bench::new(64, 4, &config);
            let request = Request {
                n: 3,
                ..seeded(&prompt(prompt_len), 6, 9)
            };
            let (events, computed) = run(&mut bench, of_tenant("ann", "acme"), &request);
            assert_eq!(courses(3, &events), alone(&request));
            // The prompt once, its last token for each of the others, and what each generated but the last.
            assert_eq!(computed, prompt_len as usize + 2 + 3 * 5);
        }
    }
}

#[test]
fn completions_hold_the_blocks_of_their_prompt_together() {
    let mut bench = bench();
    let request = Request {
        n: 4,
        ..seeded(&prompt(21), 8, 9)
    };
    let _generation = bench.submit(&request);
    bench.step();
    bench.step();
    // Five shared blocks, and for each a sixth of its own, which the first computed and the others copied.
    assert_eq!(bench.engine.stats().kv_blocks_used, 5 + 4);
    bench.finish();
}

#[test]
fn completions_go_on_if_the_first_ends_before_it_has_computed_the_prompt() {
    let mut bench = Bench::new(64, 4, &config(4, 8));
    let request = Request {
        n: 3,
        ..seeded(&prompt(11), 6, 9)
    };
    let mut generation = bench.submit(&request);
    bench.step();
    generation.finish(0);
    bench.finish();
    let heard = courses(3, &whole(&mut generation));
    assert_eq!(heard[1..], alone(&request)[1..]);
    assert!(heard[0].tokens.is_empty());
}

#[test]
fn a_preempted_sequence_finds_its_own_blocks_again() {
    let requests = [1, 2].map(|seed| seeded(&prompt(9 + seed as u32), 12, seed));
    let config = EngineConfig {
        scheduling_policy: SchedulingPolicy::FirstCome,
        ..config(64, 8)
    };
    let mut bench = Bench::new(8, 4, &config);
    let courses = bench.run(&requests);
    assert_eq!(courses, requests.each_ref().map(alone));
    let stats = bench.engine.stats();
    assert!(stats.preemptions_total > 0);
    assert_eq!(
        (stats.prefix_queries_total, stats.prefix_hits_total),
        (21, 0),
        "its own blocks are no hit"
    );
}
