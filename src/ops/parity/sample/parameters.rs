//! Every parameter alone and together, drawn from rows as models give them.

use super::{Batch, logits, parameters};
use crate::ops::sample::{UNIT, weight};
use crate::ops::{IN_PROMPT, SampleRow, SampleTables, sample_row};

#[test]
fn sample_matches_cpu() {
    for vocab in [1, 2, 31, 32, 33, 100, 1000] {
        let mut batch = Batch::default();
        for (place, row) in parameters().into_iter().enumerate() {
            let seeded = SampleRow {
                seed: 0x1234_5678_9abc_def0 + place as u64,
                stream: place as u32 % 3,
                place: 7 * place as u32,
                ..row
            };
            batch.push(&logits(place as u64, vocab), seeded);
        }
        batch.check();
    }
}

#[test]
fn sample_matches_cpu_with_bias_mask_and_penalties() {
    for vocab in [1, 33, 257] {
        let mut batch = Batch::default();
        for (place, row) in parameters().into_iter().enumerate() {
            let seed = 100 + place as u64;
            let penalised = SampleRow {
                seed,
                repetition_penalty: 1.3,
                frequency_penalty: 0.4,
                presence_penalty: -0.7,
                ..row
            };
            batch.push(&logits(seed, vocab), penalised);
            // All combinations, among them none.
            if place % 2 == 0 {
                batch.mask(|id| (id * id + place) % 7 < 3);
            }
            if place / 2 % 2 == 0 {
                batch.count();
            }
            if place / 4 % 2 == 0 {
                // An id twice, one that does not exist, one forbidden.
                let last = vocab as u32 - 1;
                batch.bias(&[
                    (last, 2.0),
                    (9, -3.5),
                    (last, 4.0),
                    (vocab as u32, 99.0),
                    (0, f32::NEG_INFINITY),
                ]);
            }
        }
        batch.check();
    }
}

#[test]
fn sample_matches_cpu_on_a_whole_vocabulary() {
    check_vocabulary(32_000);
}

/// The highest logit; all, the likeliest by one rule, and by all rules with a mask and penalties.
pub(in crate::ops::parity) fn check_vocabulary(vocab: usize) {
    let mut batch = Batch::default();
    for row in [
        SampleRow {
            temperature: 0.0,
            ..SampleRow::default()
        },
        SampleRow {
            seed: 1,
            ..SampleRow::default()
        },
        SampleRow {
            seed: 2,
            top_p: 0.9,
            ..SampleRow::default()
        },
        SampleRow {
            seed: 3,
            top_k: Some(50),
            top_p: 0.95,
            min_p: 0.01,
            temperature: 0.8,
            ..SampleRow::default()
        },
    ] {
        // Some above the rest, as a model's are.
        let spread: Vec<f32> = logits(row.seed, vocab)
            .iter()
            .map(|x| x * x * x / 40.0)
            .collect();
        batch.push(&spread, row);
    }
    batch.mask(|id| id % 3 != 0);
    batch.count();
    batch.check();
}

#[test]
fn sample_matches_cpu_where_a_warps_part_of_the_row_is_cut_twice() {
    let mut batch = Batch::default();
    let row = SampleRow {
        seed: 9,
        top_p: 0.7,
        ..SampleRow::default()
    };
    // Not a multiple of anything, and the cut goes through equals.
    let steps: Vec<f32> = logits(9, 131_071).iter().map(|x| x.round()).collect();
    batch.push(&steps, row);
    batch.check();
}

#[test]
fn a_row_chooses_the_same_alone_and_in_any_company() {
    let mut batch = Batch::default();
    for (place, row) in parameters().into_iter().enumerate() {
        let seed = place as u64;
        let row = SampleRow {
            seed,
            frequency_penalty: 1.0,
            repetition_penalty: 1.1,
            ..row
        };
        batch.push(&logits(seed, 300), row);
        if place % 3 == 0 {
            batch.count();
        }
    }
    let together = batch.check();
    for (place, row) in batch.rows.iter().enumerate() {
        let mut alone = Batch {
            rows: vec![row.clone()],
            ..batch.clone()
        };
        alone.logits = batch.logits[place * 300..][..300].to_vec();
        assert_eq!(alone.check(), [together[place]]);
    }
    let mut reversed = batch.clone();
    reversed.rows.reverse();
    reversed.logits = batch.logits.chunks(300).rev().flatten().copied().collect();
    let ids: Vec<u32> = together.into_iter().rev().collect();
    assert_eq!(reversed.check(), ids);
}

