mod device;
mod twin;

use std::collections::HashSet;

use super::*;
use crate::engine::fake::sequences;
use crate::engine::{Request, StopConditions};

const EOS: TokenId = 3;

/// A sequence that has generated `output` after `prompt`.
fn sequence(
    prompt: &[TokenId],
    output: &[TokenId],
    sampling: SamplingParams,
    min_tokens: usize,
) -> Sequence {
    let until = StopConditions {
        max_tokens: usize::MAX,
        min_tokens,
        stop_token_ids: vec![4],
        ignore_eos: false,
    };
    let request = Request {
        prompt: prompt.into(),
        n: 1,
        sampling,
        until,
        cache_salt: None,
    };
    let mut sequence = sequences(0, request, EOS).remove(0);
    for &token in output {
        sequence.push(token, usize::MAX);
    }
    sequence
}

fn greedy() -> SamplingParams {
    SamplingParams {
        temperature: 0.0,
        ..SamplingParams::default()
    }
}

fn sample(row: &[f32], sequence: &Sequence) -> TokenId {
    Sampler::new(row.len()).sample(row, sequence)
}

/// All tokens that 2000 different seeds choose.
fn reachable(row: &[f32], params: &SamplingParams) -> HashSet<TokenId> {
    let with = |seed| SamplingParams {
        seed: Some(seed),
        ..params.clone()
    };
    (0..2000)
        .map(|seed| sample(row, &sequence(&[0], &[], with(seed), 0)))
        .collect()
}

#[test]
fn greedy_takes_the_highest_logit_and_the_lowest_id_among_equals() {
    assert_eq!(
        sample(&[0.5, 2.0, -1.0, 2.0], &sequence(&[0], &[], greedy(), 0)),
        1
    );
    assert_eq!(sample(&[-0.0, 0.0], &sequence(&[0], &[], greedy(), 0)), 0);
}

#[test]
fn logits_that_are_no_numbers_do_no_harm() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let drawn = SamplingParams {
        top_k: Some(3),
        top_p: 0.9,
        min_p: 0.1,
        seed: Some(1),
        ..SamplingParams::default()
    };
    for params in [greedy(), drawn] {
        let sequence = sequence(&[0], &[], params, 1);
        assert_eq!(sample(&[nan, 1.0, nan, inf, nan], &sequence), 1);
        assert_eq!(sample(&[nan, -inf, 0.0, 1.0, 1.0], &sequence), 2);
        assert_eq!(sample(&[-inf, inf, 0.0, 1.0, 1.0], &sequence), 1);
        assert_eq!(sample(&[nan; 5], &sequence), 0);
    }
}

#[test]
fn a_row_without_any_probability_still_does_not_end_a_sequence_early() {
    let params = SamplingParams {
        logit_bias: vec![(0, f32::NAN)],
        ..greedy()
    };
    let until = StopConditions {
        max_tokens: 9,
        min_tokens: 1,
        stop_token_ids: vec![0, 1],
        ignore_eos: false,
    };
    let request = Request {
        prompt: [0].into(),
        n: 1,
        sampling: params,
        until,
        cache_salt: None,
    };
    let sequence = sequences(0, request, EOS).remove(0);
    assert_eq!(sample(&[f32::NAN; 5], &sequence), 2);
}

#[test]
fn neither_eos_nor_stop_ids_are_chosen_before_min_tokens() {
    let row = [0.0, 1.0, 2.0, 9.0, 8.0];
    assert_eq!(sample(&row, &sequence(&[0], &[], greedy(), 2)), 2);
    assert_eq!(sample(&row, &sequence(&[0], &[2], greedy(), 2)), 2);
    assert_eq!(sample(&row, &sequence(&[0], &[2, 2], greedy(), 2)), EOS);
}

#[test]
fn bias_reaches_a_token_before_anything_else_and_unknown_ids_are_passed_over() {
    let params = SamplingParams {
        logit_bias: vec![(1, 5.0), (99, 100.0)],
        ..greedy()
    };
    assert_eq!(sample(&[3.0, 0.0, 0.0], &sequence(&[0], &[], params, 0)), 1);
    let params = SamplingParams {
        logit_bias: vec![(EOS, 100.0)],
        ..greedy()
    };
    assert_eq!(
        sample(&[3.0, 0.0, 0.0, 0.0], &sequence(&[0], &[], params, 1)),
        0
    );
}

#[test]
fn repetition_penalty_counts_prompt_and_output_once_and_moves_both_signs_down() {
    let params = SamplingParams {
        repetition_penalty: 2.0,
        ..greedy()
    };
    // Token 0: 4 / 2 = 2. Token 1: -1 × 2 = -2.
    assert_eq!(
        sample(
            &[4.0, -1.0, 2.1],
            &sequence(&[0, 0, 0], &[0], params.clone(), 0)
        ),
        2
    );
    assert_eq!(
        sample(
            &[4.0, -1.0, 1.9],
            &sequence(&[0, 0, 0], &[0], params.clone(), 0)
        ),
        0
    );
    assert_eq!(
        sample(&[-9.0, -1.0, -1.9], &sequence(&[1], &[], params, 0)),
        2
    );
}

