mod ahead;

use super::*;
use crate::auth::{IdentityKey, Priority};
use crate::engine::fake::{EOS, VOCAB, arrival, config, request};
use crate::engine::sequence::Standing;

fn scheduler(
    num_blocks: usize,
    block_size: usize,
    budget: usize,
    max_num_seqs: usize,
) -> Scheduler {
    let capacity = Capacity {
        vocab_size: VOCAB,
        max_model_len: 1000,
        num_blocks,
        block_size,
    };
    let config = EngineConfig {
        prefix_caching: false,
        ..config(budget, max_num_seqs)
    };
    Scheduler::new(capacity, &config, [EOS].into())
}

/// Adds a sequence of `prompt_len` tokens that generates up to `max_tokens`.
fn add(scheduler: &mut Scheduler, number: u64, prompt_len: usize, max_tokens: usize) -> SequenceId {
    let request = request(&vec![5; prompt_len], max_tokens);
    scheduler.add(arrival(number, request, "somebody"));
    SequenceId {
        request: number,
        index: 0,
    }
}

fn planned(scheduler: &mut Scheduler) -> StepPlan {
    let mut plan = StepPlan::default();
    scheduler.plan(Duration::ZERO, &mut plan);
    plan
}

/// Commits a step in which everybody generates token 7.
fn commit(scheduler: &mut Scheduler, plan: &StepPlan) {
    scheduler.begin(plan);
    scheduler.commit(plan, &vec![7; plan.num_due()], &mut Vec::new());
}

/// Plans and commits a step; returns `(request, start, tokens, due)` per part.
fn step(scheduler: &mut Scheduler) -> Vec<(u64, usize, usize, bool)> {
    let plan = planned(scheduler);
    scheduler.check().unwrap();
    commit(scheduler, &plan);
    scheduler.check().unwrap();
    plan.parts
        .iter()
        .map(|part| (part.id.request, part.start, part.num_tokens, part.due))
        .collect()
}

#[test]
fn a_prompt_longer_than_the_budget_is_computed_in_chunks_and_sampled_once() {
    let mut scheduler = scheduler(8, 4, 4, 8);
    add(&mut scheduler, 1, 10, 2);
    assert_eq!(step(&mut scheduler), [(1, 0, 4, false)]);
    assert_eq!(step(&mut scheduler), [(1, 4, 4, false)]);
    assert_eq!(step(&mut scheduler), [(1, 8, 2, true)]);
    assert_eq!(step(&mut scheduler), [(1, 10, 1, true)]);
    assert!(scheduler.is_idle());
    assert_eq!(scheduler.stats().kv_blocks_used, 0);
}

#[test]
fn decodes_come_before_chunks_and_chunks_before_newcomers() {
    let mut scheduler = scheduler(32, 4, 8, 8);
    add(&mut scheduler, 1, 6, 9);
    add(&mut scheduler, 2, 12, 9);
    add(&mut scheduler, 3, 3, 9);
    assert_eq!(step(&mut scheduler), [(1, 0, 6, true), (2, 0, 2, false)]);
    assert_eq!(step(&mut scheduler), [(1, 6, 1, true), (2, 2, 7, false)]);
    assert_eq!(
        step(&mut scheduler),
        [(1, 7, 1, true), (2, 9, 3, true), (3, 0, 3, true)]
    );
    assert_eq!(
        step(&mut scheduler),
        [(1, 8, 1, true), (2, 12, 1, true), (3, 3, 1, true)]
    );
}

#[test]
fn no_more_than_max_num_seqs_run() {
    let mut scheduler = scheduler(32, 4, 32, 2);
    for number in 0..3 {
        add(&mut scheduler, number, 1, 2);
    }
    assert_eq!(step(&mut scheduler).len(), 2);
    assert_eq!(
        (scheduler.stats().running, scheduler.stats().waiting),
        (2, 1)
    );
}

#[test]
fn a_budget_below_the_number_of_decodes_serves_the_oldest_first() {
    let mut scheduler = scheduler(32, 4, 2, 8);
    for number in 0..3 {
        add(&mut scheduler, number, 1, 3);
    }
    assert_eq!(step(&mut scheduler), [(0, 0, 1, true), (1, 0, 1, true)]);
    assert_eq!(step(&mut scheduler), [(0, 1, 1, true), (1, 1, 1, true)]);
    assert_eq!(step(&mut scheduler), [(0, 2, 1, true), (1, 2, 1, true)]);
    assert_eq!(step(&mut scheduler), [(2, 0, 1, true)]);
}

#[test]
fn nobody_overtakes_a_waiting_sequence_that_does_not_fit_yet() {
    let mut scheduler = scheduler(4, 4, 32, 8);
    add(&mut scheduler, 1, 8, 2);
    add(&mut scheduler, 2, 12, 2);
    add(&mut scheduler, 3, 1, 2);
    assert_eq!(step(&mut scheduler), [(1, 0, 8, true)]);
    assert_eq!(scheduler.stats().waiting, 2);
}

