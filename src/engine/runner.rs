//! Turns a plan into the flat arrays of one forward pass, and its logits into tokens.

use std::ops::Deref;

use super::executor::{Capacity, ExecuteError, Executor};
use super::request::TokenId;
use super::sampler::Sampler;
use super::scheduler::{Part, StepPlan};
use super::sequence::{Sequence, Sequences};
use crate::model::{StepBatch, carried};

#[cfg(test)]
mod tests;

/// A model with its KV cache, as the runner needs it.
pub trait Forward: Send {
    /// Its sizes.
    fn capacity(&self) -> Capacity;

    /// Computes the batch and returns the logits of `batch.logit_rows`, row by row: `[logit_rows.len() * vocab_size]`,
    /// read from wherever the model keeps them.
    ///
    /// # Errors
    /// [`ExecuteError::Model`] with whatever went wrong.
    fn forward(&mut self, batch: &StepBatch) -> Result<impl Deref<Target = [f32]>, ExecuteError>;
}

/// Runs plans on a model.
pub struct ModelRunner<F> {
    model: F,
    capacity: Capacity,
    sampler: Sampler,
    /// Kept from step to step for its memory.
    batch: StepBatch,
    /// What the last step chose, until it is asked for.
    chosen: Vec<TokenId>,
}

impl<F: Forward> ModelRunner<F> {
    /// A runner for `model`.
    pub fn new(model: F) -> Self {
        let capacity = model.capacity();
        Self {
            model,
            capacity,
            sampler: Sampler::new(capacity.vocab_size),
            batch: StepBatch::default(),
            chosen: Vec::new(),
        }
    }
}

#[cfg(test)]
impl<F> ModelRunner<F> {
    pub(super) fn model(&self) -> &F {
        &self.model
    }
}

impl<F: Forward> Executor for ModelRunner<F> {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn start(&mut self, plan: &StepPlan, sequences: &Sequences) -> Result<(), ExecuteError> {
        let Capacity {
            vocab_size,
            block_size,
            ..
        } = self.capacity;
        fill(&mut self.batch, plan, sequences, block_size);
        let logits = self.model.forward(&self.batch)?;
        let rows = self.batch.logit_rows.len();
        if logits.len() != rows * vocab_size {
            return Err(ExecuteError::Logits {
                given: logits.len(),
                rows,
                vocab_size,
            });
        }
        let rows = plan.due().zip(logits.chunks_exact(vocab_size));
        self.chosen = rows
            .map(|(part, row)| self.sampler.sample(row, &sequences[part.slot]))
            .collect();
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<TokenId>, ExecuteError> {
        Ok(std::mem::take(&mut self.chosen))
    }
}

/// Writes the plan's arrays into `batch`.
pub(super) fn fill(
    batch: &mut StepBatch,
    plan: &StepPlan,
    sequences: &Sequences,
    block_size: usize,
) {
    let StepBatch {
        input_ids,
        positions,
        slot_mapping,
        cu_seqlens_q,
        context_lens,
        block_tables,
        ..
    } = batch;
    for array in [
        input_ids,
        positions,
        slot_mapping,
        cu_seqlens_q,
        context_lens,
        block_tables,
    ] {
        array.clear();
    }
    batch.logit_rows.clear();
    batch.block_copies.clear();
    let copies = plan.copies.iter().flat_map(|copy| [copy.from.0, copy.to.0]);
    batch.block_copies.extend(copies);
    batch.max_blocks = plan
        .parts
        .iter()
        .map(|part| sequences[part.slot].block_table().len())
        .max()
        .unwrap_or(0);
    batch.cu_seqlens_q.push(0);
    for part in &plan.parts {
        append(batch, part, &sequences[part.slot], block_size);
    }
}

/// Appends one sequence's part.
fn append(batch: &mut StepBatch, part: &Part, sequence: &Sequence, block_size: usize) {
    let table = sequence.block_table();
    let end = part.start + part.num_tokens;
    let known = sequence.tokens();
    let known_end = end.min(known.len());
    batch
        .input_ids
        .extend_from_slice(&known[part.start.min(known_end)..known_end]);
    if let Some(row) = sequence.under_way().filter(|_| end > known_end) {
        batch.input_ids.push(carried(row));
    }
    batch.positions.extend((part.start..end).map(narrow));
    let slot = |position: usize| {
        table[position / block_size].0 * narrow(block_size) + narrow(position % block_size)
    };
    batch.slot_mapping.extend((part.start..end).map(slot));
    batch.cu_seqlens_q.push(narrow(batch.input_ids.len()));
    batch.context_lens.push(narrow(end));
    batch.block_tables.extend(table.iter().map(|block| block.0));
    batch
        .block_tables
        .resize(batch.context_lens.len() * batch.max_blocks, 0);
    if part.due {
        batch.logit_rows.push(narrow(batch.input_ids.len() - 1));
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number)
        .expect("positions and slots are below 2^32, as the cache is. This is a bug.")
}