#[test]
fn tokens_are_drawn_on_the_device_as_often_as_they_are_likely() {
    // Probabilities at temperature 2, after a mask without id 1, top-k 5 and min-p: 4/15, none, 5/15, 3/15, 3/15, none, none.
    let weights = [4.0f32, 9.0, 5.0, 3.0, 3.0, 0.5, 0.2];
    let row = weights.map(|weight| 2.0 * weight.ln());
    let draws = 4000;
    let mut batch = Batch::default();
    for place in 0..draws {
        let how = SampleRow {
            temperature: 2.0,
            top_k: Some(5),
            min_p: 0.15,
            seed: 11,
            place,
            ..SampleRow::default()
        };
        batch.push(&row, how);
        batch.mask(|id| id != 1);
    }
    let mut counts = [0u32; 7];
    for id in batch.check() {
        counts[id as usize] += 1;
    }
    let expected = [4.0, 0.0, 5.0, 3.0, 3.0, 0.0, 0.0].map(|weight| weight / 15.0 * draws as f64);
    let mut chi_square = 0.0;
    for (count, expected) in counts.into_iter().zip(expected) {
        if expected == 0.0 {
            assert_eq!(count, 0);
        } else {
            chi_square += (count as f64 - expected).powi(2) / expected;
        }
    }
    // Three degrees of freedom: one draw in a thousand is above.
    assert!(chi_square < 16.27, "{counts:?}: {chi_square}");
}

#[test]
fn a_weight_has_the_same_bits_on_the_device() {
    // A number that draws the first of two tokens, however light it is, if only it is kept.
    let drawn = |place: &u32| {
        let row = SampleRow {
            place: *place,
            ..SampleRow::default()
        };
        sample_row(&[-6.9, 0.0], &row, SampleTables::default()) == 0
    };
    let place = (0..).find(drawn).unwrap();
    let mut batch = Batch::default();
    let mut expected = Vec::new();
    for step in 0..1500 {
        let (logit, temperature) = (1.7 - step as f32 / 333.0, 0.7);
        // The smallest share that keeps the first token is its weight, which has no more digits than f32 has.
        let share = weight(logit, 1.7, temperature) as f32 / UNIT as f32;
        for (min_p, id) in [(share, 0), (share.next_up(), u32::from(share < 1.0))] {
            let row = SampleRow {
                temperature,
                min_p,
                place,
                ..SampleRow::default()
            };
            batch.push(&[logit, 1.7], row);
            expected.push(id);
        }
    }
    assert_eq!(batch.check(), expected);
}

#[test]
fn penalties_move_the_logits_of_tokens_that_occurred() {
    let (repetition, frequency, presence) = ([2.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 1.0]);
    for (penalties, logits, counts, expected) in [
        // 4 / 2 = 2 and -1 * 2 = -2; a zero stays.
        (repetition, [4.0, -1.0, 2.1], [IN_PROMPT, 0, 0], 2),
        (repetition, [4.0, -1.0, 1.9], [3, 0, 0], 0),
        (repetition, [-9.0, -1.0, -1.9], [0, IN_PROMPT | 1, 0], 2),
        (repetition, [-9.0, -0.5, -0.9], [0, 1, 0], 2),
        (repetition, [0.0, -0.1, -0.1], [1, 0, 0], 0),
        // Occurrences in the output count each, those in the prompt do not.
        (frequency, [5.0, 2.5, 0.0], [IN_PROMPT | 2, 0, 0], 0),
        (frequency, [5.0, 2.5, 0.0], [3, IN_PROMPT, 0], 1),
        (presence, [5.0, 4.5, 0.0], [IN_PROMPT, 0, 0], 0),
        (presence, [5.0, 4.5, 0.0], [7, 0, 0], 1),
        (presence, [5.0, 3.5, 0.0], [7, 0, 0], 0),
        ([0.5, -1.0, -0.5], [1.0, 3.7, 3.2], [IN_PROMPT | 1, 0, 0], 1),
        ([0.5, -1.0, -0.5], [1.0, 3.4, 3.2], [IN_PROMPT | 1, 0, 0], 0),
    ] {
        let mut batch = Batch::default();
        let row = SampleRow {
            temperature: 0.0,
            repetition_penalty: penalties[0],
            frequency_penalty: penalties[1],
            presence_penalty: penalties[2],
            counts: Some(0),
            ..SampleRow::default()
        };
        batch.push(&logits, row);
        batch.counts.extend(counts);
        assert_eq!(
            batch.check(),
            [expected],
            "{penalties:?} {logits:?} {counts:?}"
        );
    }
}
