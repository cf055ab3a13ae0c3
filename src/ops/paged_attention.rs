//! Causal attention over the paged cache, read in place.

use candle_core::Tensor;
use rayon::prelude::*;

use super::OpError;
use super::access::{check_dims, check_index, dims, read, shape, write};
use super::dot::{Product, Rows, TASK_OPERATIONS, multiply_here};
use super::lanes::{LANES, exp, tree, widest};
use super::weighted_sum::WeightedSum;

pub(super) mod launch;

pub use launch::{
    AttentionSizes, LONGEST_GRID, PagedAttention, attention_scratch_bytes, paged_attention_launches,
};

const OP: &str = "paged_attention";

/// Where each sequence's keys and values lie.
#[derive(Debug, Clone, Copy)]
pub struct Pages<'a> {
    /// `[num_seqs, max_blocks]`, u32: blocks of each sequence in order; entries past its last are not read
    pub block_tables: &'a Tensor,
    /// `[num_seqs + 1]`, u32: sequence `s` has query rows `cu_seqlens_q[s]..cu_seqlens_q[s + 1]`
    pub cu_seqlens_q: &'a Tensor,
    /// `[num_seqs]`, u32: keys of each sequence in the cache, those of its query rows last
    pub context_lens: &'a Tensor,
}

/// Attention of each query row over the keys of its own sequence up to its own position.
///
/// ```text
/// context  | cached before this step | query rows of this step |
/// row i    |<--------- sees ---------------->|                     i = context_len - rows + index in the sequence
/// window w              |<------ w --------->|
/// ```
/// Any mix of sequences: whole prompts, chunks, single tokens. Online softmax (Milakov and Gimelshein 2018) over
/// chunks of 64 keys cut at multiples of 64, so that the order of additions depends on the row's position alone.
///
/// - `q`: `[num_tokens, num_heads, head_dim]`, f32, contiguous
/// - `k_cache`, `v_cache`: `[num_blocks, block_size, num_kv_heads, head_dim]`, f32; head `h` of `q` reads head
///   `h / (num_heads / num_kv_heads)`
/// - `window`: each row sees the last `window` keys, its own included; `None`: all
/// - `out`: as `q`, written
///
/// Scores are scaled by `1 / √head_dim`.
///
/// # Errors
/// [`OpError::Shape`] naming the argument; [`OpError::Index`] for a block outside of the cache.
pub fn paged_attention(
    q: &Tensor,
    k_cache: &Tensor,
    v_cache: &Tensor,
    pages: Pages<'_>,
    window: Option<usize>,
    out: &Tensor,
) -> Result<(), OpError> {
    let [num_tokens, num_heads, head_dim] = dims(OP, "q", q)?;
    let [num_blocks, block_size, kv_heads, _] = dims(OP, "k_cache", k_cache)?;
    let [num_seqs, max_blocks] = dims(OP, "block_tables", pages.block_tables)?;
    check_dims(
        OP,
        "k_cache",
        k_cache,
        &[num_blocks, block_size, kv_heads, head_dim],
    )?;
    check_dims(OP, "v_cache", v_cache, k_cache.dims())?;
    check_dims(OP, "cu_seqlens_q", pages.cu_seqlens_q, &[num_seqs + 1])?;
    check_dims(OP, "context_lens", pages.context_lens, &[num_seqs])?;
    check_dims(OP, "out", out, q.dims())?;
    if kv_heads == 0 || !num_heads.is_multiple_of(kv_heads) {
        return Err(shape(
            OP,
            "q",
            format!("a multiple of {kv_heads} heads"),
            format!("{num_heads} heads"),
        ));
    }
    if window == Some(0) {
        return Err(shape(OP, "window", "at least 1", 0));
    }
    let tables = &*read::<u32>(OP, "block_tables", pages.block_tables)?;
    let starts = &*read::<u32>(OP, "cu_seqlens_q", pages.cu_seqlens_q)?;
    let lens = &*read::<u32>(OP, "context_lens", pages.context_lens)?;
    let work = check_pages(
        tables,
        starts,
        lens,
        [num_tokens, num_blocks, block_size, max_blocks],
    )?;
    let queries = &*read::<f32>(OP, "q", q)?;
    let k = &*read::<f32>(OP, "k_cache", k_cache)?;
    let v = &*read::<f32>(OP, "v_cache", v_cache)?;
    let group = num_heads / kv_heads;
    let attend = |(index, (q, out)): (usize, (&[f32], &mut [f32]))| {
        let (token, kv_head) = (index / kv_heads, index % kv_heads);
        let sequence = starts.partition_point(|&start| start as usize <= token) - 1;
        // Rows from this one to the end of its sequence's: the last row sees the whole context.
        let after = starts[sequence + 1] as usize - token;
        let end = lens[sequence] as usize + 1 - after;
        let start = window.map_or(0, |window| end.saturating_sub(window));
        let table = &tables[sequence * max_blocks..(sequence + 1) * max_blocks];
        let keys = Keys {
            k,
            v,
            table,
            block_size,
            kv_heads,
            kv_head,
            head_dim,
        };
        for (q, out) in q
            .chunks(HEADS * head_dim)
            .zip(out.chunks_mut(HEADS * head_dim))
        {
            keys.attend(q, start, end, out);
        }
    };
    let size = group * head_dim;
    write(
        OP,
        "out",
        out,
        &[q, k_cache, v_cache],
        |out: &mut [f32]| {
            if size == 0 || num_tokens == 0 {
                return;
            }
            let operations = 4 * work * num_heads * head_dim;
            if operations < 2 * TASK_OPERATIONS {
                queries
                    .chunks_exact(size)
                    .zip(out.chunks_exact_mut(size))
                    .enumerate()
                    .for_each(attend);
            } else {
                let rows = num_tokens * kv_heads;
                queries
                    .par_chunks_exact(size)
                    .zip(out.par_chunks_exact_mut(size))
                    .enumerate()
                    .with_min_len((rows * TASK_OPERATIONS / operations).clamp(1, rows))
                    .for_each(attend);
            }
        },
    )
}

