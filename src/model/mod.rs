//! Tensors in, logits out: Mixtral on candle tensors, batched and ragged, over a paged KV cache.
//!
//! Knows no requests and no text. [`Mixtral::forward`] computes one step for any mix of sequences: whole prompts,
//! chunks of prompts, single decoded tokens. A token's logits are the same bits whatever shares its step.

mod attention;
mod backend;
mod batch;
mod config;
mod cpu;
mod device;
mod error;
mod files;
mod fit;
mod kv_cache;
mod mixtral;
mod moe;
mod synthetic;
mod weights;

pub use backend::{Backend, Limits, LoadOptions};
pub use batch::{Choice, Recount, StepBatch, carried};
pub use config::{GenerationDefaults, MixtralConfig};
pub use cpu::Cpu;
pub use device::{Choosing, OnDevice};
pub use error::ModelError;
pub use files::{ModelFiles, ModelSource};
pub use fit::{Footprint, RESERVE};
pub use kv_cache::{CacheId, KvCache};
pub use mixtral::{Logits, Mixtral};
pub use synthetic::{Synthetic, SyntheticNameError};
pub use weights::stored_types;

pub use crate::ops::{Device, SampleRow, Storage, random_bits};

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod stored_tests;
#[cfg(test)]
mod testing;