#[test]
fn frequency_penalty_counts_occurrences_in_the_output_and_presence_penalty_one() {
    let params = SamplingParams {
        frequency_penalty: 1.0,
        ..greedy()
    };
    assert_eq!(
        sample(
            &[5.0, 2.5, 0.0],
            &sequence(&[0, 0, 0], &[0, 0], params.clone(), 0)
        ),
        0
    );
    assert_eq!(
        sample(&[5.0, 2.5, 0.0], &sequence(&[1], &[0, 0, 0], params, 0)),
        1
    );
    let params = SamplingParams {
        presence_penalty: 1.0,
        ..greedy()
    };
    assert_eq!(
        sample(&[5.0, 4.5, 0.0], &sequence(&[0], &[], params.clone(), 0)),
        0
    );
    assert_eq!(
        sample(
            &[5.0, 4.5, 0.0],
            &sequence(&[1], &[0, 0, 0], params.clone(), 0)
        ),
        1
    );
    assert_eq!(
        sample(&[5.0, 3.5, 0.0], &sequence(&[1], &[0, 0, 0], params, 0)),
        0
    );
}

#[test]
fn a_sampler_remembers_nothing_of_the_row_before() {
    let params = SamplingParams {
        repetition_penalty: 3.0,
        presence_penalty: 2.0,
        seed: Some(4),
        ..greedy()
    };
    let mut sampler = Sampler::new(5);
    sampler.sample(
        &[9.0, 1.0, 7.0, 0.0, 2.0],
        &sequence(&[0, 2, 4], &[1, 1], params.clone(), 3),
    );
    assert_eq!(
        sampler.sample(&[3.0, 2.9, 2.8, 2.7, 2.6], &sequence(&[4], &[4], params, 0)),
        0
    );
}

#[test]
fn filters_keep_what_they_say() {
    // Probabilities 0.5, 0.25, 0.125, 0.125 at ids 2, 0, 1, 3.
    let row = [0.25_f32, 0.125, 0.5, 0.125].map(f32::ln);
    let plain = SamplingParams::default();
    assert_eq!(reachable(&row, &plain), [0, 1, 2, 3].into());
    assert_eq!(
        reachable(
            &row,
            &SamplingParams {
                top_k: Some(1),
                ..plain.clone()
            }
        ),
        [2].into()
    );
    assert_eq!(
        reachable(
            &row,
            &SamplingParams {
                top_k: Some(3),
                ..plain.clone()
            }
        ),
        [2, 0, 1].into()
    );
    assert_eq!(
        reachable(
            &row,
            &SamplingParams {
                top_p: 0.4,
                ..plain.clone()
            }
        ),
        [2].into()
    );
    assert_eq!(
        reachable(
            &row,
            &SamplingParams {
                top_p: 0.7,
                ..plain.clone()
            }
        ),
        [2, 0].into()
    );
    assert_eq!(
        reachable(
            &row,
            &SamplingParams {
                top_p: 0.8,
                ..plain.clone()
            }
        ),
        [2, 0, 1].into()
    );
    assert_eq!(
        reachable(
            &row,
            &SamplingParams {
                min_p: 0.4,
                ..plain.clone()
            }
        ),
        [2, 0].into()
    );
    assert_eq!(
        reachable(
            &row,
            &SamplingParams {
                min_p: 1.0,
                ..plain.clone()
            }
        ),
        [2].into()
    );
    // Of the two likeliest, the first has 2/3: it alone reaches a `top_p` that it would not reach of all.
    assert_eq!(
        reachable(
            &row,
            &SamplingParams {
                top_k: Some(2),
                top_p: 0.6,
                ..plain
            }
        ),
        [2].into()
    );
}

#[test]
fn tokens_are_drawn_as_often_as_they_are_likely() {
    let probabilities = [0.1_f32, 0.2, 0.3, 0.4];
    let row = probabilities.map(|p| 2.0 * p.ln());
    let mut counts = [0; 4];
    for seed in 0..10_000 {
        let params = SamplingParams {
            temperature: 2.0,
            seed: Some(seed),
            ..SamplingParams::default()
        };
        counts[sample(&row, &sequence(&[0], &[], params, 0)) as usize] += 1;
    }
    for (count, probability) in counts.into_iter().zip(probabilities) {
        // Four standard deviations of a binomial count, which is 49 at most.
        assert!(
            (count as f32 - 10_000.0 * probability).abs() < 200.0,
            "{counts:?}"
        );
    }
}

#[test]
fn a_tiny_temperature_is_as_good_as_greedy() {
    let params = SamplingParams {
        temperature: f32::MIN_POSITIVE,
        seed: Some(1),
        ..SamplingParams::default()
    };
    assert_eq!(
        sample(
            &[1.0, f32::MIN, 1.000_001, f32::NEG_INFINITY],
            &sequence(&[0], &[], params, 0)
        ),
        2
    );
}
