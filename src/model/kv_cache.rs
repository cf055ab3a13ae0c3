//! The keys and values of every token that running sequences still need.

use std::sync::atomic::{AtomicU64, Ordering};

use super::backend::Backend;
use super::cpu::Cpu;
use super::{MixtralConfig, ModelError};

/// Paged keys and values, one pair per layer. Which block belongs to whom is the engine's business.
///
/// A token takes [`KvCache::bytes_per_token`] = 2 (K, V) × layers × KV heads × head width × 4 B (f32) on a CPU, 2 B (bf16)
/// on a GPU: the seedling 4 KiB = 2 × 4 × 2 × 64 × 4, Mixtral 8x7B 256 KiB = 2 × 32 × 8 × 128 × 4, or 128 KiB in bf16.
#[derive(Debug)]
pub struct KvCache<B: Backend = Cpu> {
    layers: Vec<B::LayerCache>,
    blocks: Blocks,
    id: CacheId,
}

/// Tells caches apart: what was recorded for one is nothing to another, even in the same memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheId(u64);

impl CacheId {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// How many blocks a cache has, of how many tokens each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blocks {
    pub count: usize,
    pub size: usize,
}

impl<B: Backend> KvCache<B> {
    /// A cache of `num_blocks` blocks of `block_size` tokens each, all of it unwritten.
    ///
    /// # Errors
    /// [`ModelError::Cache`] if a size is zero or slots do not fit 32 bits.
    pub(super) fn new(
        backend: &B,
        config: &MixtralConfig,
        num_blocks: usize,
        block_size: usize,
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
        let shape = [
            num_blocks,
            block_size,
            config.num_key_value_heads,
            config.head_dim,
        ];
        let layers = (0..config.num_hidden_layers)
            .map(|_| backend.layer_cache(shape))
            .collect::<Result<_, ModelError>>()?;
        let blocks = Blocks {
            count: num_blocks,
            size: block_size,
        };
        Ok(Self {
            layers,
            blocks,
            id: CacheId::new(),
        })
    }

    /// Bytes that each token of a sequence takes.
    pub fn bytes_per_token(config: &MixtralConfig) -> usize {
        2 * config.num_hidden_layers * config.kv_width() * B::CACHE_ELEMENT_BYTES
    }

    /// Blocks.
    pub fn num_blocks(&self) -> usize {
        self.blocks.count
    }

    /// Tokens per block.
    pub fn block_size(&self) -> usize {
        self.blocks.size
    }

    pub(super) fn id(&self) -> CacheId {
        self.id
    }

    pub(super) fn blocks(&self) -> Blocks {
        self.blocks
    }

    /// Copies whole blocks in every layer, in order: source, destination, source, ….
    pub(super) fn copy_blocks(&mut self, backend: &B, copies: &[u32]) -> Result<(), ModelError> {
        if copies.is_empty() {
            return Ok(());
        }
        self.layers
            .iter()
            .try_for_each(|layer| backend.copy_blocks(copies, layer))
    }

    pub(super) fn layers(&self) -> &[B::LayerCache] {
        &self.layers
    }
}
