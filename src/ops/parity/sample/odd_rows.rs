//! Rows of equals, of what is no number, and rows masked away.

use super::{Batch, Buffer, at, logits, run};
use crate::ops::testing::floats;
use crate::ops::{self, Sample, SampleRow};

#[test]
fn of_equals_the_lower_ids_are_kept() {
    let mut batch = Batch::default();
    let mut seed = 0;
    for steps in [0.0, 1.0, 2.0, 5.0] {
        // So few different values that every cut goes through equals; zeroes of both signs among them.
        let row: Vec<f32> = floats(3, 700).iter().map(|x| (x * steps).round()).collect();
        for top_k in [None, Some(1), Some(33), Some(300), Some(699)] {
            for top_p in [0.01, 0.5, 0.77, 1.0] {
                seed += 1;
                batch.push(
                    &row,
                    SampleRow {
                        top_k,
                        top_p,
                        seed,
                        ..SampleRow::default()
                    },
                );
            }
        }
    }
    batch.check();
    // All are equal: what is kept are the first ones.
    let mut flat = Batch::default();
    for seed in 0..100 {
        flat.push(
            &[1.5; 90],
            SampleRow {
                top_k: Some(40),
                top_p: 0.26,
                seed,
                ..SampleRow::default()
            },
        );
    }
    let mut ids = flat.check();
    ids.sort_unstable();
    ids.dedup();
    // 0.26 of 40 tokens are 10.4: eleven reach it.
    assert_eq!(ids, (0..11).collect::<Vec<u32>>());
}

#[test]
fn logits_that_are_no_numbers_do_no_harm() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let filtered = |temperature| SampleRow {
        temperature,
        top_k: Some(3),
        top_p: 0.9,
        min_p: 0.1,
        seed: 1,
        ..SampleRow::default()
    };
    for (row, expected) in [
        ([nan, 1.0, nan, inf, nan], Some(3)),
        ([-inf, inf, 0.0, 1.0, inf], None),
        ([-inf, nan, -inf, f32::MIN, nan], Some(3)),
        ([f32::MIN, f32::MAX, 0.0, 1.0, -1.0], Some(1)),
        ([nan; 5], Some(0)),
        ([-inf; 5], Some(0)),
        ([1e-45, -1e-45, -0.0, 0.0, -inf], None),
    ] {
        let mut batch = Batch::default();
        for temperature in [0.0, 1.0, 1e-45, 1e38] {
            batch.push(&row, filtered(temperature));
            batch.push(
                &row,
                SampleRow {
                    temperature,
                    seed: 5,
                    ..SampleRow::default()
                },
            );
        }
        let ids = batch.check();
        assert!(
            ids.iter()
                .all(|id| !row[*id as usize].is_nan() || row[0].is_nan())
        );
        if let Some(expected) = expected {
            assert_eq!(ids[2], expected);
        }
    }
}

#[test]
fn a_row_without_any_token_left_gives_the_lowest_that_is_not_forbidden() {
    let mut batch = Batch::default();
    let greedy = || SampleRow {
        temperature: 0.0,
        ..SampleRow::default()
    };
    for row in [greedy(), SampleRow::default()] {
        batch.push(&[0.5; 70], row.clone());
        batch.mask(|_| false);
        batch.push(&[f32::NAN; 70], row.clone());
        batch.mask(|id| id >= 65);
        batch.push(&[f32::NAN; 70], row.clone());
        batch.mask(|id| id >= 65);
        batch.bias(&[(66, 1.0), (65, f32::NEG_INFINITY), (67, f32::NEG_INFINITY)]);
        // All that the mask allows is forbidden.
        batch.push(&[0.5; 70], row);
        batch.mask(|id| id == 3);
        batch.bias(&[(3, f32::NEG_INFINITY)]);
    }
    assert_eq!(batch.check(), [0, 65, 66, 0, 0, 65, 66, 0]);
}

/// Nobody has written its logits, and nobody its id.
#[test]
fn a_row_of_zeroes_is_passed_over() {
    let filler = SampleRow {
        temperature: 0.0,
        top_p: 0.0,
        repetition_penalty: 0.0,
        ..SampleRow::default()
    };
    assert_eq!(filler.words(), [0; 16]);
    let greedy = SampleRow {
        temperature: 0.0,
        ..SampleRow::default()
    };
    let rows = [&filler, &greedy, &filler, &filler].map(SampleRow::words);
    let rows = Buffer::new(&rows.concat());
    let (logits, ids) = (Buffer::<f32>::poisoned(4 * 3), Buffer::<u32>::poisoned(4));
    logits.write(3, &[0.5, 2.0, 1.0]);
    let untouched = ids.raw_values();
    let nowhere = at(&rows);
    let tensors = Sample {
        logits: at(&logits),
        rows: at(&rows),
        bias: nowhere,
        masks: nowhere,
        counts: nowhere,
        adjusted: nowhere,
        ids: at(&ids),
    };
    run(ops::sample_launch(tensors, 4, 3));
    let given = ids.raw_values();
    assert_eq!(given[1], 1);
    for filler in [0, 2, 3] {
        assert_eq!(given[filler], untouched[filler]);
    }
}

#[test]
fn a_masked_token_is_never_chosen() {
    let mut batch = Batch::default();
    for seed in 0..200 {
        batch.push(
            &logits(seed, 40),
            SampleRow {
                seed,
                temperature: 2.0,
                ..SampleRow::default()
            },
        );
        batch.mask(|id| id == 17 || id == 39);
    }
    let ids = batch.check();
    assert!(ids.contains(&17) && ids.contains(&39));
    assert!(ids.iter().all(|id| [17, 39].contains(id)));
}
