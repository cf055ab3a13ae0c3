//! Planning while a step runs: tokens that are under way count, and nobody waits for them.

use super::*;

#[test]
fn a_token_under_way_is_planned_like_a_known_one() {
    let mut scheduler = scheduler(8, 2, 16, 4);
    let id = add(&mut scheduler, 1, 4, 9);
    let prompt = planned(&mut scheduler);
    scheduler.begin(&prompt);
    scheduler.check().unwrap();
    let sequence = scheduler.sequences.find(id).unwrap();
    assert_eq!((sequence.tokens().len(), sequence.num_tokens()), (4, 5));
    assert_eq!(sequence.under_way(), Some(0));
    // Its prompt fills two blocks: the token has one of its own, whichever it will be.
    let second = planned(&mut scheduler);
    let of_part = |part: &Part| (part.start, part.num_tokens, part.due);
    assert_eq!(
        second.parts.iter().map(of_part).collect::<Vec<_>>(),
        [(4, 1, true)]
    );
    let held = |scheduler: &Scheduler| scheduler.sequences.find(id).unwrap().block_table().len();
    assert_eq!(held(&scheduler), 3);
    scheduler.commit(&prompt, &[7], &mut Vec::new());
    scheduler.begin(&second);
    scheduler.check().unwrap();
    let sequence = scheduler.sequences.find(id).unwrap();
    assert_eq!(
        (sequence.tokens(), sequence.num_tokens()),
        (&[5, 5, 5, 5, 7][..], 6)
    );
}

#[test]
fn whoever_may_have_no_more_leaves_its_place_and_blocks_to_the_next_plan() {
    let mut scheduler = scheduler(2, 4, 16, 1);
    let last = add(&mut scheduler, 1, 7, 1);
    add(&mut scheduler, 2, 8, 1);
    let first = planned(&mut scheduler);
    scheduler.begin(&first);
    scheduler.check().unwrap();
    let stats = scheduler.stats();
    assert_eq!(
        (stats.running, stats.waiting, stats.kv_blocks_used),
        (0, 1, 0)
    );
    let second = planned(&mut scheduler);
    assert_eq!(
        second.admitted,
        [SequenceId {
            request: 2,
            index: 0
        }]
    );
    let mut outcomes = Vec::new();
    scheduler.commit(&first, &[7], &mut outcomes);
    let usage = Usage {
        prompt_tokens: 7,
        cached_tokens: 0,
        completion_tokens: 1,
    };
    let ended = Outcome {
        id: last,
        token: 7,
        finished: Some((FinishReason::Length, usage)),
    };
    assert_eq!(outcomes, [ended]);
    scheduler.begin(&second);
    // Only the last token of the second is to come: nothing is left to plan, and there is somebody.
    assert!(planned(&mut scheduler).is_empty() && !scheduler.is_idle());
    scheduler.commit(&second, &[7], &mut outcomes);
    assert!(scheduler.is_idle());
    scheduler.check().unwrap();
}

#[test]
fn who_ended_meanwhile_is_passed_over_and_so_is_whoever_has_its_place_now() {
    let mut scheduler = scheduler(8, 4, 16, 4);
    let gone = add(&mut scheduler, 1, 3, 9);
    let first = planned(&mut scheduler);
    scheduler.begin(&first);
    let usage = scheduler.end(gone, FinishReason::Cancelled).unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (3, 0));
    // In the same slot.
    let other = add(&mut scheduler, 2, 3, 9);
    let second = planned(&mut scheduler);
    assert_eq!(second.parts[0].slot, first.parts[0].slot);
    let mut outcomes = Vec::new();
    scheduler.commit(&first, &[7], &mut outcomes);
    assert_eq!(outcomes, []);
    scheduler.begin(&second);
    scheduler.commit(&second, &[8], &mut outcomes);
    assert_eq!(scheduler.sequences.find(other).unwrap().generated(), [8]);
    scheduler.check().unwrap();
}

/// Its four known tokens would fit two blocks; the fifth, under way, takes a third.
#[test]
fn who_lost_its_blocks_comes_back_with_room_for_the_token_under_way() {
    let mut scheduler = scheduler(8, 2, 16, 4);
    let id = add(&mut scheduler, 1, 4, 9);
    let first = planned(&mut scheduler);
    scheduler.begin(&first);
    let slot = first.parts[0].slot;
    scheduler.preempt(slot, &mut StepPlan::default());
    let again = planned(&mut scheduler);
    let part = again.parts[0];
    assert_eq!((part.start, part.num_tokens, part.due), (0, 5, true));
    assert_eq!(scheduler.sequences[slot].block_table().len(), 3);
    scheduler.commit(&first, &[7], &mut Vec::new());
    scheduler.begin(&again);
    scheduler.check().unwrap();
    let sequence = scheduler.sequences.find(id).unwrap();
    assert_eq!(
        (sequence.generated(), sequence.num_generated()),
        (&[7][..], 2)
    );
}
