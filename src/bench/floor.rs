//! What a model's steps cannot do without: the bytes that a decode step reads, the operations of a prompt.
//!
//! The arithmetic is that of the null models' roofline ([`Sizes`]), with the bytes that a weight has in each [`Storage`]. A step's
//! floor is the time in which a device moves those bytes or does those operations at the rate that was measured for it.

use serde::Serialize;

use crate::engine::null::{Precision, Sizes};
use crate::model::MixtralConfig;
use crate::ops::Storage;

/// A model's shape, and how its linear layers are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    sizes: Sizes,
    /// Bytes per weight of attention and experts.
    layer_bytes: f64,
    /// Bytes per weight of the output layer.
    head_bytes: f64,
}

/// What a decode step reads at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StepBytes {
    /// Weights: attention, the output layer, and of each layer the experts that are expected to have tokens.
    pub weights: u64,
    /// Keys and values of all sequences, in bf16.
    pub kv: u64,
}

impl StepBytes {
    /// All of them.
    pub fn total(self) -> u64 {
        self.weights + self.kv
    }
}

impl Floor {
    /// Of a model whose linear layers are all stored as `storage`.
    pub fn of(config: &MixtralConfig, storage: Storage) -> Self {
        let per_weight = storage.block_bytes() as f64 / storage.block_columns() as f64;
        Self {
            sizes: Sizes {
                layers: config.num_hidden_layers as u64,
                hidden: config.hidden_size as u64,
                intermediate: config.intermediate_size as u64,
                heads: config.num_attention_heads as u64,
                kv_heads: config.num_key_value_heads as u64,
                head_dim: config.head_dim as u64,
                experts: config.num_local_experts as u64,
                top_k: config.num_experts_per_tok as u64,
                vocab: config.vocab_size as u64,
            },
            layer_bytes: per_weight,
            head_bytes: per_weight,
        }
    }

    /// Of a null model, with the bytes of the precision that it stands for.
    pub fn of_null(sizes: Sizes, precision: Precision) -> Self {
        Self {
            sizes,
            layer_bytes: precision.layer_bytes(),
            head_bytes: precision.head_bytes(),
        }
    }

    /// Bytes of a step that decodes a token for each of `batch` sequences, which see `context` tokens each on average.
    ///
    /// Tokens are sent to experts with equal chances: of 8, one token has 2, eight tokens have 7.2, thirty-two all.
    /// Activations are left out: 11 MB per sequence at most, and mostly in caches.
    pub fn decode(&self, batch: usize, context: f64) -> StepBytes {
        let sizes = &self.sizes;
        let experts = sizes.busy_experts(batch as f64) * sizes.expert_weights() as f64;
        let layers = sizes.layers as f64 * (experts + sizes.attention_weights() as f64);
        let weights = layers * self.layer_bytes + sizes.table_weights() as f64 * self.head_bytes;
        StepBytes {
            weights: weights.round() as u64,
            kv: (batch as f64 * context * sizes.kv_bytes_per_token() as f64).round() as u64,
        }
    }

    /// Operations of a prompt of so many tokens, one row of logits at its end.
    pub fn prompt_flops(&self, tokens: usize) -> f64 {
        let tokens = tokens as f64;
        self.sizes.linear_flops(tokens, 1.0)
            + self.sizes.attention_flops(tokens * (tokens + 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::null::Shape;
    use crate::model::{ModelSource, Synthetic};

    fn mixtral(storage: Storage) -> Floor {
        let source = ModelSource::Synthetic(Synthetic::parse("mixtral-8x7b").unwrap());
        Floor::of(&MixtralConfig::of(&source).unwrap(), storage)
    }

    /// By hand, from the shape: an expert is 3 × 4,096 × 14,336 = 176,160,768 weights, attention 41,943,040, the output
    /// layer 131,072,000.
    #[test]
    fn a_decode_step_reads_the_experts_that_have_tokens_and_all_keys() {
        // One token, 32 × (2 × 176,160,768 + 41,943,040) + 131,072,000 = 12,747,538,432 weights of 2 bytes.
        let one = mixtral(Storage::Bf16).decode(1, 1024.0);
        assert_eq!(one.weights, 2 * 12_747_538_432);
        // 1,024 tokens of 131,072 bytes.
        assert_eq!((one.kv, one.total()), (134_217_728, one.weights + one.kv));
        // In w4a16, 66 bytes for 128 weights.
        let four_bits = mixtral(Storage::W4a16).decode(1, 1000.0);
        assert_eq!(four_bits.weights, 12_747_538_432 / 128 * 66);
        assert_eq!(four_bits.kv, 131_072_000);
        // Eight tokens: 8 × (1 − 0.75⁸) = 7.1991 experts of each layer, 42.06 B weights with the rest, 34 bytes for 32.
        let eight = mixtral(Storage::Q8_0).decode(8, 1024.0);
        let experts = 8.0 * (1.0 - 0.100_112_915_039_062_5);
        let weights = 32.0 * (experts * 176_160_768.0 + 41_943_040.0) + 131_072_000.0;
        assert!((eight.weights as f64 - weights * 34.0 / 32.0).abs() < 1.0);
        assert_eq!(eight.kv, 8 * 134_217_728);
    }

    /// Table 2.1 of the performance reference: gigabytes at a context of 1,024.
    #[test]
    fn the_floor_of_a_null_model_is_the_published_table() {
        let floor = |precision| Floor::of_null(Shape::Mixtral8x7b.sizes(), precision);
        for (precision, batch, weights, kv) in [
            (Precision::Bf16, 1, 25.5, 0.13),
            (Precision::Bf16, 8, 84.1, 1.07),
            (Precision::Bf16, 128, 93.1, 17.20),
            (Precision::Int8, 64, 46.6, 8.60),
            (Precision::W4a16, 1, 6.8, 0.13),
            (Precision::W4a16, 8, 22.0, 1.07),
            (Precision::W4a16, 64, 24.4, 8.60),
            (Precision::Q4K, 32, 26.2, 4.30),
        ] {
            let bytes = floor(precision).decode(batch, 1024.0);
            let near = |bytes: u64, gigabytes: f64| (bytes as f64 / 1e9 - gigabytes).abs() < 0.06;
            assert!(
                near(bytes.weights, weights) && near(bytes.kv, kv),
                "{precision:?} {batch}: {bytes:?}"
            );
        }
    }

    #[test]
    fn a_prompt_has_two_operations_per_weight_that_a_token_sees_and_four_per_pair_and_width() {
        let flops = mixtral(Storage::Bf16).prompt_flops(8192);
        // 8,192 tokens × 2 × 12,616,466,432 weights; one row × 2 × 131,072,000; 33,558,528 pairs × 4 × 32 × 4,096.
        let linear = 8192.0 * 2.0 * 12_616_466_432.0 + 2.0 * 131_072_000.0;
        assert!((flops - (linear + 33_558_528.0 * 524_288.0)).abs() / flops < 1e-12);
    }
}
