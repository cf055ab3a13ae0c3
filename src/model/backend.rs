//! What computes a Mixtral: the operations that its layers are made of, on some device.
//!
//! The model is written once, in terms of these. A backend owns the buffers of a step and knows their layout; the model
//! knows in which order they are filled. An implementation holds no weights: it makes them, and is handed them.

use std::fmt;
use std::ops::Deref;

use super::weights::Checkpoint;
use super::{CacheId, MixtralConfig, ModelError, StepBatch};

/// What a norm adds to the residual stream first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// `delta`: the embedding, or what attention found.
    Delta,
    /// `Σ weight · pair` over each token's experts.
    Experts,
}

/// How large a step may be. What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// Most tokens in one step.
    pub max_num_batched_tokens: usize,
    /// Most rows of logits in one step: one per sequence that samples.
    pub max_logit_rows: usize,
}

/// How large a step may be. Buffers are allocated for the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most tokens in one step.
    pub tokens: usize,
    /// Most rows of logits in one step.
    pub logit_rows: usize,
}

impl Limits {
    /// At least one token, and no more rows of logits than tokens.
    pub fn of(options: LoadOptions) -> Self {
        let tokens = options.max_num_batched_tokens.max(1);
        Self {
            tokens,
            logit_rows: options.max_logit_rows.clamp(1, tokens),
        }
    }
}

/// A device's operations. Those of a step write the buffers that `step` names; see the model for their order.
///
/// # Errors
/// Everything may fail with [`ModelError`]: a tensor that is missing or does not fit, or a device that fails.
pub trait Backend: fmt::Debug + Send + Sync + Sized {
    /// Weights of a linear layer, `[out, in]`.
    type Matrix: fmt::Debug + Send + Sync;
    /// Weights of the projections to queries, keys and values, `[out, in]` each.
    type Qkv: fmt::Debug + Send + Sync;
    /// One side of all experts of a layer, `[experts, out, in]`.
    type Experts: fmt::Debug + Send + Sync;
    /// Weights of a norm, `[hidden]`.
    type Norm: fmt::Debug + Send + Sync;
    /// Embeddings, `[vocab, hidden]`.
    type Table: fmt::Debug + Send + Sync;
    /// Keys and values of a layer, each `[num_blocks, block_size, kv_heads, head_dim]`.
    type LayerCache: fmt::Debug + Send + Sync;
    /// The buffers of a step, cut to its size.
    type Step: Send + Sync;

    /// Bytes of each element of the cache.
    const CACHE_ELEMENT_BYTES: usize;

    /// Where it computes, such as `cpu, 2 threads, avx512`.
    fn describe(&self) -> String;

    /// Loads a norm's weights.
    fn norm(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        hidden: usize,
    ) -> Result<Self::Norm, ModelError>;

    /// Loads embeddings.
    fn table(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Self::Table, ModelError>;

    /// Loads the gate of a mixture of experts.
    fn gate(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Self::Matrix, ModelError>;

    /// Loads a linear layer.
    fn matrix(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Self::Matrix, ModelError>;

    /// The embeddings as an output layer, where both are one: `table`, or where linear layers are stored otherwise, the
    /// tensor `name` once more. It is `shape`: `[out, in]`.
    fn tied(
        &self,
        table: &Self::Table,
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Self::Matrix, ModelError>;

    /// Loads the projections to queries, keys and values.
    fn qkv(
        &self,
        checkpoint: &Checkpoint,
        names: [&str; 3],
        config: &MixtralConfig,
    ) -> Result<Self::Qkv, ModelError>;

    /// Loads what leads into all experts: `names` lists of each expert gate, then up, each `shape`. All of them are `stack`:
    /// `[experts, out, in]`.
    fn gate_up(
        &self,
        checkpoint: &Checkpoint,
        names: &[String],
        shape: [usize; 2],
        stack: [usize; 3],
    ) -> Result<Self::Experts, ModelError>;

    /// Loads what leads out of all experts: one name for each, all of them `stack`: `[experts, out, in]`.
    fn down(
        &self,
        checkpoint: &Checkpoint,
        names: &[String],
        stack: [usize; 3],
    ) -> Result<Self::Experts, ModelError>;

    /// How the weights of a linear layer are stored, such as `bf16`.
    fn storage(&self, matrix: &Self::Matrix) -> &'static str;

    /// An unwritten cache of one layer.
    fn layer_cache(&self, shape: [usize; 4]) -> Result<Self::LayerCache, ModelError>;

    /// Copies whole blocks, one after the other: source, destination, source, …. Blocks are in range.
    fn copy_blocks(&self, copies: &[u32], cache: &Self::LayerCache) -> Result<(), ModelError>;

    /// Tokens that the last step has chosen and that the next one may carry on.
    fn chosen(&self) -> usize {
        0
    }

    /// Takes a step's arrays, which have been checked, and cuts the buffers to it. `cache` is the one that it
    /// will be run on, in blocks of `block_size`.
    fn step(
        &mut self,
        batch: &StepBatch,
        block_size: usize,
        cache: CacheId,
    ) -> Result<Self::Step, ModelError>;

    /// Runs a step: `compute` calls the operations below. It may be called again where a first call has done nothing.
    fn run<F>(&self, step: &Self::Step, compute: F) -> Result<(), ModelError>
    where
        F: Fn() -> Result<(), ModelError> + Send;

    /// `residual = 0`, `delta = table[input_ids]`.
    fn embed(&self, table: &Self::Table, step: &Self::Step) -> Result<(), ModelError>;

    /// `residual += added`, `normed = weight · residual / √(mean(residual²) + eps)`.
    fn add_rms_norm(
        &self,
        added: Added,
        weight: &Self::Norm,
        step: &Self::Step,
    ) -> Result<(), ModelError>;

    /// Queries, keys and values of `normed`.
    fn project_qkv(&self, weights: &Self::Qkv, step: &Self::Step) -> Result<(), ModelError>;

    /// Turns queries and keys by their positions and writes keys and values into their slots.
    fn rope_store_kv(&self, step: &Self::Step, cache: &Self::LayerCache) -> Result<(), ModelError>;

    /// Attends to the cache; see [`crate::ops::paged_attention`].
    fn paged_attention(
        &self,
        step: &Self::Step,
        cache: &Self::LayerCache,
        window: Option<usize>,
    ) -> Result<(), ModelError>;

    /// `delta = attended · weightsᵀ`.
    fn project_out(&self, weights: &Self::Matrix, step: &Self::Step) -> Result<(), ModelError>;

    /// Chooses each token's experts by the gate's product with `normed`, and sorts the pairs by expert.
    fn route(&self, gate: &Self::Matrix, step: &Self::Step) -> Result<(), ModelError>;

    /// Into the experts: `activated = silu(gate) · up`, both products with `normed`.
    fn experts_in(&self, gate_up: &Self::Experts, step: &Self::Step) -> Result<(), ModelError>;

    /// Out of the experts: `pairs = activated · downᵀ`.
    fn experts_out(&self, down: &Self::Experts, step: &Self::Step) -> Result<(), ModelError>;

    /// Logits of the rows asked for, from `normed`.
    fn logits(&self, lm_head: &Self::Matrix, step: &Self::Step) -> Result<(), ModelError>;

    /// Lends the logits of the last step to the host: `[rows, vocab]`, perhaps with more behind.
    fn lend_logits(
        &mut self,
        rows: usize,
    ) -> Result<Box<dyn Deref<Target = [f32]> + '_>, ModelError>;
}
