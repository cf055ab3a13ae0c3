//! The next token of each row of logits, chosen on the device; log-probabilities; the tables of counts for penalties.
//!
//! The steps and their order are those of the engine's sampler: bias, penalties, mask, then the highest logit or, with a
//! temperature: `top_k`, of these `top_p`, of these `min_p`, and a draw. Equals rank by id, low first. Logits that are no
//! number count as minus infinity; infinite ones as the largest number.
//!
//! # The draw
//!
//! Each token has a weight: its probability relative to the likeliest, in units of 2⁻⁴⁴, cut to whole ones. The kept
//! tokens lie in order of id, each as long as its weight, and a fraction of the whole length picks one: 53 random bits,
//! made of the seed, the stream and the place by Philox, as the engine's own. Lengths are whole numbers, so their sums
//! have no rounding, whatever adds them in which order. Device and CPU compute a weight by the same roundings: they
//! choose the same token, not only nearly so. The engine's sampler today adds weights in f64: it may choose the neighbour
//! where the fraction falls within some 10⁻⁶ of a boundary, and never chooses differently on purpose.

mod cpu;
mod philox;

use std::ops::Range;

use super::launch::{Address, Launch, threads_for};

pub use cpu::{SampleTables, count_tokens, logprobs, sample_row};
#[cfg(test)]
pub(super) use cpu::{UNIT, weight};
pub use philox::random_bits;

/// How one row's token is chosen, and where the row's parts of the tables are.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRow {
    /// Logits are divided by it; 0, less or NaN: the highest one is taken.
    pub temperature: f32,
    /// Keep the fewest likeliest tokens whose probabilities sum to at least this; 1, more or NaN keeps all.
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the likeliest; 0, less or NaN keeps all.
    pub min_p: f32,
    /// Divides (positive) or multiplies (other) logits of tokens that occurred in prompt or output; 1 does nothing.
    pub repetition_penalty: f32,
    /// Subtracted once per occurrence in the output.
    pub frequency_penalty: f32,
    /// Subtracted once if the token occurs in the output.
    pub presence_penalty: f32,
    /// Keep the `k` likeliest tokens, at least one; `None` keeps all.
    pub top_k: Option<u32>,
    /// The key of the random numbers.
    pub seed: u64,
    /// Which of the seed's streams: the request's sequence.
    pub stream: u32,
    /// The number's place in the stream: how many tokens the sequence has generated.
    pub place: u32,
    /// The row of the table of counts that penalties go by and in which the chosen token is counted; `None`: no penalties.
    pub counts: Option<u32>,
    /// The row of masks; `None`: all ids are allowed.
    pub mask: Option<u32>,
    /// The entries of the list of biases. An entry of minus infinity forbids its id.
    pub bias: Range<u32>,
    /// `Some(n)`: log-probabilities of the chosen token and of the `n` likeliest, at most 32.
    pub logprobs: Option<u32>,
}

impl Default for SampleRow {
    /// Plain sampling at temperature 1.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            top_k: None,
            seed: 0,
            stream: 0,
            place: 0,
            counts: None,
            mask: None,
            bias: 0..0,
            logprobs: None,
        }
    }
}

impl SampleRow {
    /// As the kernels read it (`SampleRow` in `kernels/sampling.cuh`). Words that are all zero, as nobody's row has them,
    /// are passed over: a repetition penalty is above 0.
    pub fn words(&self) -> [u32; 16] {
        [
            self.temperature.to_bits(),
            self.top_p.to_bits(),
            self.min_p.to_bits(),
            self.repetition_penalty.to_bits(),
            self.frequency_penalty.to_bits(),
            self.presence_penalty.to_bits(),
            self.top_k.map_or(0, |k| k.max(1)),
            self.seed as u32,
            (self.seed >> 32) as u32,
            self.stream,
            self.place,
            self.counts.map_or(0, |table| table + 1),
            self.mask.map_or(0, |mask| mask + 1),
            self.bias.start,
            self.bias.end,
            self.logprobs.map_or(0, |n| n.saturating_add(1)),
        ]
    }
}

