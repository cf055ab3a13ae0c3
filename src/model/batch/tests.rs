use super::*;
use crate::model::testing::{Sequence, TINY, batch, load, write_checkpoint};
use crate::model::{LoadOptions, Mixtral, ModelSource};

fn model(tokens: usize, rows: usize) -> Mixtral {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path(), TINY, |_| {});
    let options = LoadOptions {
        max_num_batched_tokens: tokens,
        max_logit_rows: rows,
    };
    Mixtral::load(&ModelSource::Folder(folder.path().into()), options).unwrap()
}

/// Three tokens of one sequence that has two already, and one of another.
fn good() -> StepBatch {
    let sequences = [
        Sequence {
            ids: vec![1, 2, 3, 4, 5],
            blocks: vec![4, 2],
        },
        Sequence {
            ids: vec![6],
            blocks: vec![0],
        },
    ];
    batch(&sequences, &[(0, 2..5), (1, 0..1)], 4)
}

#[test]
fn a_batch_that_contradicts_itself_the_model_or_the_cache_is_refused() {
    let mut model = model(4, 4);
    let mut cache = model.new_cache(5, 4).unwrap();
    assert!(model.forward(&good(), &mut cache).is_ok());
    type Spoil = fn(&mut StepBatch);
    let cases: [(Spoil, &str); 21] = [
        (
            |b| {
                *b = StepBatch {
                    cu_seqlens_q: vec![0],
                    ..StepBatch::default()
                }
            },
            "0 tokens; a step takes 1 to 4",
        ),
        (|b| b.input_ids.push(1), "5 tokens; a step takes 1 to 4"),
        (
            |b| b.input_ids[1] = 24,
            "input_ids[1] is 24; the vocabulary has 24 tokens",
        ),
        (
            |b| b.input_ids[1] = carried(2),
            "input_ids[1] is token 2 of the step before, which chose 0",
        ),
        (
            |b| assert!(b.positions.pop().is_some()),
            "positions has 3 entries, expected 4",
        ),
        (
            |b| b.slot_mapping.push(0),
            "slot_mapping has 5 entries, expected 4",
        ),
        (
            |b| assert!(b.cu_seqlens_q.pop().is_some()),
            "cu_seqlens_q has 2 entries, expected 3",
        ),
        (
            |b| assert!(b.block_tables.pop().is_some()),
            "block_tables has 3 entries, expected 4",
        ),
        (
            |b| b.cu_seqlens_q[1] = 4,
            "cu_seqlens_q must ascend from 0 to 4",
        ),
        (
            |b| b.cu_seqlens_q[2] = 5,
            "cu_seqlens_q must ascend from 0 to 4",
        ),
        (
            |b| b.context_lens[0] = 2,
            "context_lens[0] is 2, with 3 tokens in this step",
        ),
        (|b| b.context_lens[0] = 9, "context_lens[0] is 9"),
        (
            |b| b.block_tables[1] = 5,
            "block_tables names block 5 for sequence 0; the cache has 5",
        ),
        (
            |b| b.positions[0] = 3,
            "token 0 is at position 3 in slot 18, expected 2 and 18",
        ),
        (
            |b| b.slot_mapping[3] = 1,
            "token 3 is at position 0 in slot 1, expected 0 and 0",
        ),
        (
            |b| b.block_copies = vec![1, 3, 1],
            "block_copies has 3 entries, expected pairs",
        ),
        (
            |b| b.block_copies = vec![1, 3, 5, 3],
            "block_copies names block 5; the cache has 5",
        ),
        (
            |b| b.block_copies = vec![1, 3, 1, 5],
            "block_copies names block 5; the cache has 5",
        ),
        (
            |b| b.block_copies = vec![1, 3, 3, 3],
            "block_copies copies block 3 to itself",
        ),
        (|b| b.logit_rows = vec![4], "logit_rows must ascend below 4"),
        (
            |b| b.logit_rows = vec![1, 1],
            "logit_rows must ascend below 4",
        ),
    ];
    for (spoil, expected) in cases {
        let mut batch = good();
        spoil(&mut batch);
        let error = model
            .forward(&batch, &mut cache)
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("step batch: {expected}")),
            "{error} / {expected}"
        );
    }
}

#[test]
fn copies_that_meet_in_a_block_are_taken_in_order() {
    let mut model = model(4, 4);
    let mut cache = model.new_cache(5, 4).unwrap();
    let mut batch = good();
    batch.block_copies = vec![4, 1, 2, 1, 1, 3];
    assert!(model.forward(&batch, &mut cache).is_ok());
}

#[test]
fn a_context_beyond_the_models_is_refused() {
    let mut model = model(80, 1);
    let mut cache = model.new_cache(40, 2).unwrap();
    let sequence = Sequence {
        ids: vec![3; 65],
        blocks: (0..33).collect(),
    };
    let mut batch = batch(&[sequence], &[(0, 0..65)], 2);
    batch.logit_rows = vec![64];
    let error = model
        .forward(&batch, &mut cache)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(error.contains("a model context of 64"), "{error}");
}

#[test]
fn only_the_rows_asked_for_are_returned_and_none_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path(), TINY, |_| {});
    let mut model = load(folder.path(), 4);
    let mut cache = model.new_cache(5, 4).unwrap();
    let all = model.forward(&good(), &mut cache).unwrap().to_vec();
    let mut few = good();
    few.logit_rows = vec![1, 3];
    let logits = model.forward(&few, &mut cache).unwrap();
    assert_eq!((logits.rows(), logits.len()), (2, 48));
    assert_eq!((logits.row(0), logits.row(1)), (&all[24..48], &all[72..96]));
    drop(logits);
    few.logit_rows.clear();
    assert!(model.forward(&few, &mut cache).unwrap().is_empty());
}

#[test]
fn more_logits_than_there_is_room_for_are_refused() {
    let mut model = model(4, 2);
    let mut cache = model.new_cache(5, 4).unwrap();
    let error = model
        .forward(&good(), &mut cache)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert_eq!(error, "step batch: 4 logit_rows; a step takes at most 2");
}

#[test]
fn caches_of_no_or_endless_size_are_refused() {
    let model = model(1, 1);
    for (blocks, size) in [(0, 16), (16, 0), (usize::MAX, 2), (1 << 31, 16)] {
        assert!(model.new_cache(blocks, size).is_err(), "{blocks} × {size}");
    }
}
