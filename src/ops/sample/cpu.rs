//! What the sampling kernels compute, on one row, written to be read: it sorts the whole vocabulary.

use std::cmp::Ordering;

use super::{IN_PROMPT, NO_TOKEN, SampleRow, random_bits};

/// The tables that rows name their parts of.
#[derive(Debug, Clone, Copy, Default)]
pub struct SampleTables<'a> {
    /// Ids and what is added to their logits
    pub bias: &'a [(u32, f32)],
    /// `[num_masks, ⌈vocab / 32⌉]`
    pub masks: &'a [u32],
    /// `[num_tables, vocab]`
    pub counts: &'a [u32],
}

/// The next token, given its row of `logits`: the same one that the device chooses. Does not count it.
///
/// A row without any probability (no number in it, or all ids masked) gives the lowest id that neither the mask nor a bias
/// of minus infinity forbids, or else 0.
///
/// # Panics
/// If `row` names parts that `tables` does not have.
pub fn sample_row(logits: &[f32], row: &SampleRow, tables: SampleTables<'_>) -> u32 {
    let adjusted = adjusted(logits, row, tables);
    let mut ranked: Vec<(u32, f32)> = (0u32..)
        .zip(adjusted)
        .filter(|&(_, logit)| logit > f32::NEG_INFINITY)
        .collect();
    ranked.sort_by(by_rank);
    let Some(&(likeliest, highest)) = ranked.first() else {
        let bias = &tables.bias[row.bias.start as usize..row.bias.end as usize];
        let allowed = |id: &u32| {
            allows(row, tables, logits.len(), *id) && !bias.contains(&(*id, f32::NEG_INFINITY))
        };
        return (0..logits.len() as u32).find(allowed).unwrap_or(0);
    };
    if row.temperature.is_nan() || row.temperature <= 0.0 {
        return likeliest;
    }
    if let Some(k) = row.top_k {
        ranked.truncate(k.max(1) as usize);
    }
    let mut kept: Vec<(u32, u64)> = ranked
        .into_iter()
        .map(|(id, logit)| (id, weight(logit, highest, row.temperature)))
        .collect();
    if row.top_p < 1.0 {
        // Saturates at 0; 2⁶⁴ times a number of 24 digits is whole.
        let part = (row.top_p * 2f32.powi(64)) as u64;
        let wanted = (u128::from(part) * u128::from(total(&kept))).div_ceil(1 << 64);
        let mut mass = 0u128;
        let reached = kept.iter().position(|&(_, weight)| {
            mass += u128::from(weight);
            mass >= wanted
        });
        kept.truncate(reached.map_or(kept.len(), |last| last + 1));
    }
    if row.min_p > 0.0 {
        let least = (row.min_p.min(1.0) * UNIT as f32).ceil() as u64;
        kept.retain(|&(_, weight)| weight >= least);
    }
    kept.sort_by_key(|&(id, _)| id);
    let random = random_bits(row.seed, row.stream, row.place.into()) & !0x7ff;
    let target = (u128::from(random) * u128::from(total(&kept))) >> 64;
    let mut mass = 0u128;
    let drawn = kept.iter().find(|&&(_, weight)| {
        mass += u128::from(weight);
        mass > target
    });
    drawn.map_or(likeliest, |&(id, _)| id)
}

/// The log-probability of `chosen` and, likeliest first, ids and log-probabilities of the `top` likeliest tokens.
///
/// They are of the logits as the model gave them: before bias, penalties, mask, temperature and filters. Equals rank by id,
/// low first. Tokens of probability 0 are not among the likeliest; [`NO_TOKEN`] and minus infinity fill up their places.
/// Where nothing has a probability, the chosen token has minus infinity, too. Sums in f64.
///
/// # Panics
/// If `chosen` is not in the row.
pub fn logprobs(logits: &[f32], chosen: u32, top: usize) -> (f32, Vec<(u32, f32)>) {
    let mut ranked: Vec<(u32, f32)> = (0u32..).zip(logits.iter().map(|&x| cleaned(x))).collect();
    let own = ranked[chosen as usize].1;
    ranked.retain(|&(_, logit)| logit > f32::NEG_INFINITY);
    ranked.sort_by(by_rank);
    let highest = ranked.first().map_or(0.0, |first| f64::from(first.1));
    let relative = |logit: f32| f64::from(logit) - highest;
    let log_total = ranked
        .iter()
        .map(|&(_, logit)| relative(logit).exp())
        .sum::<f64>()
        .ln();
    let logprob = |logit: f32| match logit {
        f32::NEG_INFINITY => logit,
        _ => (relative(logit) - log_total) as f32,
    };
    let mut likeliest: Vec<(u32, f32)> = ranked
        .iter()
        .take(top)
        .map(|&(id, logit)| (id, logprob(logit)))
        .collect();
    likeliest.resize(top, (NO_TOKEN, f32::NEG_INFINITY));
    (logprob(own), likeliest)
}

