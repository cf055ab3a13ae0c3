//! Decode steps as recorded graphs: a few sizes, each recorded when it is seen the second time. The first time its kernels
//! are launched one by one, so that the driver has loaded them: it does so at the first launch, and may not while recording.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::workspace::{Padding, Step};
use crate::model::{CacheId, Limits, ModelError, StepBatch};
use crate::ops::Device;

/// The recorded steps of a model.
#[derive(Debug)]
pub(super) struct Graphs<D: Device> {
    enabled: bool,
    limits: Limits,
    /// `None`: seen once.
    recorded: Mutex<HashMap<Key, Option<D::Graph>>>,
}

/// What a recorded step depends on: addresses of its arrays follow from its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    tokens: u32,
    max_blocks: u32,
    input_ids: u64,
    /// Its addresses are in the recorded launches, too.
    cache: CacheId,
}

impl<D: Device> Graphs<D> {
    pub fn new(enabled: bool, limits: Limits) -> Self {
        Self {
            enabled,
            limits,
            recorded: Mutex::default(),
        }
    }

    /// What a batch is filled up to: to itself, unless it only decodes.
    pub fn padding(&self, batch: &StepBatch, block_size: usize) -> Padding {
        let tokens = batch.input_ids.len();
        let rung = batch_rung(tokens).min(self.limits.tokens.min(self.limits.logit_rows));
        if !self.enabled || !decodes_only(batch) || rung < tokens || tokens > LARGEST {
            return Padding {
                tokens,
                max_blocks: batch.max_blocks,
            };
        }
        let context = batch
            .context_lens
            .iter()
            .max()
            .map_or(1, |&len| len as usize);
        Padding {
            tokens: rung,
            max_blocks: context_rung(context).div_ceil(block_size),
        }
    }

    /// Runs a step: as recorded, if it has been, or launch by launch.
    pub fn run(
        &self,
        device: &D,
        step: &Step,
        compute: impl FnOnce() -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let is_decode = step.num_tokens == step.num_seqs && step.num_tokens == step.num_logit_rows;
        if !self.enabled || !is_decode || step.num_tokens as usize > LARGEST {
            return compute();
        }
        let key = Key {
            tokens: step.num_tokens,
            max_blocks: step.max_blocks,
            input_ids: step.input_ids.0,
            cache: step.cache,
        };
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(graph)) = recorded.get(&key) {
            return Ok(device.replay(graph)?);
        }
        if !recorded.contains_key(&key) {
            // Arrays that moved leave graphs behind that nobody can ask for again; a cache that has gone, too.
            recorded.retain(|it, _| it.input_ids == key.input_ids && it.cache == key.cache);
            recorded.insert(key, None);
            return compute();
        }
        let graph = device.capture(compute)?;
        device.replay(&graph)?;
        recorded.insert(key, Some(graph));
        Ok(())
    }
}

/// Whether each sequence has one token and is sampled.
fn decodes_only(batch: &StepBatch) -> bool {
    let tokens = batch.input_ids.len();
    batch.context_lens.len() == tokens && batch.logit_rows.len() == tokens
}

/// 1, 2, 4, then multiples of 8: what a batch of so many sequences is filled up to.
fn batch_rung(tokens: usize) -> usize {
    match tokens {
        0..=2 => tokens,
        3..=4 => 4,
        _ => tokens.next_multiple_of(8),
    }
}

/// 1,024 tokens or four times as many, and again: what a context is rounded up to, so that a grid fits it.
fn context_rung(context: usize) -> usize {
    let mut rung = SHORTEST;
    while rung < context {
        rung *= 4;
    }
    rung
}

/// Batches beyond this are worth a launch for each kernel.
const LARGEST: usize = 256;

const SHORTEST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_has_the_rungs_that_are_promised() {
        let mut rungs: Vec<usize> = (1..=64).map(batch_rung).collect();
        rungs.dedup();
        assert_eq!(rungs, [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64]);
        assert_eq!(
            [1, 1024, 1025, 5000].map(context_rung),
            [1024, 1024, 4096, 16384]
        );
    }
}