/// Where the tensors of [`sample_launch`] lie. What no row names may be anywhere.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// `[num_rows, vocab]`, f32
    pub logits: Address,
    /// `[num_rows, 16]`, u32: [`SampleRow::words`]; no two with the same counts
    pub rows: Address,
    /// `[num_biases, 2]`, u32: an id, and the bits of the f32 that is added to its logit; ids from `vocab` on are passed
    /// over
    pub bias: Address,
    /// `[num_masks, ⌈vocab / 32⌉]`, u32: id `i` is allowed if bit `i % 32` of word `i / 32` is set
    pub masks: Address,
    /// `[num_tables, vocab]`, u32, read and written: occurrences in the output, and [`IN_PROMPT`] for tokens of the
    /// prompt
    ///
    /// 125 KiB per sequence with penalties = 32,000 ids × 4 B. It stays on the device: `sample` counts what it chooses,
    /// [`count_tokens_launch`] makes the table when a sequence gets its row.
    pub counts: Address,
    /// `[num_rows, vocab]`, f32, scratch for rows with bias, mask or counts
    pub adjusted: Address,
    /// `[num_rows]`, u32, written but for rows of zeros
    pub ids: Address,
}

/// Launches the choice of one token per row (`kernels/sample.cu`). [`sample_row`] says which.
///
/// `vocab` is at least 1 and below 2¹⁹.
pub fn sample_launch(at: Sample, num_rows: u32, vocab: u32) -> Launch {
    let arguments = vec![
        at.logits.into(),
        at.rows.into(),
        at.bias.into(),
        at.masks.into(),
        at.counts.into(),
        at.adjusted.into(),
        at.ids.into(),
        vocab.into(),
    ];
    Launch::linear("sample", num_rows, threads_for(vocab, 1024), arguments)
}

/// Launches [`count_tokens`] (`kernels/sample.cu`) for each of some tables.
///
/// - `tokens`: `[num_tokens]`, u32: prompt and output of the sequences, one after the other
/// - `extents`: `[num_sequences, 3]`, u32: where a sequence starts in `tokens`, where its prompt ends, where its output does
/// - `which`: `[num_sequences]`, u32: the row of `counts` of each, no two the same
/// - `counts`: `[num_tables, vocab]`, u32, those rows written
pub fn count_tokens_launch(
    [tokens, extents, which, counts]: [Address; 4],
    num_sequences: u32,
    vocab: u32,
) -> Launch {
    let arguments = vec![
        tokens.into(),
        extents.into(),
        which.into(),
        counts.into(),
        vocab.into(),
    ];
    let threads = threads_for(vocab, 1024);
    Launch::linear("count_tokens", num_sequences, threads, arguments)
}

/// Where the tensors of [`logprobs_launch`] lie.
#[derive(Debug, Clone, Copy)]
pub struct Logprobs {
    /// `[num_rows, vocab]`, f32
    pub logits: Address,
    /// `[num_rows, 16]`, u32: [`SampleRow::words`]
    pub rows: Address,
    /// `[num_rows]`, u32: the chosen ids
    pub ids: Address,
    /// `[num_rows]`, f32, written for rows that ask
    pub chosen: Address,
    /// `[num_rows, width]`, u32, likewise; [`NO_TOKEN`] beyond what a row asks for or has
    pub top_ids: Address,
    /// `[num_rows, width]`, f32, likewise; minus infinity there
    pub top_logprobs: Address,
}

/// Launches [`logprobs`] for the rows that ask for them (`kernels/logprobs.cu`).
///
/// `width` is at most 32; rows that ask for more get that many. `vocab` is at least 1 and below 2¹⁹.
pub fn logprobs_launch(at: Logprobs, num_rows: u32, vocab: u32, width: u32) -> Launch {
    let arguments = vec![
        at.logits.into(),
        at.rows.into(),
        at.ids.into(),
        at.chosen.into(),
        at.top_ids.into(),
        at.top_logprobs.into(),
        vocab.into(),
        width.into(),
    ];
    Launch::linear("logprobs", num_rows, threads_for(vocab, 1024), arguments)
}

/// Stands for no token, where fewer than asked for have a probability.
pub const NO_TOKEN: u32 = u32::MAX;
/// In a table of counts: the bit of tokens that the prompt has.
pub const IN_PROMPT: u32 = 1 << 31;

#[cfg(test)]
mod tests;
