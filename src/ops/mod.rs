//! Device operations, one file per op: its contract, its CPU implementation, its CUDA launch.
//!
//! Each op is a plain function over candle tensors that writes into a tensor the caller owns and allocates no device
//! memory. Knows no model, no requests and no files.
//!
//! # The order of additions
//!
//! Every output element is computed in an order that depends on its own row alone: never on how many rows share the
//! step, how they are cut into tiles, tasks or threads, where cache blocks lie, or which instruction set runs.
//! That makes a sequence's logits the same bits alone, batched, chunked and preempted. [`dot`] says how for products.

mod access;
#[cfg(any(test, feature = "cuda"))]
mod agreement;
mod codes;
mod copy_blocks;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod dot;
mod embedding;
#[cfg(test)]
pub mod emulated;
mod experts;
mod lanes;
mod launch;
mod linear;
mod matrix;
mod paged_attention;
#[cfg(test)]
mod parity;
mod quantised;
mod rms_norm;
mod rope;
mod route;
mod sample;
mod silu_mul;
mod simd;
mod store_kv;
mod synthetic;
mod tile;
mod upload;
mod weighted_sum;

pub use copy_blocks::copy_blocks;
#[cfg(feature = "cuda")]
pub use cuda::Cuda;
pub use device::{Device, Memory, Multiplier, Staged};
pub use embedding::{embedding, embedding_launch, gather_rows_launch};
pub use experts::{
    GroupedLinear, GroupedSizes, Routing, Side, combine_experts, grouped_linear,
    grouped_linear_launch,
};
pub use lanes::Isa;
pub use launch::{Address, Argument, Launch};
pub use linear::{linear, linear_launch};
pub use matrix::Matrix;
pub use paged_attention::{
    AttentionSizes, LONGEST_GRID, PagedAttention, Pages, attention_scratch_bytes, paged_attention,
    paged_attention_launches,
};
pub use quantised::{
    Blocks, Packed, PackedFormat, QuantiseError, Storage, quantised_experts_launch,
    quantised_linear_launch,
};
pub use rms_norm::{add_experts_rms_norm_launch, add_rms_norm, add_rms_norm_launch, rms_norm};
pub use rope::{RopeStoreKv, RopeTable, rope, rope_store_kv_launch};
pub use route::{Route, RouteSizes, route, route_launches, sort_by_expert};
pub use sample::{
    IN_PROMPT, Logprobs, NO_TOKEN, Sample, SampleRow, SampleTables, count_tokens,
    count_tokens_launch, logprobs, logprobs_launch, random_bits, sample_launch, sample_row,
};
pub use silu_mul::silu_mul;
pub use store_kv::store_kv;
pub use synthetic::{Draw, synthetic_launch};
pub use upload::{lend, upload, zero};

#[cfg(test)]
pub(crate) mod test_device;
#[cfg(test)]
pub(crate) mod testing;

/// Why an op did not run. Nothing was written, unless the device itself failed.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// An argument's shape, type or layout does not fit the others.
    #[error("{op}: `{argument}` is {given}, expected {expected}")]
    Shape {
        /// The op.
        op: &'static str,
        /// The argument at fault.
        argument: &'static str,
        /// What the other arguments ask for.
        expected: String,
        /// What was passed.
        given: String,
    },
    /// An index points outside of what it indexes.
    #[error("{op}: `{argument}` holds {given}, which is not below {limit}")]
    Index {
        /// The op.
        op: &'static str,
        /// The argument at fault.
        argument: &'static str,
        /// The index.
        given: usize,
        /// One more than the largest index allowed.
        limit: usize,
    },
    /// A CUDA device failed.
    #[error("{op}: {problem}")]
    Driver {
        /// What was asked of it.
        op: String,
        /// What its driver said.
        problem: String,
    },
    /// Candle or the device failed.
    #[error("{op}: {source}")]
    Device {
        /// The op.
        op: &'static str,
        /// What went wrong.
        source: candle_core::Error,
    },
}
