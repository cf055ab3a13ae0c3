//! The twin against the definitions, in f64.

use super::*;
use crate::ops::testing::floats;

/// The share of the probability that all roundings of weights together may move.
///
/// A token z times e less likely than the likeliest has an exponent of three roundings, z · 3 · 2⁻²⁴, and two more of the
/// series. Weighed by probability, z is on average at most the entropy, which is at most ln vocab. Twice, since both the
/// part and the whole are sums. Then what is cut.
fn moved(vocab: usize) -> f64 {
    let vocab = vocab as f64;
    2.0 * (3.0 * vocab.ln() + 2.0) * 2f64.powi(-24) + vocab * 2f64.powi(-44)
}

#[test]
fn weights_are_relative_probabilities() {
    assert_eq!(weight(3.5, 3.5, 0.7), UNIT);
    assert_eq!(weight(-80.0, 1.0, 1.0), 0);
    assert_eq!(weight(f32::MIN, f32::MAX, 1.0), 0);
    for temperature in [0.1, 1.0, 2.0] {
        for step in 0..40_000 {
            let logit = 11.0 - step as f32 / 1111.0;
            let z = (11.0 - f64::from(logit)) / f64::from(temperature);
            let given = weight(logit, 11.0, temperature) as f64 / UNIT as f64;
            let tolerance = (-z).exp() * (3.0 * z + 2.0) * 2f64.powi(-24) + 2f64.powi(-44);
            assert!((given - (-z).exp()).abs() <= tolerance, "{z}: {given}");
        }
    }
}

/// The token that the definitions give; `None` if a threshold or a boundary is so near that rounding may decide.
fn defined(logits: &[f32], row: &SampleRow) -> Option<u32> {
    let moved = moved(logits.len());
    let mut ranked: Vec<(u32, f64)> = (0u32..).zip(logits.iter().map(|&x| f64::from(x))).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked.truncate(row.top_k.map_or(usize::MAX, |k| k as usize));
    let highest = ranked[0].1;
    for (_, logit) in &mut ranked {
        *logit = ((*logit - highest) / f64::from(row.temperature)).exp();
    }
    let total: f64 = ranked.iter().map(|(_, weight)| weight).sum();
    let wanted = f64::from(row.top_p) * total;
    let mut mass = 0.0;
    if row.top_p < 1.0 {
        let mut near = false;
        let reached = ranked.iter().position(|&(_, weight)| {
            mass += weight;
            near |= (mass - wanted).abs() < moved * total;
            mass >= wanted
        });
        if near {
            return None;
        }
        ranked.truncate(reached? + 1);
    }
    let least = f64::from(row.min_p);
    if least > 0.0
        && ranked
            .iter()
            .any(|(_, weight)| (weight - least).abs() < moved)
    {
        return None;
    }
    ranked.retain(|&(_, weight)| weight >= least);
    ranked.sort_by_key(|&(id, _)| id);
    let total: f64 = ranked.iter().map(|(_, weight)| weight).sum();
    let uniform =
        (random_bits(row.seed, row.stream, row.place.into()) >> 11) as f64 / 2f64.powi(53);
    mass = 0.0;
    let (mut near, mut drawn) = (false, None);
    for (id, weight) in ranked {
        mass += weight;
        near |= (mass - uniform * total).abs() < moved * total;
        if drawn.is_none() && mass > uniform * total {
            drawn = Some(id);
        }
    }
    drawn.filter(|_| !near)
}

#[test]
fn the_twin_chooses_what_the_definitions_say() {
    let (mut sure, mut unsure) = (0, 0);
    for vocab in [1, 2, 33, 500] {
        for (case, temperature) in [0.3, 0.7, 1.0, 1.9].into_iter().enumerate() {
            for (top_k, top_p, min_p) in [
                (None, 1.0, 0.0),
                (Some(1), 1.0, 0.0),
                (Some(7), 1.0, 0.0),
                (None, 0.9, 0.0),
                (None, 0.3, 0.0),
                (None, 1.0, 0.1),
                (Some(20), 0.8, 0.05),
                (Some(400), 0.99, 0.001),
            ] {
                for place in 0..40 {
                    let seed = 1000 * vocab as u64 + 50 * case as u64 + place;
                    let logits: Vec<f32> = floats(seed, vocab).iter().map(|x| x * 6.0).collect();
                    let row = SampleRow {
                        temperature,
                        top_k,
                        top_p,
                        min_p,
                        seed,
                        place: place as u32,
                        ..SampleRow::default()
                    };
                    match defined(&logits, &row) {
                        Some(id) => {
                            sure += 1;
                            assert_eq!(
                                sample_row(&logits, &row, SampleTables::default()),
                                id,
                                "{row:?}"
                            );
                        }
                        None => unsure += 1,
                    }
                }
            }
        }
    }
    assert!(
        unsure * 100 < sure,
        "{unsure} of {sure} could not be judged"
    );
}

#[test]
fn tokens_are_drawn_as_often_as_they_are_likely() {
    // 20 tokens of 1 to 20 parts of 210, at temperature 0.5.
    let logits: Vec<f32> = (1..=20).map(|parts| 0.5 * (parts as f32).ln()).collect();
    let draws = 40_000u32;
    let mut counts = [0u32; 20];
    for seed in 0..draws {
        let row = SampleRow {
            temperature: 0.5,
            seed: u64::from(seed),
            ..SampleRow::default()
        };
        counts[sample_row(&logits, &row, SampleTables::default()) as usize] += 1;
    }
    let chi_square: f64 = (1..=20)
        .zip(counts)
        .map(|(parts, count)| {
            let expected = f64::from(parts) / 210.0 * f64::from(draws);
            (f64::from(count) - expected).powi(2) / expected
        })
        .sum();
    // 19 degrees of freedom: one draw in a thousand is above.
    assert!(chi_square < 43.82, "{counts:?}: {chi_square}");
}

#[test]
fn seed_stream_and_place_all_change_the_number() {
    let numbers = [
        random_bits(7, 0, 0),
        random_bits(8, 0, 0),
        random_bits(7 + (1 << 32), 0, 0),
        random_bits(7, 1, 0),
        random_bits(7, 0, 1),
    ];
    for (place, number) in numbers.iter().enumerate() {
        assert!(!numbers[..place].contains(number));
    }
}

#[test]
fn logprobs_are_logarithms_of_the_softmax() {
    let logits = [1.0f32, f32::NAN, 2.0, 0.5, 2.0, f32::NEG_INFINITY];
    let total: f64 = [1.0f64, 2.0, 0.5, 2.0].iter().map(|x| x.exp()).sum();
    let exact = |logit: f64| (logit.exp() / total).ln() as f32;
    let (own, likeliest) = logprobs(&logits, 3, 5);
    let none = (NO_TOKEN, f32::NEG_INFINITY);
    let expected = [
        (2, exact(2.0)),
        (4, exact(2.0)),
        (0, exact(1.0)),
        (3, exact(0.5)),
        none,
    ];
    // Two roundings to f32 of numbers below 2.
    assert!((own - exact(0.5)).abs() <= 2.0 * f32::EPSILON);
    for (given, expected) in likeliest.iter().zip(expected) {
        assert_eq!(given.0, expected.0);
        assert!(given.1 == expected.1 || (given.1 - expected.1).abs() <= 2.0 * f32::EPSILON);
    }
    assert_eq!(logprobs(&logits, 1, 0), (f32::NEG_INFINITY, vec![]));
    assert_eq!(logprobs(&[f32::NAN], 0, 1), (f32::NEG_INFINITY, vec![none]));
}
