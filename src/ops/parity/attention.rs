//! Paged attention: one row per sequence on scalar lanes, several on tensor cores.

use mixgate_emulate::Buffer;

use super::{at, narrow_floats, narrowed, run, widened};
use crate::ops::{
    AttentionSizes, PagedAttention, attention_scratch_bytes, paged_attention_launches,
};

/// Sequences as (rows of this step, keys with them), on a cache whose other slots nobody has written.
struct Case {
    sequences: Vec<(usize, usize)>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    block_size: usize,
    window: usize,
}

impl Case {
    /// Output rows, `[num_tokens][heads * head_dim]`, and what f64 makes of the same inputs. Each sequence's numbers
    /// follow from `seeds`, whoever else is there.
    fn attend(&self, seeds: &[u64]) -> Vec<Vec<f32>> {
        let Self {
            heads,
            kv_heads,
            head_dim: dim,
            block_size,
            ..
        } = *self;
        let max_blocks = self
            .sequences
            .iter()
            .map(|&(_, keys)| keys.div_ceil(block_size))
            .max()
            .unwrap()
            + 1;
        let num_blocks = self.sequences.len() * max_blocks;
        let row = kv_heads * dim;
        let (k_cache, v_cache) = (
            Buffer::<u16>::poisoned(num_blocks * block_size * row),
            Buffer::<u16>::poisoned(num_blocks * block_size * row),
        );
        let mut tables = vec![u32::MAX; self.sequences.len() * max_blocks];
        let (mut q, mut starts) = (Vec::new(), vec![0u32]);
        let mut expected = Vec::new();
        for (index, (&(rows, keys), &seed)) in self.sequences.iter().zip(seeds).enumerate() {
            let (k, v) = (
                narrow_floats(seed, keys * row),
                narrow_floats(seed + 1, keys * row),
            );
            // Blocks lie scattered: the last of the table first, sequences between each other.
            for block in 0..keys.div_ceil(block_size) {
                let place = (max_blocks - 1 - block) * self.sequences.len() + index;
                tables[index * max_blocks + block] = place as u32;
                let from = block * block_size * row;
                let to = (from + block_size * row).min(keys * row);
                k_cache.write(place * block_size * row, &bits(&k[from..to]));
                v_cache.write(place * block_size * row, &bits(&v[from..to]));
            }
            // A query follows from its position, so that chunks of a prompt agree.
            let drawn = narrow_floats(seed + 2, keys.max(rows) * heads * dim);
            let queries = &drawn[(keys.max(rows) - rows) * heads * dim..];
            for i in 0..rows {
                let position = keys - rows + i;
                let first = if self.window == 0 {
                    0
                } else {
                    (position + 1).saturating_sub(self.window)
                };
                let row = (0..heads).flat_map(|head| {
                    let query = &queries[(i * heads + head) * dim..][..dim];
                    exact(
                        query,
                        &k,
                        &v,
                        [first, position + 1],
                        head / (heads / kv_heads),
                        kv_heads,
                    )
                });
                expected.push(row.collect::<Vec<f64>>());
            }
            q.extend(queries);
            starts.push(starts[index] + rows as u32);
        }
        let num_tokens = starts[self.sequences.len()] as usize;
        let lens: Vec<u32> = self
            .sequences
            .iter()
            .map(|&(_, keys)| keys as u32)
            .collect();
        let (q, tables, starts, lens) = (
            narrowed(&q),
            Buffer::new(&tables),
            Buffer::new(&starts),
            Buffer::new(&lens),
        );
        let out = Buffer::<u16>::poisoned(num_tokens * heads * dim);
        let scratch = attention_scratch_bytes(heads as u32, dim as u32, self.sequences.len());
        let scratch = Buffer::<u8>::poisoned(scratch);
        let tensors = PagedAttention {
            q: at(&q),
            k_cache: at(&k_cache),
            v_cache: at(&v_cache),
            block_tables: at(&tables),
            cu_seqlens_q: at(&starts),
            context_lens: at(&lens),
            scratch: at(&scratch),
            out: at(&out),
        };
        let sizes = AttentionSizes {
            num_tokens: num_tokens as u32,
            num_seqs: self.sequences.len() as u32,
            max_rows: self
                .sequences
                .iter()
                .map(|&(rows, _)| rows as u32)
                .max()
                .unwrap(),
            max_context: (max_blocks * block_size) as u32,
            max_blocks: max_blocks as u32,
            block_size: block_size as u32,
            window: self.window as u32,
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            head_dim: dim as u32,
        };
        paged_attention_launches(tensors, sizes)
            .into_iter()
            .for_each(run);

        // Rows of sequences without keys are left as they were.
        let given = widened(&out.raw_values());
        let mut token = 0;
        let mut checked = Vec::new();
        for &(rows, keys) in &self.sequences {
            for _ in 0..rows {
                let row = &given[token * heads * dim..][..heads * dim];
                if keys > 0 {
                    check(row, &expected[token], rows);
                }
                checked.push(row.to_vec());
                token += 1;
            }
        }
        checked
    }
}

