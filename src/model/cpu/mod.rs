//! A Mixtral on the CPU: candle tensors, all activations in f32.

mod workspace;

use std::ops::Deref;

use candle_core::{DType, Device, Tensor};

use self::workspace::{Step, Workspace};
use super::backend::{Added, Backend, Limits};
use super::weights::Checkpoint;
use super::{CacheId, MixtralConfig, ModelError, StepBatch};
use crate::ops::{self, Matrix, RopeTable, Side, Storage};

/// The CPU, with the buffers of a step.
#[derive(Debug)]
pub struct Cpu {
    config: MixtralConfig,
    rope: RopeTable,
    workspace: Workspace,
    operations_per_token: usize,
    storage: Option<Storage>,
}

impl Cpu {
    /// Allocates buffers for steps of a model of this shape.
    ///
    /// # Errors
    /// [`ModelError::Device`] if there is no room.
    pub fn new(config: &MixtralConfig, limits: Limits) -> Result<Self, ModelError> {
        let device = Device::Cpu;
        Ok(Self {
            rope: RopeTable::new(
                config.max_position_embeddings,
                config.head_dim,
                config.rope_theta,
                &device,
            )?,
            workspace: Workspace::new(config, limits, &device)?,
            operations_per_token: 2 * config.active_weights(),
            config: config.clone(),
            storage: None,
        })
    }

    /// Stores the weights of linear layers so, instead of as the checkpoint has them. The gates of experts, the norms
    /// and the embeddings stay as they are: they are small, and the gates' choices are touchy.
    pub fn storing(self, storage: Option<Storage>) -> Self {
        Self { storage, ..self }
    }

    fn linear(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Matrix, ModelError> {
        checkpoint.matrix(&[name.to_owned()], shape, &shape, self.storage)
    }

    /// Whether a step of so many tokens is shared between threads.
    pub(in crate::model) fn is_shared(&self, tokens: usize) -> bool {
        tokens * self.operations_per_token >= POOL_OPERATIONS
    }
}

/// Keys and values of a layer: each `[num_blocks, block_size, kv_heads, head_dim]`, f32.
#[derive(Debug)]
pub struct LayerCache {
    pub(in crate::model) k: Tensor,
    pub(in crate::model) v: Tensor,
}

impl Backend for Cpu {
    type Matrix = Matrix;
    type Qkv = [Matrix; 3];
    type Experts = Matrix;
    type Norm = Tensor;
    type Table = Tensor;
    type LayerCache = LayerCache;
    type Step = Step;

    const CACHE_ELEMENT_BYTES: usize = size_of::<f32>();

    fn describe(&self) -> String {
        let (threads, isa) = (rayon::current_num_threads(), ops::Isa::best().name());
        let s = if threads == 1 { "" } else { "s" };
        format!("cpu, {threads} thread{s}, {isa}")
    }

    fn norm(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        hidden: usize,
    ) -> Result<Tensor, ModelError> {
        checkpoint.widened(name, &[hidden])
    }

