//! How long a step of Mixtral 8x7B takes on one A100 80 GB at best: its weights in 4 bits, its KV cache in bf16.

use std::time::Duration;

/// The larger of the time to move a step's bytes and the time to do its arithmetic, at datasheet rates. Of each part it
/// takes the start and the number of tokens.
pub(super) fn step_time(parts: impl IntoIterator<Item = (usize, usize)>) -> Duration {
    let (mut tokens, mut kv, mut attention) = (0.0, 0.0, 0.0);
    for (start, num_tokens) in parts {
        let new = num_tokens as f64;
        tokens += new;
        kv += (start + num_tokens) as f64 * KV_BYTES;
        // A new token attends on average to those before its part and to half of its part.
        attention += new * (start as f64 + new / 2.0) * ATTENTION_FLOPS;
    }
    let experts = 8.0 * (1.0 - 0.75_f64.powf(tokens));
    let weights = 32.0 * (experts * EXPERT + DENSE) * WEIGHT_BYTES + LM_HEAD_BYTES;
    let moving = (weights + kv) / BYTES_PER_S;
    let computing = (tokens * TOKEN_FLOPS + attention) / FLOPS;
    Duration::from_secs_f64(moving.max(computing))
}

/// Weights of one expert in one layer: 3 × 4096 × 14336.
const EXPERT: f64 = 176.16e6;
/// Weights of one layer outside the experts.
const DENSE: f64 = 41.94e6;
/// 4 bits, and one bf16 scale per 128 weights.
const WEIGHT_BYTES: f64 = 0.5 + 2.0 / 128.0;
/// 32000 × 4096 in bf16.
const LM_HEAD_BYTES: f64 = 262e6;
/// Per token: 2 (K, V) × 32 layers × 8 heads × 128 × 2 B.
const KV_BYTES: f64 = 131_072.0;
/// Per token: two for each of the 12.75 G weights that it meets.
const TOKEN_FLOPS: f64 = 25.5e9;
/// Per token and token of context: 4 × 32 layers × 4096.
const ATTENTION_FLOPS: f64 = 524_288.0;
const BYTES_PER_S: f64 = 1.935e12;
const FLOPS: f64 = 312e12;
/// Blocks of 16 tokens that fit beside the weights: 358 k tokens.
pub(super) const NUM_BLOCKS: usize = 22_375;
