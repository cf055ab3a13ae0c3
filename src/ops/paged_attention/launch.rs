//! Launches of paged attention on a device: `kernels/paged_decode.cu`, and `kernels/paged_prefill.cu` or
//! `kernels/warpgroup_prefill.cu`.

use crate::ops::Multiplier;
use crate::ops::launch::{Address, Launch};

/// Where the tensors of [`paged_attention_launches`] lie.
#[derive(Debug, Clone, Copy)]
pub struct PagedAttention {
    /// `[num_tokens, heads, head_dim]`, bf16, turned by position
    pub q: Address,
    /// `[num_blocks, block_size, kv_heads, head_dim]`, bf16
    pub k_cache: Address,
    /// as `k_cache`
    pub v_cache: Address,
    /// u32: the blocks of each sequence, in order; what is behind its last one is not read
    pub block_tables: Address,
    /// `[num_seqs]`, u32: where in `block_tables` each sequence's begin
    pub table_starts: Address,
    /// `[num_seqs + 1]`, u32: where each sequence's rows begin
    pub cu_seqlens_q: Address,
    /// `[num_seqs]`, u32: keys of each sequence, this step's included; 0 for one that only fills a batch. One whose context
    /// does not hold its rows is skipped
    pub context_lens: Address,
    /// [`attention_scratch_bytes`] of them, written
    pub scratch: Address,
    /// `[num_tokens, heads, head_dim]`, bf16, written; rows of a sequence without keys are not
    pub out: Address,
}

/// Sizes of [`paged_attention_launches`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionSizes {
    /// Rows of the step.
    pub num_tokens: u32,
    /// Sequences of the step.
    pub num_seqs: u32,
    /// Most rows of a sequence.
    pub max_rows: u32,
    /// No context is longer. From [`LONGEST_GRID`] on, launches are the same.
    pub max_context: u32,
    /// Tokens per block.
    pub block_size: u32,
    /// How many keys a row sees, its own the last; 0 for all.
    pub window: u32,
    /// Query heads.
    pub heads: u32,
    /// Key heads: heads / 1, 2, 4, 6 or 8.
    pub kv_heads: u32,
    /// 32, 64 or 128.
    pub head_dim: u32,
}

/// Launches [`super::paged_attention`].
///
/// Sequences of one row go to a kernel that is bound by memory, those of more to one on tensor cores: which, depends on
/// the sequence's own rows alone. Which of the two on tensor cores depends on the step, but they give the same bits.
/// Lengths are read on the device; the grids have room for what the sizes allow.
///
/// # Panics
/// If the kernels have no such `head_dim` or group; see [`AttentionSizes`].
pub fn paged_attention_launches(
    by: Multiplier,
    at: PagedAttention,
    sizes: AttentionSizes,
) -> Vec<Launch> {
    launches_with(Prefill::for_step(by, sizes), at, sizes)
}

/// The same, sequences of several rows by one kernel or the other.
pub(in crate::ops) fn launches_with(
    prefill: Prefill,
    at: PagedAttention,
    sizes: AttentionSizes,
) -> Vec<Launch> {
    let mut launches = Vec::with_capacity(3);
    if sizes.num_seqs == 0 {
        return launches;
    }
    if sizes.max_rows > 1 {
        launches.push(prefill.launch(at, sizes));
    }
    if sizes.max_rows < sizes.num_tokens || sizes.max_rows == 1 {
        let splits = sizes.max_context.div_ceil(SPLIT_KEYS).clamp(1, SPLITS);
        launches.push(decode(at, sizes, splits));
        if splits > 1 {
            launches.push(combine(at, sizes));
        }
    }
    launches
}

/// Bytes that decoding `num_seqs` sequences leaves its parts in: 133 kB = 32 splits × (128 + 2) × 8 heads × 4 B and
/// sequence, for 8 heads of 128.
pub fn attention_scratch_bytes(heads: u32, head_dim: u32, num_seqs: usize) -> usize {
    num_seqs * (heads * SPLITS * (head_dim + 2)) as usize * size_of::<f32>()
}

/// What multiplies tiles of rows of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Prefill {
    /// Tiles of 64 rows.
    Warps,
    /// Tiles of 128, 64 for each of two warpgroups; heads of 64 or 128.
    Warpgroups,
}

impl Prefill {
    /// Those that such a device has for such heads.
    pub fn all(by: Multiplier, head_dim: u32) -> impl Iterator<Item = Self> {
        let has_warpgroups = by == Multiplier::Warpgroups && matches!(head_dim, 64 | 128);
        let all = [Self::Warps, Self::Warpgroups];
        all.into_iter()
            .filter(move |&it| it != Self::Warpgroups || has_warpgroups)
    }

