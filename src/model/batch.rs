//! What a step computes, and the checks that make it safe to compute.

use super::backend::Limits;
use super::kv_cache::Blocks;
use super::{MixtralConfig, ModelError};
use crate::ops::SampleRow;

/// The arrays of one step. Sequences lie one after another in the flat arrays; nothing is padded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepBatch {
    /// `[num_copies * 2]` blocks to copy before anything is computed, one after the other: source, destination. A
    /// sequence that goes on from another's prompt in its own way gets its own copy of the last block so.
    pub block_copies: Vec<u32>,
    /// `[num_tokens]` token ids, or [`carried`] ones
    pub input_ids: Vec<u32>,
    /// `[num_tokens]` position of each token in its own sequence
    pub positions: Vec<u32>,
    /// `[num_tokens]` slot in the cache that receives the token's key and value: `block * block_size + offset`
    pub slot_mapping: Vec<u32>,
    /// `[num_seqs + 1]` where each sequence's tokens begin in the flat arrays
    pub cu_seqlens_q: Vec<u32>,
    /// `[num_seqs]` tokens of each sequence whose keys are in the cache once this step's are written
    pub context_lens: Vec<u32>,
    /// `[num_seqs * max_blocks]` block tables, row by row; entries past a sequence's last block are not read
    pub block_tables: Vec<u32>,
    /// Columns of `block_tables`
    pub max_blocks: usize,
    /// Flat indices of the tokens whose logits are wanted, ascending
    pub logit_rows: Vec<u32>,
    /// How tokens are chosen, on a device that does
    pub choice: Choice,
}

/// Stands in a step's `input_ids` for the token that the step before has chosen as its `row`th, on a device that chooses
/// tokens and keeps them: nobody else need know which one it is.
pub fn carried(row: u32) -> u32 {
    CARRIED | row
}

/// `kernels/embedding.cu` has the same.
const CARRIED: u32 = 1 << 31;

/// How a device chooses the tokens of a step. A CPU leaves that to its caller.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    /// One for each of `logit_rows`; or none at all: then logits are computed and nobody asks for tokens
    pub rows: Vec<SampleRow>,
    /// Ids and what is added to their logits; rows name ranges of it
    pub biases: Vec<(u32, f32)>,
    /// Tables of counts that are to be made before
    pub recounts: Vec<Recount>,
}

/// A table of counts for penalties, to be made of a sequence's tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recount {
    /// Which table, below the most rows of logits
    pub table: u32,
    /// Prompt, then output
    pub tokens: Vec<u32>,
    /// Where the output begins
    pub prompt_len: usize,
}

impl StepBatch {
    /// Refuses a batch whose arrays contradict each other, the model or the cache. The step before has chosen `chosen` tokens
    /// that may be carried on.
    pub(super) fn check(
        &self,
        config: &MixtralConfig,
        limits: Limits,
        cache: Blocks,
        chosen: usize,
    ) -> Result<(), ModelError> {
        self.check_lengths(limits)?;
        self.check_copies(cache)?;
        for (at, &id) in self.input_ids.iter().enumerate() {
            let row = id & !CARRIED;
            if row != id {
                if row as usize >= chosen {
                    return Err(wrong(format!(
                        "input_ids[{at}] is token {row} of the step before, which chose {chosen}"
                    )));
                }
            } else if id as usize >= config.vocab_size {
                return Err(wrong(format!(
                    "input_ids[{at}] is {id}; the vocabulary has {} tokens",
                    config.vocab_size
                )));
            }
        }
        let rows = |row: &u32| *row as usize;
        if !self.logit_rows.windows(2).all(|pair| pair[0] < pair[1])
            || self
                .logit_rows
                .last()
                .map(rows)
                .is_some_and(|row| row >= self.input_ids.len())
        {
            return Err(wrong(format!(
                "logit_rows must ascend below {}",
                self.input_ids.len()
            )));
        }
        (0..self.context_lens.len())
            .try_for_each(|sequence| self.check_sequence(sequence, config, cache))
    }

