//! The sampler against a slow one that can be checked by reading it.

use proptest::prelude::*;

use super::*;

/// The slow twin: sorts everything, and reads like the list at the top of the module.
fn slow(row: &[f32], sequence: &Sequence) -> TokenId {
    let params = sequence.sampling();
    let occurs = |tokens: &[TokenId], id: usize| {
        tokens.iter().filter(|&&token| token as usize == id).count()
    };
    let mut ranked: Vec<(TokenId, f32)> = Vec::new();
    for (id, &logit) in row.iter().enumerate() {
        let mut logit = logit;
        for &(_, bias) in params
            .logit_bias
            .iter()
            .filter(|(biased, _)| *biased as usize == id)
        {
            logit += bias;
        }
        if sequence
            .forbidden()
            .any(|forbidden| forbidden as usize == id)
        {
            continue;
        }
        if occurs(sequence.tokens(), id) > 0 {
            let penalty = params.repetition_penalty;
            logit = if logit > 0.0 {
                logit / penalty
            } else {
                logit * penalty
            };
        }
        let count = occurs(sequence.generated(), id);
        if count > 0 {
            logit -= params.frequency_penalty * count as f32 + params.presence_penalty;
        }
        if !logit.is_nan() && logit > f32::NEG_INFINITY {
            ranked.push((id as TokenId, logit.min(f32::MAX)));
        }
    }
    ranked.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
    if params.temperature == 0.0 {
        return ranked[0].0;
    }
    if let Some(k) = params.top_k {
        ranked.truncate(k as usize);
    }
    let max = f64::from(ranked[0].1);
    let weight = |logit: f32| ((f64::from(logit) - max) / f64::from(params.temperature)).exp();
    let mut kept: Vec<(TokenId, f64)> = ranked
        .iter()
        .map(|&(id, logit)| (id, weight(logit)))
        .collect();
    if params.top_p < 1.0 {
        let mut by_id = kept.clone();
        by_id.sort_by_key(|&(id, _)| id);
        let wanted = f64::from(params.top_p) * by_id.iter().map(|&(_, weight)| weight).sum::<f64>();
        let mut mass = 0.0;
        let reached = kept.iter().position(|&(_, weight)| {
            mass += weight;
            mass >= wanted
        });
        kept.truncate(reached.map_or(kept.len(), |last| last + 1));
    }
    kept.retain(|&(_, weight)| weight >= f64::from(params.min_p));
    kept.sort_by_key(|&(id, _)| id);
    let target = sequence.uniform() * kept.iter().map(|&(_, weight)| weight).sum::<f64>();
    let mut mass = 0.0;
    let drawn = kept.iter().find(|&&(_, weight)| {
        mass += weight;
        mass > target
    });
    drawn.unwrap_or(kept.last().unwrap()).0
}

fn logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -8.0_f32..8.0,
        // Ties, and what a broken model may return.
        4 => (-2_i8..3).prop_map(f32::from),
        1 => proptest::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MAX]),
    ]
}

prop_compose! {
    fn params()(
        temperature in prop_oneof![Just(0.0_f32), Just(1.0), 0.1_f32..2.0],
        top_p in prop_oneof![Just(1.0_f32), 0.01_f32..1.0],
        top_k in proptest::option::of(1_u32..400),
        min_p in prop_oneof![Just(0.0_f32), 0.0_f32..1.0],
        repetition_penalty in prop_oneof![Just(1.0_f32), 0.5_f32..2.0],
        frequency_penalty in prop_oneof![Just(0.0_f32), -2.0_f32..2.0],
        presence_penalty in prop_oneof![Just(0.0_f32), -2.0_f32..2.0],
        logit_bias in prop::collection::vec((0_u32..400, -100.0_f32..100.0), 0..3),
        seed in any::<u64>(),
    ) -> SamplingParams {
        SamplingParams {
            temperature, top_p, top_k, min_p, repetition_penalty, frequency_penalty, presence_penalty, logit_bias,
            seed: Some(seed),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_fast_sampler_chooses_what_the_slow_one_does(
        mut row in prop::collection::vec(logit(), 6..400),
        prompt in prop::collection::vec(0_u32..400, 1..20),
        output in prop::collection::vec(0_u32..400, 0..20),
        min_tokens in 0_usize..12,
        params in params(),
    ) {
        // The twin has no answer to a row without any probability, which has its own test.
        row[0] = 0.0;
        let mut sampler = Sampler::new(row.len());
        let mut sequence = sequence(&prompt, &output, params, min_tokens);
        for _ in 0..3 {
            let token = sampler.sample(&row, &sequence);
            prop_assert_eq!(token, slow(&row, &sequence));
            sequence.push(token, usize::MAX);
        }
    }
}
