//! Attention over a cache whose blocks lie in no order: of sequences that decode, and of a prompt.

use crate::bench::kernels::pool::{Case, Pool, shuffled};
use crate::bench::kernels::{Cost, KernelBenchError, Shape};
use crate::ops::{
    self, AttentionSizes, Device, Multiplier, PagedAttention, attention_scratch_bytes,
};

/// One row for each of `m` sequences, over `context` keys each. Keys and values are read once, not once per query head.
pub(super) fn decode<D: Device>(
    pool: &mut Pool<'_, D>,
    shape: &Shape,
    m: usize,
    context: usize,
) -> Result<Case, KernelBenchError> {
    let sequences = Sequences {
        count: m,
        rows_of_each: 1,
        context,
    };
    let by = pool.device.multiplier();
    sequences.case(pool, shape, by, m * context)
}

/// `m` rows of one sequence after `cached` tokens. Row `i` sees those and `i + 1` keys. `None`: by what the device has.
pub(super) fn prefill<D: Device>(
    pool: &mut Pool<'_, D>,
    shape: &Shape,
    by: Option<Multiplier>,
    m: usize,
    cached: usize,
) -> Result<Case, KernelBenchError> {
    let sequences = Sequences {
        count: 1,
        rows_of_each: m,
        context: cached + m,
    };
    let by = by.unwrap_or(pool.device.multiplier());
    sequences.case(pool, shape, by, m * cached + m * (m + 1) / 2)
}

struct Sequences {
    count: usize,
    rows_of_each: usize,
    context: usize,
}

impl Sequences {
    /// `seen`: pairs of a row and a key that it sees.
    fn case<D: Device>(
        &self,
        pool: &mut Pool<'_, D>,
        shape: &Shape,
        by: Multiplier,
        seen: usize,
    ) -> Result<Case, KernelBenchError> {
        let &Self {
            count,
            rows_of_each,
            context,
        } = self;
        let rows = count * rows_of_each;
        let max_blocks = context.div_ceil(shape.block_size);
        let num_blocks = count * max_blocks;
        let (q_width, kv_width) = (shape.q_width(), shape.kv_width());
        // Keys and values, queries and results, in bf16. Tables, starts, lengths.
        let tensors = 2 * count * context * kv_width * 2 + 2 * rows * q_width * 2;
        let cost = Cost {
            bytes: (tensors + 4 * (num_blocks + 3 * count + 1)) as u64,
            flops: 2 * 2 * (seen * q_width) as u64,
        };
        let [num_tokens, num_seqs, max_rows, max_context, max_blocks] =
            [rows, count, rows_of_each, context, max_blocks].map(|size| size as u32);
        let table_starts: Vec<u32> = (0..num_seqs).map(|it| it * max_blocks).collect();
        let [block_size, heads, kv_heads, head_dim] = [
            shape.block_size,
            shape.heads,
            shape.kv_heads,
            shape.head_dim,
        ]
        .map(|it| it as u32);
        let sizes = AttentionSizes {
            num_tokens,
            num_seqs,
            max_rows,
            max_context,
            block_size,
            window: 0,
            heads,
            kv_heads,
            head_dim,
        };
        let starts: Vec<u32> = (0..=num_seqs).map(|sequence| sequence * max_rows).collect();
        pool.case(cost, |pool, set| {
            let cache_elements = num_blocks * shape.block_size * kv_width;
            let at = PagedAttention {
                q: pool.halves(rows * q_width)?,
                k_cache: pool.halves(cache_elements)?,
                v_cache: pool.halves(cache_elements)?,
                block_tables: pool.words(&shuffled(num_blocks, set as u32))?,
                table_starts: pool.words(&table_starts)?,
                cu_seqlens_q: pool.words(&starts)?,
                context_lens: pool.words(&vec![max_context; count])?,
                scratch: pool.empty(attention_scratch_bytes(heads, head_dim, count))?,
                out: pool.empty(rows * q_width * 2)?,
            };
            Ok(ops::paged_attention_launches(by, at, sizes))
        })
    }
}