#[test]
fn out_of_blocks_the_newest_is_preempted_and_keeps_its_tokens_and_its_turn() {
    let mut scheduler = scheduler(4, 2, 32, 8);
    let first = add(&mut scheduler, 1, 3, 5);
    let second = add(&mut scheduler, 2, 3, 5);
    let third = add(&mut scheduler, 3, 1, 5);
    assert_eq!(step(&mut scheduler), [(1, 0, 3, true), (2, 0, 3, true)]);
    assert_eq!(step(&mut scheduler), [(1, 3, 1, true), (2, 3, 1, true)]);
    // Both know five tokens now and want a third block each; there are four in all.
    let plan = planned(&mut scheduler);
    assert_eq!(plan.preempted, [second]);
    let of_part = |part: &Part| (part.id, part.start, part.num_tokens, part.due);
    let parts: Vec<_> = plan.parts.iter().map(of_part).collect();
    assert_eq!(parts, [(first, 4, 1, true)]);
    let tokens = |id| scheduler.sequences.find(id).unwrap().tokens();
    assert_eq!(tokens(second), [5, 5, 5, 7, 7]);
    assert_eq!(tokens(third), [5]);
    scheduler.check().unwrap();
    commit(&mut scheduler, &plan);
    assert_eq!(step(&mut scheduler), [(1, 5, 1, true)]);
    // The first needs a fourth block for its seventh token and ends with its eighth.
    assert_eq!(step(&mut scheduler), [(1, 6, 1, true)]);
    // All five known tokens of the second are computed again; it generates its third.
    assert_eq!(step(&mut scheduler), [(2, 0, 5, true), (3, 0, 1, true)]);
    assert_eq!(scheduler.stats().preemptions_total, 1);
}

#[test]
fn the_newest_sits_out_rather_than_lose_its_own_blocks() {
    let mut scheduler = scheduler(3, 2, 32, 8);
    add(&mut scheduler, 1, 3, 2);
    add(&mut scheduler, 2, 2, 2);
    assert_eq!(step(&mut scheduler), [(1, 0, 3, true), (2, 0, 2, true)]);
    assert_eq!(step(&mut scheduler), [(1, 3, 1, true)]);
    assert_eq!(step(&mut scheduler), [(2, 2, 1, true)]);
    assert_eq!(scheduler.stats().preemptions_total, 0);
}

#[test]
fn ending_a_sequence_frees_its_blocks_wherever_it_is() {
    let mut scheduler = scheduler(4, 4, 8, 1);
    let running = add(&mut scheduler, 1, 8, 5);
    let waiting = add(&mut scheduler, 2, 8, 5);
    step(&mut scheduler);
    let usage = Usage {
        prompt_tokens: 8,
        cached_tokens: 0,
        completion_tokens: 1,
    };
    assert_eq!(scheduler.end(running, FinishReason::Cancelled), Some(usage));
    assert_eq!(
        scheduler
            .end(waiting, FinishReason::Stop)
            .unwrap()
            .completion_tokens,
        0
    );
    assert_eq!(scheduler.end(running, FinishReason::Cancelled), None);
    let stats = scheduler.stats();
    assert_eq!(
        (stats.kv_blocks_used, stats.finished_total),
        (0, [1, 0, 1, 0, 0, 0, 0, 0])
    );
    scheduler.check().unwrap();
}

#[test]
fn prompt_tokens_are_counted_once_however_often_they_are_computed() {
    let mut scheduler = scheduler(4, 2, 32, 8);
    add(&mut scheduler, 1, 3, 5);
    add(&mut scheduler, 2, 3, 5);
    while !scheduler.is_idle() {
        step(&mut scheduler);
    }
    let stats = scheduler.stats();
    assert!(stats.preemptions_total > 0);
    assert_eq!(
        (stats.prompt_tokens_total, stats.generation_tokens_total),
        (6, 10)
    );
}

/// Plans and commits a step; returns `(request, tokens)` per part.
fn shares(scheduler: &mut Scheduler) -> Vec<(u64, usize)> {
    let parts = step(scheduler);
    parts.iter().map(|part| (part.0, part.2)).collect()
}

#[test]
fn who_begins_has_a_short_step_that_others_prompts_do_not_fill_but_not_twice_in_a_row() {
    let mut scheduler = scheduler(64, 4, 20, 8);
    add(&mut scheduler, 1, 50, 9);
    assert_eq!(shares(&mut scheduler), [(1, 20)]);
    scheduler.add(arrival(2, request(&[6; 4], 9), "light"));
    assert_eq!(shares(&mut scheduler), [(2, 4)]);
    scheduler.add(arrival(3, request(&[7; 4], 9), "another"));
    assert_eq!(shares(&mut scheduler), [(2, 1), (3, 4), (1, 15)]);
    scheduler.add(arrival(4, request(&[8; 4], 9), "a third"));
    assert_eq!(shares(&mut scheduler), [(2, 1), (3, 1), (4, 4)]);
    assert_eq!(shares(&mut scheduler)[3], (1, 15));
}

