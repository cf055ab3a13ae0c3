//! Decode steps as recorded graphs: a few sizes, each recorded when it comes the second time. A size that comes once, as
//! while a batch fills, costs no recording. (Not the driver asks for that: with lazy loading it loads a kernel when its
//! function is looked up, which happens when the device is opened.)

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::workspace::{Padding, Step};
use crate::model::{CacheId, Limits, ModelError, StepBatch};
use crate::ops::Device;

/// The recorded steps of a model.
#[derive(Debug)]
pub(super) struct Graphs<D: Device> {
    limits: Limits,
    /// Tokens of the longest context.
    longest: usize,
    /// `None`: nothing is recorded.
    recorded: Mutex<Option<Recorded<D>>>,
}

#[derive(Debug)]
struct Recorded<D: Device> {
    /// All that came at least once. Of one cache's steps there are not more than rungs: [`LARGEST`] and some.
    graphs: HashMap<Key, Entry<D>>,
}

/// `None`: seen once.
type Entry<D> = Option<<D as Device>::Graph>;

/// What a recorded step depends on: addresses of its arrays follow from its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    tokens: u32,
    max_context: u32,
    input_ids: u64,
    /// Its addresses are in the recorded launches, too.
    cache: CacheId,
}

impl<D: Device> Graphs<D> {
    /// For contexts of up to `longest` tokens.
    pub fn new(enabled: bool, limits: Limits, longest: usize) -> Self {
        let recorded = enabled.then(|| Recorded {
            graphs: HashMap::new(),
        });
        Self {
            limits,
            longest,
            recorded: Mutex::new(recorded),
        }
    }

    /// What a batch is filled up to: to itself, unless it only decodes.
    pub fn padding(&self, batch: &StepBatch) -> Padding {
        let tokens = batch.input_ids.len();
        let lens = batch.context_lens.iter();
        let context = lens.max().map_or(1, |&len| len as usize);
        let recorded = self.recorded().is_some() && decodes_only(batch);
        match recorded.then(|| self.rungs(tokens, context)).flatten() {
            Some(rungs) => rungs,
            None => Padding {
                tokens,
                max_context: context,
            },
        }
    }