    fn table(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Tensor, ModelError> {
        checkpoint.tensor(name, &shape)
    }

    fn gate(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Matrix, ModelError> {
        Ok(checkpoint.tensor(name, &shape)?.into())
    }

    fn matrix(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Matrix, ModelError> {
        self.linear(checkpoint, name, shape)
    }

    fn tied(
        &self,
        table: &Tensor,
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Matrix, ModelError> {
        let is_stored_so = match self.storage {
            None => true,
            Some(Storage::F32) => table.dtype() == DType::F32,
            Some(Storage::Bf16) => table.dtype() == DType::BF16,
            Some(_) => false,
        };
        match is_stored_so {
            true => Ok(table.clone().into()),
            false => self.matrix(checkpoint, name, shape),
        }
    }

    fn qkv(
        &self,
        checkpoint: &Checkpoint,
        [q, k, v]: [&str; 3],
        config: &MixtralConfig,
    ) -> Result<[Matrix; 3], ModelError> {
        let weight = |name, width| self.linear(checkpoint, name, [width, config.hidden_size]);
        Ok([
            weight(q, config.q_width())?,
            weight(k, config.kv_width())?,
            weight(v, config.kv_width())?,
        ])
    }

    fn gate_up(
        &self,
        checkpoint: &Checkpoint,
        names: &[String],
        shape: [usize; 2],
        stack: [usize; 3],
    ) -> Result<Matrix, ModelError> {
        checkpoint.matrix(names, shape, &stack, self.storage)
    }

    fn down(
        &self,
        checkpoint: &Checkpoint,
        names: &[String],
        stack: [usize; 3],
    ) -> Result<Matrix, ModelError> {
        let [_, rows, columns] = stack;
        checkpoint.matrix(names, [rows, columns], &stack, self.storage)
    }

    fn storage(&self, matrix: &Matrix) -> &'static str {
        matrix.storage()
    }

    fn layer_cache(&self, shape: [usize; 4]) -> Result<LayerCache, ModelError> {
        let zeros = || Tensor::zeros(&shape, DType::F32, &Device::Cpu);
        Ok(LayerCache {
            k: zeros()?,
            v: zeros()?,
        })
    }

    fn copy_blocks(&self, copies: &[u32], cache: &LayerCache) -> Result<(), ModelError> {
        ops::copy_blocks(copies, &cache.k)?;
        ops::copy_blocks(copies, &cache.v)?;
        Ok(())
    }

    fn step(
        &mut self,
        batch: &StepBatch,
        _block_size: usize,
        _cache: CacheId,
    ) -> Result<Step, ModelError> {
        self.workspace.step(batch, &self.config)
    }

    fn run<F>(&self, step: &Step, compute: F) -> Result<(), ModelError>
    where
        F: Fn() -> Result<(), ModelError> + Send,
    {
        if self.is_shared(step.num_tokens()) {
            // On a thread of the pool: from outside, each operation that uses the pool would wait to be let in.
            rayon::scope(move |_| compute())
        } else {
            compute()
        }
    }

    fn embed(&self, table: &Tensor, step: &Step) -> Result<(), ModelError> {
        ops::zero(&step.residual)?;
        Ok(ops::embedding(table, &step.input_ids, &step.delta)?)
    }

    fn add_rms_norm(&self, added: Added, weight: &Tensor, step: &Step) -> Result<(), ModelError> {
        if added == Added::Experts {
            ops::combine_experts(&step.pairs, &step.expert_weights, &step.delta)?;
        }
        let eps = self.config.rms_norm_eps as f32;
        Ok(ops::add_rms_norm(
            &step.delta,
            &step.residual,
            weight,
            eps,
            &step.normed,
        )?)
    }

    fn project_qkv(&self, [q, k, v]: &[Matrix; 3], step: &Step) -> Result<(), ModelError> {
        ops::linear(&step.normed, q, &step.q)?;
        ops::linear(&step.normed, k, &step.k)?;
        Ok(ops::linear(&step.normed, v, &step.v)?)
    }

    fn rope_store_kv(&self, step: &Step, cache: &LayerCache) -> Result<(), ModelError> {
        let [q, k, v, _] = &step.heads;
        ops::rope(q, &step.positions, &self.rope)?;
        ops::rope(k, &step.positions, &self.rope)?;
        Ok(ops::store_kv(k, v, &step.slots, &cache.k, &cache.v)?)
    }

    fn paged_attention(
        &self,
        step: &Step,
        cache: &LayerCache,
        window: Option<usize>,
    ) -> Result<(), ModelError> {
        let [q, _, _, attended] = &step.heads;
        Ok(ops::paged_attention(
            q,
            &cache.k,
            &cache.v,
            step.pages(),
            window,
            attended,
        )?)
    }

    fn project_out(&self, weights: &Matrix, step: &Step) -> Result<(), ModelError> {
        Ok(ops::linear(&step.attended, weights, &step.delta)?)
    }

    fn route(&self, gate: &Matrix, step: &Step) -> Result<(), ModelError> {
        ops::linear(&step.normed, gate, &step.gate_logits)?;
        ops::route(&step.gate_logits, &step.experts, &step.expert_weights)?;
        Ok(ops::sort_by_expert(
            &step.experts,
            &step.order,
            &step.offsets,
        )?)
    }

    fn experts_in(&self, gate_up: &Matrix, step: &Step) -> Result<(), ModelError> {
        let routing = step.routing(self.config.num_experts_per_tok);
        ops::grouped_linear(&step.normed, gate_up, routing, Side::In, &step.gate_up)?;
        Ok(ops::silu_mul(&step.gate_up, &step.activated)?)
    }

    fn experts_out(&self, down: &Matrix, step: &Step) -> Result<(), ModelError> {
        let routing = step.routing(self.config.num_experts_per_tok);
        let (x, y) = (&step.activated, &step.pairs);
        Ok(ops::grouped_linear(x, down, routing, Side::Out, y)?)
    }

    fn logits(&self, lm_head: &Matrix, step: &Step) -> Result<(), ModelError> {
        ops::embedding(&step.normed, &step.logit_rows, &step.last)?;
        Ok(ops::linear(&step.last, lm_head, &step.logits)?)
    }

    fn lend_logits(
        &mut self,
        _rows: usize,
    ) -> Result<Box<dyn Deref<Target = [f32]> + '_>, ModelError> {
        self.workspace.logits()
    }
}

/// Steps of fewer floating-point operations run on the caller's thread: less than 0.2 ms of work, with no product in
/// it that is worth sharing.
const POOL_OPERATIONS: usize = 8 << 20;
