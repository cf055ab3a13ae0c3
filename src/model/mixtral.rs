//! Mixtral, from the embedding to the logits, in the order of its checkpoint.

use std::ops::Deref;

use super::attention::Attention;
use super::backend::{Added, Backend, Limits, LoadOptions};
use super::config::{GenerationDefaults, MixtralConfig};
use super::cpu::Cpu;
use super::moe::Moe;
use super::weights::Checkpoint;
use super::{KvCache, ModelError, ModelSource, StepBatch};

/// A Mixtral on one device.
#[derive(Debug)]
pub struct Mixtral<B: Backend = Cpu> {
    embed_tokens: B::Table,
    layers: Vec<Layer<B>>,
    norm: B::Norm,
    lm_head: B::Matrix,
    config: MixtralConfig,
    generation: GenerationDefaults,
    limits: Limits,
    backend: B,
}

#[derive(Debug)]
struct Layer<B: Backend> {
    input_layernorm: B::Norm,
    self_attn: Attention<B>,
    post_attention_layernorm: B::Norm,
    moe: Moe<B>,
}

impl Mixtral {
    /// Loads configuration and weights, to compute on the CPU.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the tensor or field that is missing, malformed or not supported.
    pub fn load(source: &ModelSource, options: LoadOptions) -> Result<Self, ModelError> {
        Self::load_on(source, options, Cpu::new)
    }
}

impl<B: Backend> Mixtral<B> {
    /// Loads configuration and weights, to compute on what `backend` makes of the model's shape.
    ///
    /// # Errors
    /// As [`Mixtral::load`]; whatever the device refuses.
    pub fn load_on(
        source: &ModelSource,
        options: LoadOptions,
        backend: impl FnOnce(&MixtralConfig, Limits) -> Result<B, ModelError>,
    ) -> Result<Self, ModelError> {
        let config = MixtralConfig::of(source)?;
        let generation =
            GenerationDefaults::parse(source.read("generation_config.json")?.as_deref(), &config)?;
        let checkpoint = Checkpoint::open(source)?;
        let limits = Limits::of(options);
        let backend = backend(&config, limits)?;
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let table = [vocab, hidden];

        let embeddings = "model.embed_tokens.weight";
        let embed_tokens = backend.table(&checkpoint, embeddings, table)?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| {
                let norm = |name: &str| {
                    let name = format!("model.layers.{layer}.{name}.weight");
                    backend.norm(&checkpoint, &name, hidden)
                };
                Ok(Layer {
                    input_layernorm: norm("input_layernorm")?,
                    self_attn: Attention::load(&backend, &checkpoint, layer, &config)?,
                    post_attention_layernorm: norm("post_attention_layernorm")?,
                    moe: Moe::load(&backend, &checkpoint, layer, &config)?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        let norm = backend.norm(&checkpoint, "model.norm.weight", hidden)?;
        let lm_head = match config.tie_word_embeddings {
            true => backend.tied(&embed_tokens, &checkpoint, embeddings, table)?,
            false => backend.matrix(&checkpoint, "lm_head.weight", table)?,
        };
        Ok(Self {
            embed_tokens,
            layers,
            norm,
            lm_head,
            config,
            generation,
            limits,
            backend,
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &MixtralConfig {
        &self.config
    }

    /// How the weights are stored, such as `bf16`.
    pub fn dtype(&self) -> &'static str {
        self.backend.storage(&self.lm_head)
    }

    /// Most rows of logits in one step.
    pub fn max_logit_rows(&self) -> usize {
        self.limits.logit_rows
    }

    /// Where it computes, such as `cpu, 2 threads, avx512`.
    pub fn device(&self) -> String {
        self.backend.describe()
    }

    /// What the checkpoint proposes for generation, its end-of-sequence tokens among it.
    pub fn generation(&self) -> &GenerationDefaults {
        &self.generation
    }

    /// A cache for this model, on its device.
    ///
    /// # Errors
    /// [`ModelError::Cache`] if a size is zero or far too large.
    pub fn new_cache(
        &self,
        num_blocks: usize,
        block_size: usize,
    ) -> Result<KvCache<B>, ModelError> {
        KvCache::new(&self.backend, &self.config, num_blocks, block_size)
    }

    /// Computes one step: copies `batch.block_copies` within `cache`, writes every token's key and value into it and
    /// returns the logits of `batch.logit_rows`.
    ///
    /// # Errors
    /// [`ModelError::Batch`] if the arrays contradict each other, the model or the cache; then nothing was computed or copied.
    pub fn forward(
        &mut self,
        batch: &StepBatch,
        cache: &mut KvCache<B>,
    ) -> Result<Logits<'_>, ModelError> {
        self.run(batch, cache)?;
        let (rows, vocab) = (batch.logit_rows.len(), self.config.vocab_size);
        Ok(Logits {
            values: self.backend.lend_logits(rows)?,
            rows,
            vocab,
        })
    }

    /// As [`Mixtral::forward`], without waiting for the logits.
    pub(super) fn run(
        &mut self,
        batch: &StepBatch,
        cache: &mut KvCache<B>,
    ) -> Result<(), ModelError> {
        let chosen = self.backend.chosen();
        batch.check(&self.config, self.limits, cache.blocks(), chosen)?;
        cache.copy_blocks(&self.backend, &batch.block_copies)?;
        let step = self.backend.step(batch, cache.block_size(), cache.id())?;
        self.backend.run(&step, || self.compute(&step, cache))
    }

    /// The device it computes on.
    pub(super) fn backend(&mut self) -> &mut B {
        &mut self.backend
    }

    fn compute(&self, step: &B::Step, cache: &KvCache<B>) -> Result<(), ModelError> {
        let backend = &self.backend;
        // The residual stream starts at zero; the embedding is the first thing added to it.
        backend.embed(&self.embed_tokens, step)?;
        let mut added = Added::Delta;
        for (layer, cache) in self.layers.iter().zip(cache.layers()) {
            backend.add_rms_norm(added, &layer.input_layernorm, step)?;
            layer.self_attn.forward(backend, step, cache)?;
            backend.add_rms_norm(Added::Delta, &layer.post_attention_layernorm, step)?;
            layer.moe.forward(backend, step)?;
            added = Added::Experts;
        }
        backend.add_rms_norm(added, &self.norm, step)?;
        backend.logits(&self.lm_head, step)
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

#[cfg(test)]
mod tests;