    /// What steps that decode so many sequences of up to so many tokens are filled up to; `None` where each has its own size.
    fn rungs(&self, tokens: usize, context: usize) -> Option<Padding> {
        let most = self.limits.tokens.min(self.limits.logit_rows);
        (tokens <= LARGEST.min(most)).then(|| Padding {
            tokens: batch_rung(tokens).min(most),
            max_context: context_rung(context, self.longest),
        })
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
            max_context: step.max_context,
            input_ids: step.arrays.input_ids.0,
            cache: step.cache,
        };
        match recorded.see(key) {
            None => compute(),
            Some(Some(graph)) => Ok(device.replay(graph)?),
            Some(entry) => {
                let graph = device.capture(&compute).and_then(|graph| {
                    device.replay(&graph)?;
                    Ok(graph)
                });
                match graph {
                    Ok(graph) => *entry = Some(graph),
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
        if !self.graphs.contains_key(&key) {
            // Arrays that moved leave graphs behind that nobody can ask for again; a cache that has gone, too.
            self.graphs
                .retain(|it, _| it.input_ids == key.input_ids && it.cache == key.cache);
            self.graphs.insert(key, None);
            return None;
        }
        self.graphs.get_mut(&key)
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

/// What a context is rounded up to, so that a grid has room for its splits: 1,024 tokens, or all that there may be, which
/// launches the same as [`LONGEST_GRID`](crate::ops::LONGEST_GRID).
fn context_rung(context: usize, longest: usize) -> usize {
    match context <= SHORTEST {
        true => SHORTEST.min(longest),
        false => longest,
    }
}

/// Batches beyond this are worth a launch for each kernel. Up to it there are 35 rungs, so that with those of contexts at most
/// 70 steps are recorded, of some 360 launches each. What one takes of the device is not known before it is measured; the
/// most that was read of graphs elsewhere, 8 MiB, is 560 MiB of the [`RESERVE`](crate::model::RESERVE) that is left for them.
const LARGEST: usize = 256;

const SHORTEST: usize = 1024;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::ops;
    use crate::ops::test_device::TestDevice;

    fn graphs(most: usize, longest: usize) -> Graphs<TestDevice> {
        let limits = Limits {
            tokens: 8192,
            logit_rows: most,
        };
        Graphs::new(true, limits, longest)
    }

    #[test]
    fn every_batch_has_a_rung_and_all_rungs_are_kept() {
        let graphs = graphs(256, 32_768);
        let mut recorded = Recorded::<TestDevice> {
            graphs: HashMap::new(),
        };
        let cache = CacheId::new();
        let mut rungs = HashSet::new();
        // Twice: what came in the first round is known in the second.
        for round in 0..2 {
            for tokens in 1..=256 {
                for context in [1, 1023, 1024, 1025, 4096, 5000, 16_385, 32_768] {
                    let rung = graphs.rungs(tokens, context).unwrap();
                    assert!(rung.tokens >= tokens && rung.max_context >= context);
                    // Less than a block of eight rows is filled up, and never into another tile of products.
                    assert!(rung.tokens < tokens + 8);
                    assert_eq!(rung.tokens.div_ceil(16), tokens.div_ceil(16));
                    let key = Key {
                        tokens: rung.tokens as u32,
                        max_context: rung.max_context as u32,
                        input_ids: 256,
                        cache,
                    };
                    let is_known = recorded.see(key).is_some();
                    assert_eq!(is_known, !rungs.insert(rung), "{rung:?}");
                    assert!(is_known || round == 0);
                }
            }
        }
        assert_eq!((rungs.len(), recorded.graphs.len()), (70, 70));
        let sizes: HashSet<usize> = rungs.iter().map(|rung| rung.tokens).collect();
        let wanted = [1, 2, 4].into_iter().chain((8..=256).step_by(8));
        assert_eq!(sizes, wanted.collect());
        assert!(graphs.rungs(257, 1).is_none());
    }

    #[test]
    fn no_batch_is_filled_beyond_what_a_step_may_have() {
        let graphs = graphs(100, 32_768);
        for tokens in 1..=100 {
            let rung = graphs.rungs(tokens, 1).unwrap().tokens;
            assert!((tokens..=100).contains(&rung));
        }
        assert!(graphs.rungs(101, 1).is_none());
        assert_eq!(graphs.rungs(97, 1).unwrap().tokens, 100);
    }

    #[test]
    fn contexts_have_two_rungs_and_none_is_longer_than_the_models() {
        let context = |context, longest| graphs(8, longest).rungs(1, context).unwrap().max_context;
        assert_eq!(
            [1, 1024, 1025, 4097, 32_768].map(|it| context(it, 32_768)),
            [1024, 1024, 32_768, 32_768, 32_768]
        );
        assert_eq!([1, 512].map(|it| context(it, 512)), [512, 512]);
        assert_eq!(context(1025, 2048), 2048);
    }

    #[test]
    fn beyond_the_longest_grid_launches_do_not_depend_on_the_context() {
        let at = ops::Address(256);
        let tensors = ops::PagedAttention {
            q: at,
            k_cache: at,
            v_cache: at,
            block_tables: at,
            table_starts: at,
            cu_seqlens_q: at,
            context_lens: at,
            scratch: at,
            out: at,
        };
        let launches = |max_context| {
            let sizes = ops::AttentionSizes {
                num_tokens: 8,
                num_seqs: 8,
                max_rows: 1,
                max_context,
                block_size: 16,
                window: 0,
                heads: 32,
                kv_heads: 8,
                head_dim: 128,
            };
            ops::paged_attention_launches(ops::Multiplier::Warps, tensors, sizes)
        };
        assert_eq!(launches(ops::LONGEST_GRID), launches(1 << 20));
        assert_ne!(launches(ops::LONGEST_GRID), launches(SHORTEST as u32));
    }
}