    fn check_lengths(&self, limits: Limits) -> Result<(), ModelError> {
        let (tokens, sequences) = (self.input_ids.len(), self.context_lens.len());
        if tokens == 0 || tokens > limits.tokens {
            return Err(wrong(format!(
                "{tokens} tokens; a step takes 1 to {}",
                limits.tokens
            )));
        }
        if self.logit_rows.len() > limits.logit_rows {
            return Err(wrong(format!(
                "{} logit_rows; a step takes at most {}",
                self.logit_rows.len(),
                limits.logit_rows
            )));
        }
        let chosen = self.choice.rows.len();
        if chosen != 0 && chosen != self.logit_rows.len() {
            return Err(wrong(format!(
                "choice.rows has {chosen} entries, expected {}",
                self.logit_rows.len()
            )));
        }
        for (name, given, expected) in [
            ("positions", self.positions.len(), tokens),
            ("slot_mapping", self.slot_mapping.len(), tokens),
            ("cu_seqlens_q", self.cu_seqlens_q.len(), sequences + 1),
            (
                "block_tables",
                self.block_tables.len(),
                sequences.saturating_mul(self.max_blocks),
            ),
        ] {
            if given != expected {
                return Err(wrong(format!(
                    "{name} has {given} entries, expected {expected}"
                )));
            }
        }
        let ascending = self.cu_seqlens_q.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending
            || self.cu_seqlens_q[0] != 0
            || self.cu_seqlens_q[sequences] as usize != tokens
        {
            return Err(wrong(format!(
                "cu_seqlens_q must ascend from 0 to {tokens}"
            )));
        }
        Ok(())
    }

    /// A block may be copied to more than once, or copied from after it was copied to: only the order counts.
    fn check_copies(&self, cache: Blocks) -> Result<(), ModelError> {
        let (pairs, unpaired) = self.block_copies.as_chunks::<2>();
        if !unpaired.is_empty() {
            return Err(wrong(format!(
                "block_copies has {} entries, expected pairs",
                self.block_copies.len()
            )));
        }
        for &[from, to] in pairs {
            for block in [from, to] {
                if block as usize >= cache.count {
                    return Err(wrong(format!(
                        "block_copies names block {block}; the cache has {}",
                        cache.count
                    )));
                }
            }
            if from == to {
                return Err(wrong(format!("block_copies copies block {from} to itself")));
            }
        }
        Ok(())
    }

    /// The tokens of a sequence are the last of its context, in order, each in the slot its block table says.
    fn check_sequence(
        &self,
        sequence: usize,
        config: &MixtralConfig,
        cache: Blocks,
    ) -> Result<(), ModelError> {
        let rows = self.cu_seqlens_q[sequence] as usize..self.cu_seqlens_q[sequence + 1] as usize;
        let (context, block_size) = (self.context_lens[sequence] as usize, cache.size);
        let blocks = context.div_ceil(block_size);
        if context < rows.len()
            || context > config.max_position_embeddings
            || blocks > self.max_blocks
        {
            return Err(wrong(format!(
                "context_lens[{sequence}] is {context}, with {} tokens in this step, {} blocks of {block_size} and a \
                 model context of {}",
                rows.len(),
                self.max_blocks,
                config.max_position_embeddings
            )));
        }
        let table = &self.block_tables[sequence * self.max_blocks..][..blocks];
        if let Some(block) = table.iter().find(|&&block| block as usize >= cache.count) {
            return Err(wrong(format!(
                "block_tables names block {block} for sequence {sequence}; the cache has {}",
                cache.count
            )));
        }
        let first = context - rows.len();
        for (position, row) in (first..context).zip(rows) {
            let slot = table[position / block_size] as usize * block_size + position % block_size;
            if self.positions[row] as usize != position || self.slot_mapping[row] as usize != slot {
                return Err(wrong(format!(
                    "token {row} is at position {} in slot {}, expected {position} and {slot}",
                    self.positions[row], self.slot_mapping[row]
                )));
            }
        }
        Ok(())
    }
}

fn wrong(problem: String) -> ModelError {
    ModelError::Batch(problem)
}

#[cfg(test)]
mod tests;
