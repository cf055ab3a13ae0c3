//! The keys and values of every token that running sequences still need.

use candle_core::{DType, Device, Tensor};

use super::{MixtralConfig, ModelError};
use crate::ops;

/// Paged keys and values, one pair of tensors per layer. Which block belongs to whom is the engine's business.
///
/// A token takes [`KvCache::bytes_per_token`] = 2 (K, V) × layers × KV heads × head width × 4 B (f32):
/// the seedling 4 KiB = 2 × 4 × 2 × 64 × 4, Mixtral 8x7B 256 KiB = 2 × 32 × 8 × 128 × 4.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    num_blocks: usize,
    block_size: usize,
}

/// One layer's keys and values: each `[num_blocks, block_size, num_kv_heads, head_dim]`, f32.
#[derive(Debug)]
pub(super) struct LayerCache {
    pub k: Tensor,
    pub v: Tensor,
}

impl KvCache {
    /// A cache of `num_blocks` blocks of `block_size` tokens each, all of it unwritten.
    ///
    /// # Errors
    /// [`ModelError::Cache`] if a size is zero or slots do not fit 32 bits.
    pub fn new(
        config: &MixtralConfig,
        num_blocks: usize,
        block_size: usize,
        device: &Device,
    ) -> Result<Self, ModelError> {
        if num_blocks == 0 || block_size == 0 {
            return Err(ModelError::Cache(format!(
                "{num_blocks} blocks of {block_size} tokens hold nothing"
            )));
        }
        let slots = num_blocks
            .checked_mul(block_size)
            .filter(|&slots| slots <= u32::MAX as usize);
        let fits = slots.and_then(|slots| slots.checked_mul(Self::bytes_per_token(config)));
        if fits.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(ModelError::Cache(format!(
                "{num_blocks} blocks of {block_size} tokens are too many: at most {} tokens fit",
                u32::MAX
            )));
        }
        let shape = (
            num_blocks,
            block_size,
            config.num_key_value_heads,
            config.head_dim,
        );
        let zeros = || Tensor::zeros(shape, DType::F32, device);
        let layers = (0..config.num_hidden_layers)
            .map(|_| {
                Ok(LayerCache {
                    k: zeros()?,
                    v: zeros()?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        Ok(Self {
            layers,
            num_blocks,
            block_size,
        })
    }

    /// Bytes that each token of a sequence takes.
    pub fn bytes_per_token(config: &MixtralConfig) -> usize {
        2 * config.num_hidden_layers
            * config.num_key_value_heads
            * config.head_dim
            * size_of::<f32>()
    }

    /// Blocks.
    pub fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    /// Tokens per block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Copies whole blocks in every layer, in order: source, destination, source, ….
    pub(super) fn copy_blocks(&mut self, copies: &[u32]) -> Result<(), ModelError> {
        if copies.is_empty() {
            return Ok(());
        }
        for LayerCache { k, v } in &self.layers {
            ops::copy_blocks(copies, k)?;
            ops::copy_blocks(copies, v)?;
        }
        Ok(())
    }

    pub(super) fn layers(&self) -> &[LayerCache] {
        &self.layers
    }
}
