//! Tensors in, logits out: Mixtral on candle tensors, batched and ragged, over a paged KV cache.
//!
//! Knows no requests and no text. [`Mixtral::forward`] computes one step for any mix of sequences: whole prompts,
//! chunks of prompts, single decoded tokens.

use std::path::PathBuf;

/// The arrays of one step. Sequences lie one after another in the flat arrays; nothing is padded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepBatch {
    /// `[num_tokens]` token ids
    pub input_ids: Vec<u32>,
    /// `[num_tokens]` position of each token in its own sequence
    pub positions: Vec<u32>,
    /// `[num_tokens]` slot in the cache that receives the token's key and value: `block * block_size + offset`
    pub slot_mapping: Vec<u32>,
    /// `[num_seqs + 1]` where each sequence's tokens begin in the flat arrays
    pub cu_seqlens_q: Vec<u32>,
    /// `[num_seqs]` tokens of each sequence whose keys are in the cache once this step's are written
    pub context_lens: Vec<u32>,
    /// `[num_seqs * max_blocks]` block tables, row by row; entries past a sequence's last block are not read
    pub block_tables: Vec<u32>,
    /// Columns of `block_tables`
    pub max_blocks: usize,
    /// Flat indices of the tokens whose logits are wanted, ascending
    pub logit_rows: Vec<u32>,
}

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// The seedling embedded in the binary.
    Seedling,
    /// A Hugging Face checkpoint folder.
    Folder(PathBuf),
}