/// Makes a sequence's table of counts: `table[id]` is how often `id` occurs in `output`, with [`IN_PROMPT`] on top if
/// `prompt` has it. Ids that the table does not have are passed over.
pub fn count_tokens(prompt: &[u32], output: &[u32], table: &mut [u32]) {
    table.fill(0);
    for &id in prompt {
        if let Some(count) = table.get_mut(id as usize) {
            *count = IN_PROMPT;
        }
    }
    for &id in output {
        if let Some(count) = table.get_mut(id as usize) {
            *count += 1;
        }
    }
}

/// Bias, penalties and mask; no NaN and no positive infinity is left.
fn adjusted(logits: &[f32], row: &SampleRow, tables: SampleTables<'_>) -> Vec<f32> {
    let vocab = logits.len();
    let mut adjusted = logits.to_vec();
    for &(id, bias) in &tables.bias[row.bias.start as usize..row.bias.end as usize] {
        if let Some(logit) = adjusted.get_mut(id as usize) {
            *logit += bias;
        }
    }
    if let Some(table) = row.counts {
        let counts = &tables.counts[table as usize * vocab..][..vocab];
        for (logit, &count) in adjusted.iter_mut().zip(counts) {
            let times = count & !IN_PROMPT;
            if count > 0 {
                *logit = if *logit > 0.0 {
                    *logit / row.repetition_penalty
                } else {
                    *logit * row.repetition_penalty
                };
            }
            if times > 0 {
                *logit -= row.frequency_penalty * times as f32 + row.presence_penalty;
            }
        }
    }
    for (id, logit) in (0u32..).zip(&mut adjusted) {
        *logit = if allows(row, tables, vocab, id) {
            cleaned(*logit)
        } else {
            f32::NEG_INFINITY
        };
    }
    adjusted
}

/// Whether the row's mask allows an id.
fn allows(row: &SampleRow, tables: SampleTables<'_>, vocab: usize, id: u32) -> bool {
    row.mask.is_none_or(|mask| {
        let words = &tables.masks[mask as usize * vocab.div_ceil(32)..];
        words[id as usize / 32] >> (id % 32) & 1 == 1
    })
}

fn cleaned(logit: f32) -> f32 {
    if logit.is_nan() {
        f32::NEG_INFINITY
    } else {
        logit.min(f32::MAX)
    }
}

/// Likely ones first, equals by id. No logit is NaN.
fn by_rank(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    let by_logit = b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal);
    by_logit.then(a.0.cmp(&b.0))
}

fn total(kept: &[(u32, u64)]) -> u64 {
    kept.iter().map(|&(_, weight)| weight).sum()
}

/// `2⁴⁴ · e^((logit − highest) / temperature)`, cut to a whole number, by the same roundings as `Scale::weight` in
/// `kernels/sampling.cuh`.
///
/// A power of two with a whole part and a rest, of which Taylor's series over −½ ..= ½ has a remainder below 2⁻²⁷.
pub(in crate::ops) fn weight(logit: f32, highest: f32, temperature: f32) -> u64 {
    // Adding 1.5 × 2²³ rounds to a whole number, which sits in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let factor = ((std::f64::consts::LOG2_E / f64::from(temperature)) as f32).min(f32::MAX);
    let y = ((logit - highest) * factor).max(-64.0);
    let rounded = y + ROUND;
    let whole = rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let rest = y - (rounded - ROUND);
    let power = SERIES
        .iter()
        .fold(0.0f32, |power, &term| power.mul_add(rest, term));
    let digits = power.to_bits() & 0x7f_ffff | 0x80_0000;
    let shift = (power.to_bits() >> 23) as i32 - 127 + whole + UNIT.ilog2() as i32 - 23;
    if shift >= 0 {
        u64::from(digits) << shift
    } else {
        u64::from(digits >> (-shift).min(31))
    }
}

/// The likeliest token's weight.
pub(in crate::ops) const UNIT: u64 = 1 << 44;
/// `(ln 2)ⁿ / n!`, from n = 7 down.
const SERIES: [f32; 8] = [
    1.525_273_4e-5,
    1.540_353e-4,
    1.333_355_8e-3,
    9.618_129e-3,
    5.550_411e-2,
    2.402_265e-1,
    6.931_472e-1,
    1.0,
];