/// Values lie in −1..1. The result is rounded to bf16, 2⁻⁸ of it; on tensor cores so are the weights of the values, 2⁻⁸
/// of a mean of values below 1. Scores are sums in f32 of some units: 2⁻²⁰ for exponents.
fn check(given: &[f32], exact: &[f64], rows: usize) {
    let unit = 1.0 / 256.0;
    for (i, (&given, &exact)) in given.iter().zip(exact).enumerate() {
        let weights = if rows > 1 { unit } else { 0.0 };
        let tolerance = exact.abs() * unit + weights + 1e-5;
        assert!(
            (given as f64 - exact).abs() <= tolerance,
            "{i}: {given}, not {exact}"
        );
    }
}

/// One head's attention over `keys`, in f64.
fn exact(
    query: &[f32],
    k: &[f32],
    v: &[f32],
    [first, end]: [usize; 2],
    kv_head: usize,
    kv_heads: usize,
) -> Vec<f64> {
    let dim = query.len();
    let at = |key: usize| (key * kv_heads + kv_head) * dim;
    let scores: Vec<f64> = (first..end)
        .map(|key| {
            let dot: f64 = query
                .iter()
                .zip(&k[at(key)..])
                .map(|(&q, &k)| q as f64 * k as f64)
                .sum();
            dot / (dim as f64).sqrt()
        })
        .collect();
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - best).exp()).collect();
    let all: f64 = weights.iter().sum();
    (0..dim)
        .map(|i| {
            let sum: f64 = (first..end)
                .zip(&weights)
                .map(|(key, weight)| weight * v[at(key) + i] as f64)
                .sum();
            sum / all
        })
        .collect()
}

fn bits(values: &[f32]) -> Vec<u16> {
    values
        .iter()
        .map(|&x| half::bf16::from_f32(x).to_bits())
        .collect()
}

fn case(
    sequences: &[(usize, usize)],
    [heads, kv_heads, head_dim]: [usize; 3],
    block_size: usize,
) -> Case {
    Case {
        sequences: sequences.to_vec(),
        heads,
        kv_heads,
        head_dim,
        block_size,
        window: 0,
    }
}

fn seeds(count: usize) -> Vec<u64> {
    (0..count as u64).map(|i| 1000 + 10 * i).collect()
}

#[test]
fn paged_decode_matches_cpu() {
    // One key; blocks exactly full and one more; splits exactly full and one more; several splits.
    let lens = [1, 15, 16, 17, 128, 129, 300];
    let sequences: Vec<(usize, usize)> = lens.map(|len| (1, len)).to_vec();
    case(&sequences, [4, 1, 128], 16).attend(&seeds(lens.len()));
    for (group, dim) in [
        (1, 64),
        (2, 64),
        (4, 64),
        (8, 64),
        (1, 32),
        (2, 32),
        (8, 32),
        (2, 128),
    ] {
        case(&[(1, 37), (1, 130)], [2 * group, 2, dim], 1).attend(&seeds(2));
    }
    case(&[(1, 70)], [1, 1, 128], 32).attend(&seeds(1));
    case(&[(1, 70)], [8, 1, 128], 32).attend(&seeds(1));
    case(&[(1, 70)], [4, 1, 32], 32).attend(&seeds(1));
}

#[test]
fn a_long_context_has_longer_splits_and_no_more_of_them() {
    // 32 splits of 128 are 4,096 keys: one more, and each has 256.
    case(&[(1, 4096), (1, 4097)], [1, 1, 32], 32).attend(&seeds(2));
}

#[test]
fn paged_prefill_matches_cpu() {
    // Two rows; tiles of rows and keys exactly full and one more; a chunk in the middle of a prompt.
    let sequences = [(2, 2), (64, 64), (65, 65), (5, 70), (3, 131), (30, 128)];
    case(&sequences, [2, 1, 64], 16).attend(&seeds(6));
    case(&[(40, 75)], [2, 2, 128], 32).attend(&seeds(1));
    case(&[(19, 19), (7, 90)], [8, 1, 32], 1).attend(&seeds(2));
}

#[test]
fn windows_hide_the_same_keys_from_both() {
    for window in [1, 16, 63, 100] {
        let mut case = case(&[(1, 300), (70, 200), (1, 40), (20, 20)], [4, 2, 32], 16);
        case.window = window;
        case.attend(&seeds(4));
    }
}

#[test]
fn a_sequence_gets_the_same_bits_alone_and_among_others_and_fillers_get_nothing() {
    let shape = [4, 2, 64];
    let (mixed, marks) = (
        [(1, 200), (33, 80), (1, 0), (1, 5), (70, 70), (1, 0)],
        seeds(6),
    );
    let together = case(&mixed, shape, 16).attend(&marks);
    let mut token = 0;
    for (sequence, mark) in mixed.into_iter().zip(marks) {
        if sequence.1 > 0 {
            let alone = case(&[sequence], shape, 16).attend(&[mark]);
            assert_eq!(alone, together[token..token + sequence.0]);
        }
        token += sequence.0;
    }
}

#[test]
fn rows_of_a_prompt_get_the_same_bits_in_chunks() {
    // The last 20 rows of 90: as a chunk of their own, and as the end of one of 77.
    let long = case(&[(77, 90)], [2, 1, 64], 16).attend(&[5]);
    let short = case(&[(20, 90)], [2, 1, 64], 16).attend(&[5]);
    assert_eq!(short, long[57..]);
}
