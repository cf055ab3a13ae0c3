//! What a model takes of a device's memory, worked out before anything is loaded.

use super::device::arrays_bytes;
use super::{Cpu, KvCache, Limits, MixtralConfig};
use crate::ops::{Storage, attention_scratch_bytes};

/// Bytes of a model on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Its weights.
    pub weights: u64,
    /// The buffers of the largest step.
    pub workspace: u64,
    /// Keys and values of a token.
    pub per_token: u64,
    /// What else needs room there.
    pub reserve: u64,
}

impl Footprint {
    /// Of a model on a GPU whose linear layers are stored as `storage`; gates and embeddings are bf16, norms f32.
    ///
    /// Mixtral 8x7B in bf16: 93.4 GB = 46.7 B × 2 B, and 128 KiB per token = 2 × 32 layers × 8 heads × 128 × 2 B.
    pub fn on_device(config: &MixtralConfig, storage: Storage, limits: Limits) -> Self {
        let hidden = config.hidden_size;
        let (q_width, kv_width) = (config.q_width(), config.kv_width());
        let (heads, dim) = (config.num_attention_heads as u32, config.head_dim as u32);
        let pairs = config.num_experts_per_tok;
        let token = hidden * (4 + 4 + 2)
            + (q_width + 2 * kv_width) * 4
            + 2 * q_width * 2
            + pairs * (8 + 4 + config.intermediate_size * 2 + hidden * 4);
        let row = config.vocab_size * (4 + 4 + 4) + hidden * 2 + 4;
        let scratch = attention_scratch_bytes(heads, dim, limits.logit_rows);
        let arrays = arrays_bytes(config, limits);
        let workspace = limits.tokens * token + limits.logit_rows * row + scratch + arrays;
        Self {
            weights: weights(config, storage, Storage::Bf16),
            workspace: workspace as u64,
            per_token: 2 * (config.num_hidden_layers * kv_width) as u64 * 2,
            reserve: RESERVE,
        }
    }

    /// Of a model on a CPU whose linear layers are stored as `storage`, gates and embeddings as `tables`; all else is f32.
    ///
    /// All weights are held: those of a checkpoint are copied out of its files, which may be forgotten again.
    ///
    /// Mixtral 8x7B takes 256 KiB per token = 2 × 32 layers × 8 heads × 128 × 4 B.
    pub fn on_cpu(
        config: &MixtralConfig,
        storage: Storage,
        tables: Storage,
        limits: Limits,
    ) -> Self {
        let (hidden, width) = (config.hidden_size, config.intermediate_size);
        let (q_width, kv_width) = (config.q_width(), config.kv_width());
        let (pairs, experts) = (config.num_experts_per_tok, config.num_local_experts);
        // Ids, positions, slots, bounds, lengths and an entry of a block table; then what a layer writes.
        let token =
            6 + 3 * hidden + 2 * (q_width + kv_width) + experts + pairs * (3 + 3 * width + hidden);
        let row = 1 + hidden + config.vocab_size;
        let rest = 1 + experts + 1;
        let workspace = 4 * (limits.tokens * token + limits.logit_rows * row + rest);
        Self {
            weights: weights(config, storage, tables),
            workspace: workspace as u64,
            per_token: KvCache::<Cpu>::bytes_per_token(config) as u64,
            reserve: CPU_RESERVE,
        }
    }

    /// Tokens whose keys and values fit beside the rest; `None` if not even the rest does.
    pub fn tokens_in(&self, free: u64) -> Option<u64> {
        let left = free.checked_sub(self.weights + self.workspace + self.reserve)?;
        Some(left / self.per_token.max(1))
    }
}

/// Bytes of all weights whose linear layers are stored as `storage`, gates and embeddings as `tables`, norms and the angles
/// of positions as f32.
fn weights(config: &MixtralConfig, storage: Storage, tables: Storage) -> u64 {
    let bytes = |storage: Storage, rows: usize, columns: usize| {
        let blocks = columns.div_ceil(storage.block_columns()) as u64;
        rows as u64 * blocks * storage.block_bytes() as u64
    };
    let linear = |rows, columns| bytes(storage, rows, columns);
    let floats = |rows, columns| bytes(Storage::F32, rows, columns);
    let (hidden, width, experts) = (
        config.hidden_size,
        config.intermediate_size,
        config.num_local_experts,
    );
    let (q_width, kv_width) = (config.q_width(), config.kv_width());
    let layer = linear(q_width + 2 * kv_width, hidden)
        + linear(hidden, q_width)
        + bytes(tables, experts, hidden)
        + linear(experts * 2 * width, hidden)
        + linear(experts * hidden, width)
        + floats(2, hidden);
    let head = match config.tie_word_embeddings {
        true if storage == tables => 0,
        _ => linear(config.vocab_size, hidden),
    };
    config.num_hidden_layers as u64 * layer
        + bytes(tables, config.vocab_size, hidden)
        + head
        + floats(1, hidden)
        + floats(config.max_position_embeddings, config.head_dim)
}

