//! A Mixtral on a CUDA device: weights and cache in bf16, the residual stream and sums in f32.
//!
//! A step sends its arrays, launches kernels and returns; nothing waits for the device until logits are lent or tokens
//! asked for. So the next step can be begun while one runs: it takes the tokens that it needs and that nobody knows yet
//! from where the running one writes them. Steps that only decode are filled up to one of a few sizes and recorded as
//! graphs, so that the host asks for one thing instead of some ten for each layer.

mod arrays;
mod backend;
mod graphs;
mod uploads;
mod weights;
mod workspace;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::arrays::Recounts;
pub(super) use self::arrays::arrays_bytes;
use self::graphs::Graphs;
use self::uploads::Uploads;
use self::weights::{Part, PartOrder, Sizes, Weights, upload_floats};
use self::workspace::{Fetched, Workspace};
use super::backend::Limits;
use super::weights::Checkpoint;
use super::{KvCache, Mixtral, MixtralConfig, ModelError, Recount, StepBatch};
use crate::ops::{self, Address, Device, PackedFormat, RopeTable, Storage};

/// A CUDA device, or what stands for one in tests, with the buffers of a step.
#[derive(Debug)]
pub struct OnDevice<D: Device> {
    device: D,
    config: MixtralConfig,
    cos: D::Memory,
    sin: D::Memory,
    workspace: Workspace<D>,
    graphs: Graphs<D>,
    /// How the weights of linear layers are stored.
    storage: Storage,
    /// While they are loaded.
    uploads: Mutex<Uploads<D>>,
}

impl<D: Device> OnDevice<D> {
    /// Allocates buffers for steps of a model of this shape. `graphs`: whether decoding is recorded.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for a shape that the kernels do not have; [`ModelError::Op`] if there is no room.
    pub fn new(
        device: D,
        config: &MixtralConfig,
        limits: Limits,
        graphs: bool,
    ) -> Result<Self, ModelError> {
        check_shape(config)?;
        let rope = RopeTable::new(
            config.max_position_embeddings,
            config.head_dim,
            config.rope_theta,
            &candle_core::Device::Cpu,
        )?;
        let (cos, sin) = rope.angles();
        Ok(Self {
            cos: upload_floats(&device, cos)?,
            sin: upload_floats(&device, sin)?,
            workspace: Workspace::new(&device, config, limits)?,
            graphs: Graphs::new(graphs, limits, config.max_position_embeddings),
            config: config.clone(),
            storage: Storage::Bf16,
            uploads: Mutex::new(Uploads::new(Uploads::<D>::PLACE_BYTES)),
            device,
        })
    }

    /// Stores the weights of linear layers so. Gates and embeddings are bf16 in any case, norms f32.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] if the kernels have no such storage, or rows that are no whole number of its blocks.
    pub fn storing(self, storage: Storage) -> Result<Self, ModelError> {
        let config = &self.config;
        if storage == Storage::F32 {
            return Err(ModelError::Unsupported(
                "weights in f32; the kernels have bf16, w4a16, q8_0, q4_k and fp8".to_owned(),
            ));
        }
        if let Some(format) = PackedFormat::of(storage) {
            let multiple = format.columns_multiple();
            let widths = [
                config.hidden_size,
                config.q_width(),
                config.intermediate_size,
            ];
            if let Some(width) = widths.into_iter().find(|width| width % multiple != 0) {
                return Err(ModelError::Unsupported(format!(
                    "rows of {width} weights; as {storage} the kernels have multiples of {multiple}"
                )));
            }
        }
        Ok(Self { storage, ..self })
    }

    fn load(
        &self,
        checkpoint: &Checkpoint,
        sizes: Sizes,
        order: PartOrder,
        parts: impl Fn(usize) -> Vec<Part>,
    ) -> Result<Weights<D>, ModelError> {
        self.load_as((self.storage, order), checkpoint, sizes, parts)
    }

    fn load_as(
        &self,
        form: (Storage, PartOrder),
        checkpoint: &Checkpoint,
        sizes: Sizes,
        parts: impl Fn(usize) -> Vec<Part>,
    ) -> Result<Weights<D>, ModelError> {
        let mut uploads = self.uploads();
        Weights::load(&self.device, &mut uploads, checkpoint, form, sizes, parts)
    }

