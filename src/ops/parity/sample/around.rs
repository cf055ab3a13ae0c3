//! What is around the choice: tables of counts before it, log-probabilities after it.

use super::{Batch, Buffer, logits};
use crate::ops::parity::{at, run};
use crate::ops::{self, Logprobs, NO_TOKEN, SampleRow};

#[test]
pub(in crate::ops::parity) fn count_tokens_matches_cpu() {
    let vocab = 70u32;
    let sequences: [(&[u32], &[u32]); 4] = [
        (&[3, 3, 69, 0], &[3, 69, 69, 5]),
        (&[1], &[]),
        (&[70, 71, u32::MAX], &[70, 2]),
        (&[8; 100], &[8; 77]),
    ];
    let (mut tokens, mut extents) = (Vec::new(), Vec::new());
    for (prompt, output) in sequences {
        let start = tokens.len();
        let prompt_end = start + prompt.len();
        tokens.extend([prompt, output].concat());
        extents.extend([start, prompt_end, tokens.len()].map(|place| place as u32));
    }
    let which = [4u32, 0, 1, 3];
    let (tokens, extents, which_at) = (
        Buffer::new(&tokens),
        Buffer::new(&extents),
        Buffer::new(&which),
    );
    let before = vec![9u32; 5 * vocab as usize];
    let counts = Buffer::new(&before);
    let tensors = [at(&tokens), at(&extents), at(&which_at), at(&counts)];
    run(ops::count_tokens_launch(tensors, 4, vocab));
    let mut expected = before;
    for (table, (prompt, output)) in which.into_iter().zip(sequences) {
        let table = &mut expected[table as usize * vocab as usize..][..vocab as usize];
        ops::count_tokens(prompt, output, table);
    }
    assert_eq!(counts.values(), expected);
}

#[test]
fn logprobs_match_cpu() {
    check_logprobs(&[(1, 1), (5, 8), (33, 20), (33, 32), (1000, 20), (3000, 32)]);
}

/// Ids, and most log-probabilities of a row. Of six rows, one asks for none.
pub(in crate::ops::parity) fn check_logprobs(cases: &[(usize, usize)]) {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let special = |vocab: usize| -> Vec<f32> {
        let values = [nan, -inf, 3.0, 3.0, -inf, 2.5];
        (0..vocab).map(|id| values[id % 6]).collect()
    };
    for &(vocab, width) in cases {
        let rows = [
            // The likeliest come last.
            (0..vocab).map(|id| id as f32 / 7.0).collect(),
            special(vocab),
            vec![nan; vocab],
            logits(2, vocab).iter().map(|x| x.round()).collect(),
            logits(3, vocab).iter().map(|x| 20.0 * x).collect(),
            logits(4, vocab),
        ];
        let mut batch = Batch::default();
        let asked = [
            Some(width as u32),
            Some(20),
            Some(2),
            Some(5),
            Some(0),
            None,
        ];
        for (row, logprobs) in rows.iter().zip(asked) {
            // What the sampler is asked for does not matter.
            batch.push(
                row,
                SampleRow {
                    logprobs,
                    temperature: 0.3,
                    top_k: Some(2),
                    ..SampleRow::default()
                },
            );
        }
        let ids: Vec<u32> = (0..6).map(|row| (row * 17 + 2) % vocab as u32).collect();
        let (logits, words, ids_at) =
            (Buffer::new(&batch.logits), batch.words(), Buffer::new(&ids));
        let chosen = Buffer::<f32>::poisoned(6);
        let (top_ids, top_logprobs) = (
            Buffer::<u32>::poisoned(6 * width),
            Buffer::<f32>::poisoned(6 * width),
        );
        let tensors = Logprobs {
            logits: at(&logits),
            rows: at(&words),
            ids: at(&ids_at),
            chosen: at(&chosen),
            top_ids: at(&top_ids),
            top_logprobs: at(&top_logprobs),
        };
        run(ops::logprobs_launch(tensors, 6, vocab as u32, width as u32));
        let (chosen, top_ids, top_logprobs) = (
            chosen.raw_values(),
            top_ids.raw_values(),
            top_logprobs.raw_values(),
        );
        for (row, asked) in asked.into_iter().enumerate() {
            let own_ids = &top_ids[row * width..][..width];
            let own = &top_logprobs[row * width..][..width];
            let Some(asked) = asked else {
                assert!(
                    own_ids.iter().all(|&bits| bits == 0xcccc_cccc)
                        && chosen[row].to_bits() == 0xcccc_cccc
                );
                continue;
            };
            let top = width.min(asked as usize);
            let (exact, mut likeliest) = ops::logprobs(&rows[row], ids[row], top);
            likeliest.resize(width, (NO_TOKEN, -inf));
            let expected_ids: Vec<u32> = likeliest.iter().map(|&(id, _)| id).collect();
            assert_eq!(own_ids, expected_ids, "row {row} of {vocab}");
            let pairs = own.iter().zip(likeliest.iter().map(|(_, exact)| exact));
            for (&given, &exact) in pairs.chain([(&chosen[row], &exact)]) {
                // The difference to the highest is rounded once, so is the one to the total; the total's relative error
                // is that of its weights (3 ln vocab + 2 halves of eps), its logarithm's is that absolute, and two more.
                let tolerance = f32::EPSILON * (exact.abs() + 1.5 * (vocab as f32).ln() + 3.0);
                assert!(
                    given == exact || (given - exact).abs() <= tolerance,
                    "row {row} of {vocab}: {given}, not {exact}"
                );
            }
        }
    }
}