/// Refuses arrays that point outside of each other or of the cache; returns the sum over rows of keys per sequence.
fn check_pages(
    tables: &[u32],
    starts: &[u32],
    lens: &[u32],
    [num_tokens, num_blocks, block_size, max_blocks]: [usize; 4],
) -> Result<usize, OpError> {
    let ascending = starts.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascending || starts.first() != Some(&0) || starts.last() != Some(&(num_tokens as u32)) {
        return Err(shape(
            OP,
            "cu_seqlens_q",
            format!("ascending from 0 to {num_tokens}"),
            starts,
        ));
    }
    let mut work = 0;
    for (sequence, &len) in lens.iter().enumerate() {
        let (len, rows) = (
            len as usize,
            (starts[sequence + 1] - starts[sequence]) as usize,
        );
        let blocks = len.div_ceil(block_size.max(1));
        if len < rows || blocks > max_blocks {
            let expected = format!(
                "{rows} to {} for sequence {sequence}",
                max_blocks * block_size
            );
            return Err(shape(OP, "context_lens", expected, len));
        }
        for &block in &tables[sequence * max_blocks..][..blocks] {
            check_index(OP, "block_tables", block as usize, num_blocks)?;
        }
        work += rows * len;
    }
    Ok(work)
}

/// One key-value head of one sequence.
struct Keys<'a> {
    k: &'a [f32],
    v: &'a [f32],
    table: &'a [u32],
    block_size: usize,
    kv_heads: usize,
    kv_head: usize,
    head_dim: usize,
}

