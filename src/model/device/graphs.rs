//! Decode steps as recorded graphs: a few sizes, each recorded when it is seen the second time. The first time its kernels
//! are launched one by one, so that the driver has loaded them: it does so at the first launch, and may not while recording.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::workspace::{Padding, Step};
use crate::model::{CacheId, Limits, ModelError, StepBatch};
use crate::ops::Device;

/// The recorded steps of a model.
#[derive(Debug)]
pub(super) struct Graphs<D: Device> {
    limits: Limits,
    /// `None`: nothing is recorded.
    recorded: Mutex<Option<Recorded<D>>>,
}

#[derive(Debug)]
struct Recorded<D: Device> {
    graphs: HashMap<Key, Entry<D>>,
    /// Counts the steps.
    now: u64,
}

#[derive(Debug)]
struct Entry<D: Device> {
    /// `None`: seen once.
    graph: Option<D::Graph>,
    /// When it was seen last.
    seen: u64,
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
        let recorded = enabled.then(|| Recorded {
            graphs: HashMap::new(),
            now: 0,
        });
        Self {
            limits,
            recorded: Mutex::new(recorded),
        }
    }

    /// What a batch is filled up to: to itself, unless it only decodes.
    pub fn padding(&self, batch: &StepBatch, block_size: usize) -> Padding {
        let tokens = batch.input_ids.len();
        let rung = batch_rung(tokens).min(self.limits.tokens.min(self.limits.logit_rows));
        let records = self.recorded().is_some();
        if !records || !decodes_only(batch) || rung < tokens || tokens > LARGEST {
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

    /// Runs a step: as recorded, if it has been, or launch by launch. If there is no room for a recording, nothing is
    /// recorded any more.
    pub fn run(
        &self,
        device: &D,
        step: &Step,
        compute: impl Fn() -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let is_decode = step.num_tokens == step.num_seqs && step.num_tokens == step.num_logit_rows;
        let mut guard = self.recorded();
        let Some(recorded) = &mut *guard else {
            return compute();
        };
        if !is_decode || step.num_tokens as usize > LARGEST {
            return compute();
        }
        let key = Key {
            tokens: step.num_tokens,
            max_blocks: step.max_blocks,
            input_ids: step.input_ids.0,
            cache: step.cache,
        };
        match recorded.see(key) {
            None => compute(),
            Some(Entry {
                graph: Some(graph), ..
            }) => Ok(device.replay(graph)?),
            Some(entry) => {
                let graph = device.capture(&compute).and_then(|graph| {
                    device.replay(&graph)?;
                    Ok(graph)
                });
                match graph {
                    Ok(graph) => entry.graph = Some(graph),
                    Err(error) => {
                        // Nothing of the step has run. If it was not for want of room, what follows says so again.
                        tracing::warn!(%error, "a step could not be recorded; from now on none is");
                        *guard = None;
                        return compute();
                    }
                }
                Ok(())
            }
        }
    }

    fn recorded(&self) -> MutexGuard<'_, Option<Recorded<D>>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Device> Recorded<D> {
    /// The entry of a step that was seen before; of another it takes a note.
    fn see(&mut self, key: Key) -> Option<&mut Entry<D>> {
        self.now += 1;
        let seen = self.now;
        if self.graphs.contains_key(&key) {
            let entry = self.graphs.get_mut(&key)?;
            entry.seen = seen;
            return Some(entry);
        }
        // Arrays that moved leave graphs behind that nobody can ask for again; a cache that has gone, too.
        self.graphs
            .retain(|it, _| it.input_ids == key.input_ids && it.cache == key.cache);
        if self.graphs.len() >= MOST
            && let Some((&oldest, _)) = self.graphs.iter().min_by_key(|(_, entry)| entry.seen)
        {
            self.graphs.remove(&oldest);
        }
        self.graphs.insert(key, Entry { graph: None, seen });
        None
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

/// Recorded steps, of some 400 launches each, that are kept; beyond it the one that was not seen for longest is forgotten.
/// They take memory of the device, which [`RESERVE`](crate::model::RESERVE) leaves for them.
const MOST: usize = 64;

/// Batches beyond this are worth a launch for each kernel.
const LARGEST: usize = 256;

const SHORTEST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_device::TestDevice;

    #[test]
    fn the_step_that_was_not_seen_for_longest_is_forgotten_first() {
        let mut recorded = Recorded::<TestDevice> {
            graphs: HashMap::new(),
            now: 0,
        };
        let cache = CacheId::new();
        let key = |tokens| Key {
            tokens,
            max_blocks: 1,
            input_ids: 256,
            cache,
        };
        let most = MOST as u32;
        for tokens in 0..most {
            assert!(recorded.see(key(tokens)).is_none());
        }
        assert!(recorded.see(key(0)).is_some());
        // One too many: the second is the oldest now.
        assert!(recorded.see(key(most)).is_none());
        assert_eq!(recorded.graphs.len(), MOST);
        assert!(recorded.see(key(0)).is_some());
        assert!(recorded.see(key(1)).is_none());
    }

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
