//! The sampler against the device's choice: other sums, the same definitions and the same random numbers.

use super::*;
use crate::ops::testing::floats;
use crate::ops::{SampleRow, SampleTables, count_tokens, sample_row};

/// What the device chooses for a sequence. Ids that may not be chosen yet are biases of minus infinity, after the others.
fn on_the_device(row: &[f32], sequence: &Sequence) -> TokenId {
    let params = sequence.sampling();
    let forbidden = sequence.forbidden().map(|id| (id, f32::NEG_INFINITY));
    let bias: Vec<(TokenId, f32)> = params.logit_bias.iter().copied().chain(forbidden).collect();
    let mut counts = vec![0; row.len()];
    count_tokens(sequence.prompt(), sequence.generated(), &mut counts);
    let how = SampleRow {
        temperature: params.temperature,
        top_p: params.top_p,
        min_p: params.min_p,
        repetition_penalty: params.repetition_penalty,
        frequency_penalty: params.frequency_penalty,
        presence_penalty: params.presence_penalty,
        top_k: params.top_k,
        seed: params.seed.unwrap_or(0),
        stream: sequence.id().index,
        place: sequence.generated().len() as u32,
        counts: Some(0),
        mask: None,
        bias: 0..bias.len() as u32,
        logprobs: None,
    };
    let tables = SampleTables {
        bias: &bias,
        counts: &counts,
        ..SampleTables::default()
    };
    sample_row(row, &how, tables)
}

#[test]
fn the_device_chooses_the_same_tokens_by_the_same_random_numbers() {
    for seed in 0..3000u64 {
        // Digits of a mixed number, so that all combinations come.
        let digit = |place: u32| (seed / 3u64.pow(place) % 3) as usize;
        let params = SamplingParams {
            temperature: [1.0, 0.6, 0.0][digit(0)],
            top_k: [None, Some(5), Some(40)][digit(1)],
            top_p: [1.0, 0.9, 0.4][digit(2)],
            min_p: [0.0, 0.02, 0.3][digit(3)],
            repetition_penalty: [1.0, 1.2, 0.9][digit(4)],
            frequency_penalty: [0.0, 0.5, -0.3][digit(5)],
            presence_penalty: [0.0, 0.7, -0.7][digit(6)],
            logit_bias: vec![(7, 3.0), (9, -2.0), (7, 1.5), (EOS, 9.0)],
            seed: Some(seed),
        };
        let row: Vec<f32> = floats(seed, 200).iter().map(|x| 6.0 * x).collect();
        let output: Vec<TokenId> = (0..seed as TokenId % 5)
            .map(|place| place % 2 + 10)
            .collect();
        let sequence = sequence(&[0, 7, 11, 11], &output, params, 2);
        assert_eq!(
            sample(&row, &sequence),
            on_the_device(&row, &sequence),
            "seed {seed}"
        );
    }
}
