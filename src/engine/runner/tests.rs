use super::*;
use std::time::Duration;

use crate::engine::Request;
use crate::engine::fake::{FakeModel, Mishap, VOCAB, arrival, config, request};
use crate::engine::scheduler::Scheduler;
use crate::model::Choice;

fn add(scheduler: &mut Scheduler, number: u64, request: Request) {
    scheduler.add(arrival(number, request, "somebody"));
}

fn planned(scheduler: &mut Scheduler) -> StepPlan {
    let mut plan = StepPlan::default();
    scheduler.plan(Duration::ZERO, &mut plan);
    plan
}

#[test]
fn the_arrays_of_a_mixed_step_are_laid_out_as_the_model_reads_them() {
    let mut runner = ModelRunner::new(FakeModel::new(8, 2));
    let mut scheduler = Scheduler::new(runner.capacity(), &config(5, 8), [].into());
    add(&mut scheduler, 1, request(&[11, 12, 13], 4));
    let plan = planned(&mut scheduler);
    runner.start(&plan, scheduler.sequences()).unwrap();
    let sampled = runner.finish().unwrap();
    scheduler.begin(&plan);
    scheduler.commit(&plan, &sampled, &mut Vec::new());
    add(&mut scheduler, 2, request(&[14, 15, 16, 17, 18], 4));
    let plan = planned(&mut scheduler);
    runner.start(&plan, scheduler.sequences()).unwrap();
    // The first holds blocks 0 and 1, of which the last slot takes its new token; the second begins in block 2 and has
    // reserved 3 and 4.
    let expected = StepBatch {
        block_copies: vec![],
        input_ids: vec![sampled[0], 14, 15, 16, 17],
        positions: vec![3, 0, 1, 2, 3],
        slot_mapping: vec![3, 4, 5, 6, 7],
        cu_seqlens_q: vec![0, 1, 5],
        context_lens: vec![4, 4],
        block_tables: vec![0, 1, 0, 2, 3, 4],
        max_blocks: 3,
        logit_rows: vec![0],
        choice: Choice::default(),
    };
    assert_eq!(runner.batch, expected);
}

#[test]
fn logits_of_the_wrong_size_are_an_error() {
    let mut model = FakeModel::new(8, 2);
    model.mishap = Some((0, Mishap::ShortLogits));
    let mut runner = ModelRunner::new(model);
    let mut scheduler = Scheduler::new(runner.capacity(), &config(5, 8), [].into());
    add(&mut scheduler, 1, request(&[1], 1));
    let error = runner
        .start(&planned(&mut scheduler), scheduler.sequences())
        .unwrap_err();
    assert!(
        matches!(
            error,
            ExecuteError::Logits {
                given: 0,
                rows: 1,
                vocab_size: VOCAB
            }
        ),
        "{error}"
    );
}