    /// With 64 rows of each sequence or fewer, half of each block of warpgroups would have nothing to do.
    fn for_step(by: Multiplier, sizes: AttentionSizes) -> Self {
        let is_worth_it = sizes.max_rows > Self::Warps.rows();
        match Self::all(by, sizes.head_dim).last() {
            Some(most) if is_worth_it => most,
            _ => Self::Warps,
        }
    }

    fn rows(self) -> u32 {
        match self {
            Self::Warps => 64,
            Self::Warpgroups => 128,
        }
    }

    fn launch(self, at: PagedAttention, sizes: AttentionSizes) -> Launch {
        // Each sequence of several rows has one tile that is not full at most.
        let tiles = sizes.num_tokens / self.rows() + sizes.num_seqs.min(sizes.num_tokens / 2);
        let kernel = match (self, sizes.head_dim) {
            (Self::Warps, 32) => "paged_prefill_d32",
            (Self::Warps, 64) => "paged_prefill_d64",
            (Self::Warps, 128) => "paged_prefill_d128",
            (Self::Warpgroups, 64) => "paged_prefill_d64_warpgroups",
            (Self::Warpgroups, 128) => "paged_prefill_d128_warpgroups",
            (_, other) => {
                panic!("heads of {other} were refused when the model was loaded. This is a bug.")
            }
        };
        // 64 rows of queries and two tiles of 64 keys and values each; or five of keys and values.
        let tiles_of_64 = match self {
            Self::Warps => 5,
            Self::Warpgroups => 10,
        };
        Launch {
            kernel,
            grid: [sizes.heads, tiles, 1],
            block: [2 * self.rows(), 1, 1],
            shared_bytes: tiles_of_64 * 64 * sizes.head_dim * 2,
            arguments: vec![
                at.q.into(),
                at.k_cache.into(),
                at.v_cache.into(),
                at.block_tables.into(),
                at.table_starts.into(),
                at.cu_seqlens_q.into(),
                at.context_lens.into(),
                at.out.into(),
                sizes.num_seqs.into(),
                sizes.block_size.into(),
                sizes.kv_heads.into(),
                sizes.window.into(),
                scale(sizes.head_dim).into(),
            ],
        }
    }
}

fn decode(at: PagedAttention, sizes: AttentionSizes, splits: u32) -> Launch {
    let kernel = match (sizes.head_dim, sizes.heads / sizes.kv_heads) {
        (32, 1) => "paged_decode_d32_g1",
        (32, 2) => "paged_decode_d32_g2",
        (32, 4) => "paged_decode_d32_g4",
        (32, 6) => "paged_decode_d32_g6",
        (32, 8) => "paged_decode_d32_g8",
        (64, 1) => "paged_decode_d64_g1",
        (64, 2) => "paged_decode_d64_g2",
        (64, 4) => "paged_decode_d64_g4",
        (64, 6) => "paged_decode_d64_g6",
        (64, 8) => "paged_decode_d64_g8",
        (128, 1) => "paged_decode_d128_g1",
        (128, 2) => "paged_decode_d128_g2",
        (128, 4) => "paged_decode_d128_g4",
        (128, 6) => "paged_decode_d128_g6",
        (128, 8) => "paged_decode_d128_g8",
        other => panic!("{other:?} was refused when the model was loaded. This is a bug."),
    };
    Launch {
        kernel,
        grid: [splits, sizes.kv_heads, sizes.num_seqs],
        block: [128, 1, 1],
        shared_bytes: 4 * (sizes.heads / sizes.kv_heads) * (sizes.head_dim + 2) * 4,
        arguments: vec![
            at.q.into(),
            at.k_cache.into(),
            at.v_cache.into(),
            at.block_tables.into(),
            at.table_starts.into(),
            at.cu_seqlens_q.into(),
            at.context_lens.into(),
            at.scratch.into(),
            at.out.into(),
            sizes.block_size.into(),
            sizes.kv_heads.into(),
            sizes.window.into(),
            scale(sizes.head_dim).into(),
        ],
    }
}

fn combine(at: PagedAttention, sizes: AttentionSizes) -> Launch {
    Launch {
        kernel: "combine_splits",
        grid: [sizes.heads, sizes.num_seqs, 1],
        block: [sizes.head_dim, 1, 1],
        shared_bytes: 0,
        arguments: vec![
            at.scratch.into(),
            at.cu_seqlens_q.into(),
            at.context_lens.into(),
            at.out.into(),
            sizes.head_dim.into(),
            sizes.window.into(),
        ],
    }
}

/// Scores are powers of two: `log2(e) / √head_dim`.
fn scale(head_dim: u32) -> f32 {
    std::f32::consts::LOG2_E / (head_dim as f32).sqrt()
}

/// Keys of the shortest split of `paged_decode`, and the most splits that it makes.
const SPLIT_KEYS: u32 = 128;
const SPLITS: u32 = 32;

/// Tokens of a context that has as many splits as there can be.
pub const LONGEST_GRID: u32 = SPLIT_KEYS * SPLITS;