impl Keys<'_> {
    /// Attention of up to [`HEADS`] query heads, which share their keys, over the keys `start..end`.
    fn attend(&self, q: &[f32], start: usize, end: usize, out: &mut [f32]) {
        let dim = self.head_dim;
        let scale = 1.0 / (dim as f32).sqrt();
        let heads = q.len() / dim;
        let mut scores = [0.0f32; HEADS * CHUNK];
        let mut softmax = [Softmax {
            maximum: f32::NEG_INFINITY,
            total: 0.0,
        }; HEADS];
        out.fill(0.0);
        let mut first = start;
        while first < end {
            let last = end.min((first / CHUNK + 1) * CHUNK);
            for (at, run, base) in self.runs(first, last) {
                let product = Product {
                    x: q,
                    x_stride: dim,
                    x_rows: Rows::From(0),
                    m: heads,
                    w: &self.k[base..],
                    w_stride: self.kv_heads * dim,
                    n: run,
                    k: dim,
                    y_rows: Rows::From(0),
                    y_stride: CHUNK,
                };
                multiply_here(&product, &mut scores[at..]);
            }
            let rows = scores
                .as_chunks_mut::<CHUNK>()
                .0
                .iter_mut()
                .zip(&mut softmax);
            for ((scores, softmax), out) in rows.zip(out.chunks_exact_mut(dim)) {
                absorb(scores, last - first, scale, softmax, out);
            }
            for (at, run, base) in self.runs(first, last) {
                let values = WeightedSum {
                    weights: &scores[at..],
                    weight_stride: CHUNK,
                    rows: &self.v[base..],
                    stride: self.kv_heads * dim,
                    count: run,
                    dim,
                };
                values.add_to(out);
            }
            first = last;
        }
        for (softmax, out) in softmax.iter().zip(out.chunks_exact_mut(dim)) {
            for value in out {
                *value /= softmax.total;
            }
        }
    }

    /// Cuts the keys `first..last` where blocks end: distance from `first`, keys, where the first one begins.
    fn runs(&self, first: usize, last: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let mut at = first;
        std::iter::from_fn(move || {
            if at == last {
                return None;
            }
            let (block, offset) = (at / self.block_size, at % self.block_size);
            let run = (self.block_size - offset).min(last - at);
            let slot = self.table[block] as usize * self.block_size + offset;
            let begin = at - first;
            at += run;
            Some((
                begin,
                run,
                (slot * self.kv_heads + self.kv_head) * self.head_dim,
            ))
        })
    }
}

/// A softmax in progress: `total` is the sum of `e^(score − maximum)` over the keys seen.
#[derive(Clone, Copy)]
struct Softmax {
    maximum: f32,
    total: f32,
}

widest! {
    /// Turns the first `count` scores into weights relative to the new maximum and rescales what was summed before.
    fn absorb(scores: &mut [f32; CHUNK], count: usize, scale: f32, softmax: &mut Softmax, out: &mut [f32]) = absorb_row;
}

#[inline(always)]
fn absorb_row(
    scores: &mut [f32; CHUNK],
    count: usize,
    scale: f32,
    softmax: &mut Softmax,
    out: &mut [f32],
) {
    for score in &mut scores[..count] {
        *score *= scale;
    }
    scores[count..].fill(f32::NEG_INFINITY);
    let mut lanes = [softmax.maximum; LANES];
    for chunk in scores.as_chunks::<LANES>().0 {
        for (lane, score) in lanes.iter_mut().zip(chunk) {
            *lane = if *score > *lane { *score } else { *lane };
        }
    }
    let maximum = lanes
        .into_iter()
        .fold(softmax.maximum, |a, b| if b > a { b } else { a });
    let mut sums = [0.0f32; LANES];
    for chunk in scores.as_chunks_mut::<LANES>().0 {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *score = exp(*score - maximum);
            *sum += *score;
        }
    }
    let before = exp(softmax.maximum - maximum);
    softmax.total = softmax.total.mul_add(before, tree(sums));
    softmax.maximum = maximum;
    for value in out {
        *value *= before;
    }
}

/// Query heads that are attended at once: they share each key that is read.
const HEADS: usize = 4;

/// Keys between two rescalings of the sum.
const CHUNK: usize = 64;

#[cfg(test)]
mod tests;