/// Kept free on a GPU: the driver's own, recorded graphs and the kernels' code.
pub const RESERVE: u64 = 1 << 30;

/// Kept free on a CPU: threads and requests. The seedling is to run where there is little.
const CPU_RESERVE: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Synthetic;

    fn mixtral(storage: Storage) -> Footprint {
        let model = Synthetic::parse("mixtral-8x7b").unwrap();
        let config = MixtralConfig::parse(model.config().as_bytes()).unwrap();
        let limits = Limits {
            tokens: 512,
            logit_rows: 64,
        };
        Footprint::on_device(&config, storage, limits)
    }

    #[test]
    fn mixtral_takes_what_the_arithmetic_says() {
        // 46,702,792,704 weights, of which 132 M are embeddings and gates, 266 k norms; 16 MiB of angles.
        let bf16 = mixtral(Storage::Bf16);
        let angles = 32_768 * 128 * 4;
        let norms = (2 * 32 + 1) * 4096;
        assert_eq!(bf16.weights, 2 * 46_702_792_704 + 2 * norms + angles);
        assert_eq!(bf16.per_token, 131_072);
        let gigabytes = Storage::ALL.map(|storage| mixtral(storage).weights / 100_000_000);
        assert_eq!(gigabytes, [1865, 934, 242, 497, 264, 475]);
    }

    #[test]
    fn a_tied_output_layer_takes_room_only_where_it_is_stored_otherwise() {
        let model = Synthetic::parse("mixtral-8x7b").unwrap();
        let apart = MixtralConfig::parse(model.config().as_bytes()).unwrap();
        let tied = MixtralConfig {
            tie_word_embeddings: true,
            ..apart.clone()
        };
        let taken = |config: &MixtralConfig, storage| weights(config, storage, Storage::Bf16);
        let table = 2 * 32_000 * 4096;
        let same = Storage::Bf16;
        assert_eq!(taken(&tied, same), taken(&apart, same) - table);
        for storage in [Storage::F32, Storage::W4a16, Storage::Q8_0] {
            assert_eq!(taken(&tied, storage), taken(&apart, storage), "{storage}");
        }
    }

    #[test]
    fn mixtral_takes_as_much_in_memory_as_on_a_gpu_but_for_what_is_f32_there() {
        let model = Synthetic::parse("mixtral-8x7b").unwrap();
        let config = MixtralConfig::parse(model.config().as_bytes()).unwrap();
        let limits = Limits {
            tokens: 512,
            logit_rows: 64,
        };
        for storage in Storage::ALL {
            let on_cpu = Footprint::on_cpu(&config, storage, Storage::Bf16, limits);
            assert_eq!(on_cpu.weights, mixtral(storage).weights, "{storage}");
            assert_eq!(on_cpu.per_token, 262_144);
        }
        let wide = Footprint::on_cpu(&config, Storage::F32, Storage::F32, limits);
        let tables = 32_000 * 4096 + 32 * 8 * 4096;
        assert_eq!(wide.weights, mixtral(Storage::F32).weights + 2 * tables);
    }

    #[test]
    fn what_is_left_is_the_caches_and_what_does_not_fit_is_none() {
        let four_bit = mixtral(Storage::W4a16);
        let rest = four_bit.weights + four_bit.workspace + RESERVE;
        assert_eq!(four_bit.tokens_in(rest), Some(0));
        assert_eq!(four_bit.tokens_in(rest + 10 * 131_072), Some(10));
        assert_eq!(four_bit.tokens_in(rest - 1), None);
        // An H100 of 80 GB holds the 4-bit form and some 400,000 tokens, not the 16-bit form.
        let h100 = 84_000_000_000;
        assert!(
            four_bit
                .tokens_in(h100)
                .is_some_and(|tokens| tokens > 400_000)
        );
        assert_eq!(mixtral(Storage::Bf16).tokens_in(h100), None);
        assert!(four_bit.workspace < 200 << 20, "{}", four_bit.workspace);
    }
}
