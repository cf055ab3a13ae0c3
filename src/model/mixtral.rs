//! Mixtral, from the embedding to the logits, in the order of its checkpoint.

use std::ops::Deref;

use candle_core::{Device, Tensor};

use super::attention::Attention;
use super::batch::Limits;
use super::config::{GenerationDefaults, MixtralConfig};
use super::moe::Moe;
use super::weights::Checkpoint;
use super::workspace::{Step, Workspace};
use super::{KvCache, ModelError, ModelSource, StepBatch};
use crate::ops::{self, RopeTable};

/// A Mixtral on one device, with the buffers of a step.
#[derive(Debug)]
pub struct Mixtral {
    embed_tokens: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    lm_head: Tensor,
    rope: RopeTable,
    eps: f32,
    config: MixtralConfig,
    generation: GenerationDefaults,
    workspace: Workspace,
    operations_per_token: usize,
    device: Device,
}

#[derive(Debug)]
struct Layer {
    input_layernorm: Tensor,
    self_attn: Attention,
    post_attention_layernorm: Tensor,
    moe: Moe,
}

/// How large a step may be. Buffers are allocated for the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// Most tokens in one step.
    pub max_num_batched_tokens: usize,
    /// Most rows of logits in one step: one per sequence that samples.
    pub max_logit_rows: usize,
}

impl Mixtral {
    /// Loads configuration and weights.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the tensor or field that is missing, malformed or not supported.
    pub fn load(source: &ModelSource, options: LoadOptions) -> Result<Self, ModelError> {
        let device = Device::Cpu;
        let config = MixtralConfig::parse(&source.require("config.json")?)?;
        let generation =
            GenerationDefaults::parse(source.read("generation_config.json")?.as_deref(), &config)?;
        let checkpoint = Checkpoint::open(source, &device)?;
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);

        let embed_tokens = checkpoint.tensor("model.embed_tokens.weight", &[vocab, hidden])?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| {
                let norm = |name: &str| {
                    checkpoint.widened(&format!("model.layers.{layer}.{name}.weight"), &[hidden])
                };
                Ok(Layer {
                    input_layernorm: norm("input_layernorm")?,
                    self_attn: Attention::load(&checkpoint, layer, &config)?,
                    post_attention_layernorm: norm("post_attention_layernorm")?,
                    moe: Moe::load(&checkpoint, layer, &config)?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        let norm = checkpoint.widened("model.norm.weight", &[hidden])?;
        let lm_head = match config.tie_word_embeddings {
            true => embed_tokens.clone(),
            false => checkpoint.tensor("lm_head.weight", &[vocab, hidden])?,
        };

        let rope = RopeTable::new(
            config.max_position_embeddings,
            config.head_dim,
            config.rope_theta,
            &device,
        )?;
        let limits = Limits {
            tokens: options.max_num_batched_tokens.max(1),
            logit_rows: options
                .max_logit_rows
                .clamp(1, options.max_num_batched_tokens.max(1)),
        };
        let workspace = Workspace::new(&config, limits, &device)?;
        let eps = config.rms_norm_eps as f32;
        let operations_per_token = 2 * config.active_weights();
        Ok(Self {
            embed_tokens,
            layers,
            norm,
            lm_head,
            rope,
            eps,
            config,
            generation,
            workspace,
            operations_per_token,
            device,
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &MixtralConfig {
        &self.config
    }

    /// How the weights are stored, such as `bf16`.
    pub fn dtype(&self) -> &'static str {
        self.lm_head.dtype().as_str()
    }

    /// Where it computes, such as `cpu, 2 threads, avx512`.
    pub fn device(&self) -> String {
        let (threads, isa) = (rayon::current_num_threads(), ops::Isa::best().name());
        let s = if threads == 1 { "" } else { "s" };
        format!("cpu, {threads} thread{s}, {isa}")
    }

    /// What the checkpoint proposes for generation, its end-of-sequence tokens among it.
    pub fn generation(&self) -> &GenerationDefaults {
        &self.generation
    }

    /// A cache for this model, on its device.
    ///
    /// # Errors
    /// [`ModelError::Cache`] if a size is zero or far too large.
    pub fn new_cache(&self, num_blocks: usize, block_size: usize) -> Result<KvCache, ModelError> {
        KvCache::new(&self.config, num_blocks, block_size, &self.device)
    }

    /// Computes one step: copies `batch.block_copies` within `cache`, writes every token's key and value into it and
    /// returns the logits of `batch.logit_rows`.
    ///
    /// # Errors
    /// [`ModelError::Batch`] if the arrays contradict each other, the model or the cache; then nothing was computed or copied.
    pub fn forward(
        &mut self,
        batch: &StepBatch,
        cache: &mut KvCache,
    ) -> Result<Logits<'_>, ModelError> {
        batch.check(&self.config, self.workspace.limits, cache)?;
        cache.copy_blocks(&batch.block_copies)?;
        let step = self.workspace.step(batch, &self.config)?;
        if batch.input_ids.len() * self.operations_per_token < POOL_OPERATIONS {
            self.compute(&step, cache)?;
        } else {
            // On a thread of the pool: from outside, each operation that uses the pool would wait to be let in.
            rayon::scope(|_| self.compute(&step, cache))?;
        }
        let (rows, vocab) = (batch.logit_rows.len(), self.config.vocab_size);
        Ok(Logits {
            values: self.workspace.logits()?,
            rows,
            vocab,
        })
    }

    fn compute(&self, step: &Step, cache: &KvCache) -> Result<(), ModelError> {
        let norm =
            |weight| ops::add_rms_norm(&step.delta, &step.residual, weight, self.eps, &step.normed);

        // The residual stream starts at zero; the embedding is the first thing added to it.
        ops::zero(&step.residual)?;
        ops::embedding(&self.embed_tokens, &step.input_ids, &step.delta)?;
        for (layer, cache) in self.layers.iter().zip(cache.layers()) {
            norm(&layer.input_layernorm)?;
            layer.self_attn.forward(step, &self.rope, cache)?;
            norm(&layer.post_attention_layernorm)?;
            layer.moe.forward(step)?;
        }
        norm(&self.norm)?;
        ops::embedding(&step.normed, &step.logit_rows, &step.last)?;
        ops::linear(&step.last, &self.lm_head, &step.logits)?;
        Ok(())
    }
}

/// Logits of the rows that a step was asked for: `[rows, vocab]`, row by row. Reads the model's own buffer.
pub struct Logits<'a> {
    values: Box<dyn Deref<Target = [f32]> + 'a>,
    rows: usize,
    vocab: usize,
}

impl Logits<'_> {
    /// Logits of `batch.logit_rows[index]`.
    ///
    /// # Panics
    /// If there are not that many rows.
    pub fn row(&self, index: usize) -> &[f32] {
        &self[index * self.vocab..(index + 1) * self.vocab]
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl Deref for Logits<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[..self.rows * self.vocab]
    }
}

/// Steps of fewer floating-point operations run on the caller's thread: less than 0.2 ms of work, with no product in
/// it that is worth sharing.
const POOL_OPERATIONS: usize = 8 << 20;

#[cfg(test)]
mod tests;