    fn uploads(&self) -> MutexGuard<'_, Uploads<D>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A layer that stays in bf16.
    fn plain(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        [rows, columns]: [usize; 2],
    ) -> Result<Weights<D>, ModelError> {
        let form = (Storage::Bf16, PartOrder::Stacked);
        self.load_as(form, checkpoint, [1, rows, columns], |_| {
            vec![(name.to_owned(), rows)]
        })
    }

    fn linear(
        &self,
        x: Address,
        weights: &Weights<D>,
        rows: u32,
        y: Address,
    ) -> Result<(), ModelError> {
        Ok(weights.multiply(&self.device, x, rows, y)?)
    }
}

impl<D: Device> OnDevice<D> {
    /// Makes tables of counts of sequences' tokens.
    fn recount(&mut self, recounts: &[Recount]) -> Result<(), ModelError> {
        let mut rest = recounts;
        while !rest.is_empty() {
            let (sent, left) = self.workspace.send_recounts(&self.device, rest)?;
            let Recounts { at, count } = sent;
            let [tokens, extents, tables] = at;
            let launch = ops::count_tokens_launch(
                [tokens, extents, tables, self.workspace.at.counts],
                count,
                self.config.vocab_size as u32,
            );
            self.device.launch(&launch)?;
            rest = left;
        }
        Ok(())
    }
}

/// A step that chooses tokens, begun and perhaps still running.
#[derive(Debug)]
pub struct Choosing {
    fetched: Fetched,
}

impl<D: Device> Mixtral<OnDevice<D>> {
    /// Makes room for the block tables of the longest sequences in blocks of so many tokens, where there is not enough.
    /// After that, no step allocates.
    ///
    /// # Errors
    /// [`ModelError::Op`] if there is no room.
    pub fn reserve_tables(&mut self, block_size: usize) -> Result<(), ModelError> {
        let OnDevice {
            device,
            workspace,
            config,
            ..
        } = self.backend();
        workspace.reserve(device, config, block_size)
    }

    /// Begins a step that chooses a token for each of `batch.logit_rows`, as `batch.choice` says; the device goes on by
    /// itself. The next step may be begun before this one is waited for, but not the one after it.
    ///
    /// # Errors
    /// As [`Mixtral::forward`].
    pub fn start(
        &mut self,
        batch: &StepBatch,
        cache: &mut KvCache<OnDevice<D>>,
    ) -> Result<Choosing, ModelError> {
        self.run(batch, cache)?;
        let OnDevice {
            device, workspace, ..
        } = self.backend();
        let fetched = workspace.fetch(device, batch.logit_rows.len())?;
        Ok(Choosing { fetched })
    }

    /// Waits for a step that was begun. Returns its tokens, and how long the device had nothing to do before it, if the
    /// device has a clock.
    ///
    /// # Errors
    /// [`ModelError::Op`] if the device failed.
    pub fn wait(&mut self, step: Choosing) -> Result<(Vec<u32>, Option<Duration>), ModelError> {
        let OnDevice {
            device, workspace, ..
        } = self.backend();
        workspace.wait(device, &step.fetched)
    }
}

/// Refuses what the kernels have no variant for.
fn check_shape(config: &MixtralConfig) -> Result<(), ModelError> {
    let group = config.num_attention_heads / config.num_key_value_heads;
    let refused = if ![32, 64, 128].contains(&config.head_dim) {
        format!(
            "heads of {}; the kernels have 32, 64 and 128",
            config.head_dim
        )
    } else if ![1, 2, 4, 6, 8].contains(&group) {
        format!("{group} query heads per key head; the kernels have 1, 2, 4, 6 and 8")
    } else if config.num_local_experts > 32 {
        format!(
            "{} experts; the kernels have up to 32",
            config.num_local_experts
        )
    } else if !config.hidden_size.is_multiple_of(8) || !config.intermediate_size.is_multiple_of(8) {
        format!(
            "widths of {} and {}; the kernels have multiples of 8",
            config.hidden_size, config.intermediate_size
        )
    } else if !config.vocab_size.is_multiple_of(8) {
        format!(
            "{} tokens in its vocabulary; the kernels have multiples of 8",
            config.vocab_size
        )
    } else {
        return Ok(());
    };
    Err(ModelError::Unsupported(refused))
}

#[cfg(test)]
mod tests;
