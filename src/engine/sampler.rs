//! Chooses a sequence's next token from a row of logits.
//!
//! In this order:
//! 1. `logit_bias` is added.
//! 2. Tokens that would end the sequence before `min_tokens` are excluded.
//! 3. Repetition, frequency and presence penalties.
//! 4. Temperature 0: the highest logit, and among equals the lowest id. Otherwise logits are divided by the temperature,
//! 5. and kept are: the `top_k` likeliest; of these the fewest likeliest whose probabilities (within the `top_k`)
//!    reach `top_p`; of these the ones at least `min_p` times as likely as the likeliest. Equals rank by id, low first.
//! 6. The sequence's own random number picks one of the kept, which lie in order of id, by probability.
//!
//! Each sum runs in one fixed order over one row, so a token depends on nothing but the row and the sequence. Logits
//! that are no number count as minus infinity; infinite ones as the largest number.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use super::request::{SamplingParams, TokenId};
use super::sequence::Sequence;

/// Samples rows of one vocabulary. Holds memory for its intermediate results and no state: the order of calls does not
/// matter.
#[derive(Debug, Clone)]
pub struct Sampler {
    /// The row, adjusted.
    logits: Vec<f32>,
    /// Relative to the likeliest token's, which is 1. Only entries of kept tokens are meaningful.
    weights: Vec<f64>,
    /// Tokens still in the running, in order of id.
    kept: Vec<TokenId>,
    /// The same by rank, as far as that had to be found out.
    ranked: Vec<TokenId>,
    /// How often each token occurs in the output; all 0 between calls.
    occurrences: Vec<u32>,
    /// Whether each token occurs at all; all false between calls.
    seen: Vec<bool>,
}

impl Sampler {
    /// A sampler for rows of `vocab_size` logits.
    pub fn new(vocab_size: usize) -> Self {
        Self {
            logits: Vec::with_capacity(vocab_size),
            weights: vec![0.0; vocab_size],
            kept: Vec::with_capacity(vocab_size),
            ranked: Vec::with_capacity(vocab_size),
            occurrences: vec![0; vocab_size],
            seen: vec![false; vocab_size],
        }
    }

    /// The next token of `sequence`, given the logits at its last token.
    ///
    /// # Panics
    /// If `row` is not as long as the vocabulary.
    pub fn sample(&mut self, row: &[f32], sequence: &Sequence) -> TokenId {
        assert_eq!(
            row.len(),
            self.weights.len(),
            "a row holds one logit per token. This is a bug."
        );
        let params = sequence.sampling();
        self.adjust(row, sequence);
        let Some(likeliest) = likeliest(&self.logits) else {
            // Nothing has a probability. The lowest id that may be chosen is as good as any, and always the same.
            let allowed = |id: &TokenId| !sequence.forbidden().any(|forbidden| forbidden == *id);
            return (0..row.len() as TokenId).find(allowed).unwrap_or(0);
        };
        if params.temperature.is_nan() || params.temperature <= 0.0 {
            return likeliest;
        }
        let max = self.logits[likeliest as usize];
        self.kept.clear();
        self.kept.extend(
            (0..row.len() as TokenId).filter(|&id| self.logits[id as usize] > f32::NEG_INFINITY),
        );
        self.keep_top_k(params);
        self.weigh(max, params);
        self.keep_top_p(params);
        self.keep_min_p(params);
        self.draw(sequence.uniform())
    }

