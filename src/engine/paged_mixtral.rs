//! Mixtral and its KV cache, as the runner takes them.

use std::ops::Deref;

use super::executor::{Capacity, ExecuteError};
use super::runner::Forward;
use crate::model::{Backend, Cpu, KvCache, Mixtral, ModelError, StepBatch};

/// A model together with the cache that its sequences share.
pub struct PagedMixtral<B: Backend = Cpu> {
    model: Mixtral<B>,
    cache: KvCache<B>,
    max_model_len: usize,
}

impl<B: Backend> PagedMixtral<B> {
    /// Gives `model` a cache of `num_blocks` blocks of `block_size` tokens.
    ///
    /// Sequences may be `max_model_len` tokens long, which is at most the model's own context.
    ///
    /// # Errors
    /// [`ModelError::Cache`] if a size is zero or far too large.
    pub fn new(
        model: Mixtral<B>,
        num_blocks: usize,
        block_size: usize,
        max_model_len: usize,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            cache: model.new_cache(num_blocks, block_size)?,
            max_model_len: max_model_len.min(model.config().max_position_embeddings),
            model,
        })
    }
}

impl<B: Backend> Forward for PagedMixtral<B> {
    fn capacity(&self) -> Capacity {
        Capacity {
            vocab_size: self.model.config().vocab_size,
            max_model_len: self.max_model_len,
            num_blocks: self.cache.num_blocks(),
            block_size: self.cache.block_size(),
        }
    }

    fn forward(&mut self, batch: &StepBatch) -> Result<impl Deref<Target = [f32]>, ExecuteError> {
        self.model
            .forward(batch, &mut self.cache)
            .map_err(|error| ExecuteError::Model(Box::new(error)))
    }
}