#[test]
fn a_subject_alone_fills_its_first_step_itself() {
    let mut scheduler = scheduler(64, 4, 20, 8);
    for number in 0..3 {
        add(&mut scheduler, number, 6, 9);
    }
    assert_eq!(shares(&mut scheduler), [(0, 6), (1, 6), (2, 6)]);
}

/// Plans a step at `now` and commits it. Tokens that the request of that number computed in it.
fn computed_of(scheduler: &mut Scheduler, number: u64, now: Duration) -> usize {
    let mut plan = StepPlan::default();
    scheduler.plan(now, &mut plan);
    commit(scheduler, &plan);
    scheduler.check().unwrap();
    let mut parts = plan.parts.iter();
    parts
        .find(|part| part.id.request == number)
        .map_or(0, |part| part.num_tokens)
}

#[test]
fn a_prompt_begun_in_a_low_class_is_finished_although_a_higher_one_fills_every_step() {
    let mut scheduler = scheduler(64, 4, 8, 8);
    let of_class = |number, prompt_len, subject, priority, arrived| {
        let mut arrival = arrival(number, request(&vec![5; prompt_len], 1), subject);
        arrival.standing.priority = priority;
        arrival.standing.arrived = arrived;
        arrival
    };
    scheduler.add(of_class(0, 24, "batch", Priority::Low, Duration::ZERO));
    assert_eq!(computed_of(&mut scheduler, 0, Duration::ZERO), 8);
    let mut computed = Vec::new();
    for second in 1..=30 {
        let now = Duration::from_secs(second);
        scheduler.add(of_class(second, 8, "urgent", Priority::High, now));
        match computed_of(&mut scheduler, 0, now) {
            0 => {}
            tokens => computed.push((second, tokens)),
        }
    }
    assert_eq!(computed, [(20, 8), (21, 8)]);
}

/// A request of somebody of the one tenant that there is.
fn colleague(number: u64, prompt: &[TokenId], subject: &str) -> Arrival {
    let arrival = arrival(number, request(prompt, 20), subject);
    let standing = Standing {
        tenant: IdentityKey::of(&["tenant"]),
        ..arrival.standing
    };
    Arrival::new(number, arrival.request, standing, 4, &[], 0)
}

#[test]
fn nobody_is_displaced_for_blocks_that_the_newcomer_counts_on_already() {
    let mut scheduler = Scheduler {
        prefix_caching: true,
        ..scheduler(9, 4, 64, 8)
    };
    let shared: Vec<TokenId> = (0..12).collect();
    scheduler.add(colleague(0, &[5; 16], "busy"));
    scheduler.add(colleague(1, &shared, "busy"));
    assert_eq!(step(&mut scheduler).len(), 2);
    assert_eq!(step(&mut scheduler).len(), 2);
    assert_eq!(scheduler.stats().kv_blocks_used, 9);
    // Three of its six blocks are those of number 1, whose end would bring it one more.
    let longer = [&shared[..], &[9; 12]].concat();
    scheduler.add(colleague(2, &longer, "newcomer"));
    assert_eq!(shares(&mut scheduler), [(0, 1), (1, 1)]);
    assert_eq!(scheduler.stats().preemptions_total, 0);
}

#[test]
fn nobody_is_displaced_for_less_than_the_newcomer_lacks_by_now() {
    let mut scheduler = scheduler(8, 4, 64, 8);
    add(&mut scheduler, 0, 4, 20);
    add(&mut scheduler, 1, 4, 20);
    step(&mut scheduler);
    scheduler.add(arrival(2, request(&[6; 28], 2), "newcomer"));
    // What it lacks grows with the others, and so does what one of them holds; that is never enough.
    for _ in 0..8 {
        assert_eq!(shares(&mut scheduler), [(0, 1), (1, 1)]);
    }
    assert_eq!(scheduler.stats().preemptions_total, 0);
}

#[test]
fn who_may_not_displace_the_most_served_displaces_the_next() {
    let mut scheduler = scheduler(64, 4, 64, 4);
    let long = |number, subject, priority| {
        let mut arrival = arrival(number, request(&[5; 8], 20), subject);
        arrival.standing.priority = priority;
        arrival
    };
    add(&mut scheduler, 9, 1, 1);
    for (number, subject, priority) in [
        (0, "urgent", Priority::High),
        (1, "urgent", Priority::High),
        (2, "busy", Priority::Normal),
        (3, "busy", Priority::Normal),
    ] {
        scheduler.add(long(number, subject, priority));
    }
    step(&mut scheduler);
    while scheduler.stats().running < 4 {
        step(&mut scheduler);
    }
    scheduler.add(arrival(4, request(&[6; 2], 1), "newcomer"));
    let plan = planned(&mut scheduler);
    let preempted: Vec<u64> = plan.preempted.iter().map(|id| id.request).collect();
    assert_eq!(preempted, [3]);
    assert_eq!(plan.parts.last().unwrap().id.request, 4);
}