    /// Steps 1 to 3, from `row` into `self.logits`; no NaN and no positive infinity is left.
    fn adjust(&mut self, row: &[f32], sequence: &Sequence) {
        let params = sequence.sampling();
        self.logits.clear();
        self.logits.extend_from_slice(row);
        for &(id, bias) in &params.logit_bias {
            if let Some(logit) = self.logits.get_mut(id as usize) {
                *logit += bias;
            }
        }
        for id in sequence.forbidden() {
            if let Some(logit) = self.logits.get_mut(id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        if params.repetition_penalty != 1.0
            || params.frequency_penalty != 0.0
            || params.presence_penalty != 0.0
        {
            self.penalise(params, sequence);
        }
        for logit in &mut self.logits {
            *logit = if logit.is_nan() {
                f32::NEG_INFINITY
            } else {
                logit.min(f32::MAX)
            };
        }
    }

    /// Step 3. Each token is adjusted once, whichever of its occurrences is met first.
    fn penalise(&mut self, params: &SamplingParams, sequence: &Sequence) {
        for &id in sequence.generated() {
            if let Some(count) = self.occurrences.get_mut(id as usize) {
                *count += 1;
            }
        }
        for &id in sequence.tokens() {
            let at = id as usize;
            if at >= self.logits.len() || self.seen[at] {
                continue;
            }
            self.seen[at] = true;
            let (count, logit) = (self.occurrences[at], &mut self.logits[at]);
            let penalty = params.repetition_penalty;
            *logit = if *logit > 0.0 {
                *logit / penalty
            } else {
                *logit * penalty
            };
            if count > 0 {
                *logit -= params.frequency_penalty * count as f32 + params.presence_penalty;
            }
        }
        for &id in sequence.tokens() {
            if let Some(seen) = self.seen.get_mut(id as usize) {
                *seen = false;
                self.occurrences[id as usize] = 0;
            }
        }
    }

    fn keep_top_k(&mut self, params: &SamplingParams) {
        let Some(k) = params
            .top_k
            .map(|k| k.max(1) as usize)
            .filter(|&k| k < self.kept.len())
        else {
            return;
        };
        self.ranked.clone_from(&self.kept);
        let logits = &self.logits;
        let (_, &mut last, _) = self
            .ranked
            .select_nth_unstable_by(k - 1, |a, b| rank(logits, *a, *b));
        self.kept.retain(|&id| rank(logits, id, last).is_le());
    }

    /// Fills in the weights of the kept tokens.
    fn weigh(&mut self, max: f32, params: &SamplingParams) {
        let (max, temperature) = (f64::from(max), f64::from(params.temperature));
        for &id in &self.kept {
            let logit = f64::from(self.logits[id as usize]);
            self.weights[id as usize] = ((logit - max) / temperature).exp();
        }
    }

    fn keep_top_p(&mut self, params: &SamplingParams) {
        if params.top_p.is_nan() || params.top_p >= 1.0 {
            return;
        }
        let (logits, weights) = (&self.logits, &self.weights);
        let total: f64 = self.kept.iter().map(|&id| weights[id as usize]).sum();
        let wanted = f64::from(params.top_p) * total;
        self.ranked.clone_from(&self.kept);
        // The nucleus is usually small: rank a few, and more only if they do not reach `wanted`.
        let (mut sorted, mut mass, mut last) = (0, 0.0, None);
        while sorted < self.ranked.len() && last.is_none() {
            let rest = &mut self.ranked[sorted..];
            let few = rest.len().min(FIRST_RANKED.max(sorted * 3));
            if few < rest.len() {
                rest.select_nth_unstable_by(few, |a, b| rank(logits, *a, *b));
            }
            rest[..few].sort_unstable_by(|a, b| rank(logits, *a, *b));
            last = rest[..few].iter().copied().find(|&id| {
                mass += weights[id as usize];
                mass >= wanted
            });
            sorted += few;
        }
        // Without a last one, rounding kept the mass of all below `wanted`: all are kept.
        if let Some(last) = last {
            self.kept.retain(|&id| rank(logits, id, last).is_le());
        }
    }

    fn keep_min_p(&mut self, params: &SamplingParams) {
        if params.min_p > 0.0 {
            // The likeliest has weight 1, so it stays whatever was asked.
            let least = f64::from(params.min_p).min(1.0);
            self.kept.retain(|&id| self.weights[id as usize] >= least);
        }
    }

    /// The kept token in whose stretch of the summed weights the fraction `uniform` of the total falls.
    fn draw(&self, uniform: f64) -> TokenId {
        let total: f64 = self.kept.iter().map(|&id| self.weights[id as usize]).sum();
        let target = uniform * total;
        let mut mass = 0.0;
        let mut chosen = None;
        for &id in &self.kept {
            let weight = self.weights[id as usize];
            mass += weight;
            // A token of weight 0 is never the answer, rounding at the end or not.
            if weight > 0.0 {
                chosen = Some(id);
                if mass > target {
                    break;
                }
            }
        }
        chosen.expect("the likeliest token is kept and has weight 1. This is a bug.")
    }
}

/// The id of the highest logit, the lowest one among equals; `None` if all are minus infinity.
fn likeliest(logits: &[f32]) -> Option<TokenId> {
    let (mut best, mut best_id) = (f32::NEG_INFINITY, None);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best {
            (best, best_id) = (logit, Some(id as TokenId));
        }
    }
    best_id
}

/// Orders tokens from likely to unlikely, equals by id. Total, because no logit is NaN.
fn rank(logits: &[f32], a: TokenId, b: TokenId) -> Ordering {
    let by_logit = logits[b as usize]
        .partial_cmp(&logits[a as usize])
        .unwrap_or(Ordering::Equal);
    by_logit.then(a.cmp(&b))
}

/// Tokens ranked at first in search of the `top_p` nucleus.
const FIRST_RANKED: usize = 64;
