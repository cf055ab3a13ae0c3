use candle_core::Tensor;

use super::*;
use crate::ops::testing::{floats, indices, poisoned, tensor, values};

/// One sequence's queries, keys and values for every position, before it is paged.
struct Sequence {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    len: usize,
}

#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    block: usize,
}

const SHAPE: Shape = Shape {
    heads: 6,
    kv_heads: 2,
    dim: 24,
    block: 4,
};

impl Sequence {
    fn new(seed: u64, len: usize, shape: Shape) -> Self {
        let Shape {
            heads,
            kv_heads,
            dim,
            ..
        } = shape;
        let wide = |seed, count| floats(seed, count).into_iter().map(|x| 3.0 * x).collect();
        Self {
            q: wide(seed, len * heads * dim),
            k: wide(seed + 1000, len * kv_heads * dim),
            v: floats(seed + 2000, len * kv_heads * dim),
            len,
        }
    }

    /// Row by row in f64, softmax over all visible scores at once.
    fn slow(&self, shape: Shape, window: Option<usize>) -> Vec<f64> {
        let Shape {
            heads,
            kv_heads,
            dim,
            ..
        } = shape;
        let mut out = Vec::new();
        for position in 0..self.len {
            for head in 0..heads {
                let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
                let kv = |at: usize| (at * kv_heads + head * kv_heads / heads) * dim;
                let q = &self.q[(position * heads + head) * dim..][..dim];
                let weight = |at: usize| -> f64 {
                    let dot: f64 = (0..dim)
                        .map(|d| q[d] as f64 * self.k[kv(at) + d] as f64)
                        .sum();
                    (dot / (dim as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = (first..=position).map(weight).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..dim {
                    let sum: f64 = (first..=position)
                        .zip(&weights)
                        .map(|(at, w)| w * self.v[kv(at) + d] as f64)
                        .sum();
                    out.push(sum / total);
                }
            }
        }
        out
    }
}

/// Runs the last `rows` positions of each sequence in one call. Blocks lie in reverse with gaps; whatever no sequence
/// owns is NaN.
fn paged(sequences: &[(&Sequence, usize)], shape: Shape, window: Option<usize>) -> Vec<Vec<f32>> {
    let Shape {
        heads,
        kv_heads,
        dim,
        block,
    } = shape;
    let blocks = |len: usize| len.div_ceil(block);
    let max_blocks = sequences
        .iter()
        .map(|(sequence, _)| blocks(sequence.len))
        .max()
        .unwrap();
    let num_blocks = 2 * sequences
        .iter()
        .map(|(sequence, _)| blocks(sequence.len))
        .sum::<usize>()
        + 1;
    let mut next = num_blocks as u32 - 1;
    let mut caches = [
        vec![f32::NAN; num_blocks * block * kv_heads * dim],
        Vec::new(),
    ];
    caches[1] = caches[0].clone();
    let (mut tables, mut starts, mut lens, mut q) =
        (Vec::new(), vec![0u32], Vec::new(), Vec::new());
    for (sequence, rows) in sequences {
        let table: Vec<u32> = (0..blocks(sequence.len) as u32)
            .map(|i| next - 2 * i)
            .collect();
        next -= 2 * table.len() as u32;
        for at in 0..sequence.len {
            let slot = table[at / block] as usize * block + at % block;
            let width = kv_heads * dim;
            caches[0][slot * width..][..width].copy_from_slice(&sequence.k[at * width..][..width]);
            caches[1][slot * width..][..width].copy_from_slice(&sequence.v[at * width..][..width]);
        }
        tables.extend(
            table
                .iter()
                .copied()
                .chain(std::iter::repeat(u32::MAX))
                .take(max_blocks),
        );
        starts.push(starts.last().unwrap() + *rows as u32);
        lens.push(sequence.len as u32);
        q.extend_from_slice(&sequence.q[(sequence.len - rows) * heads * dim..]);
    }
    let tokens = *starts.last().unwrap() as usize;
    let cache_shape = [num_blocks, block, kv_heads, dim];
    let (k, v) = (
        tensor(&caches[0], &cache_shape),
        tensor(&caches[1], &cache_shape),
    );
    let pages = Pages {
        block_tables: &indices(&tables)
            .reshape((sequences.len(), max_blocks))
            .unwrap(),
        cu_seqlens_q: &indices(&starts),
        context_lens: &indices(&lens),
    };
    let out = poisoned(&[tokens, heads, dim]);
    paged_attention(
        &tensor(&q, &[tokens, heads, dim]),
        &k,
        &v,
        pages,
        window,
        &out,
    )
    .unwrap();
    let out = values(&out);
    let rows =
        |pair: &[u32]| out[pair[0] as usize * heads * dim..pair[1] as usize * heads * dim].to_vec();
    starts.windows(2).map(rows).collect()
}

#[test]
fn rows_agree_with_a_slow_twin_at_page_and_chunk_boundaries() {
    let shapes = [
        SHAPE,
        Shape {
            heads: 4,
            kv_heads: 4,
            dim: 16,
            block: 3,
        },
        Shape {
            heads: 10,
            kv_heads: 2,
            ..SHAPE
        },
    ];
    for shape in shapes {
        for len in [1, 3, 4, 5, 63, 64, 65, 130] {
            for window in [None, Some(1), Some(7), Some(70)] {
                let sequence = Sequence::new(len as u64, len, shape);
                let ours = paged(&[(&sequence, len)], shape, window).remove(0);
                // A score of up to 27 √dim / 3 is off by as many roundings; weights and sum add √len.
                let tolerance =
                    f32::EPSILON as f64 * (9.0 * (shape.dim as f64).sqrt() + (len as f64).sqrt());
                for (ours, exact) in ours.into_iter().zip(sequence.slow(shape, window)) {
                    assert!(
                        (ours as f64 - exact).abs() <= tolerance,
                        "{len} {window:?}: {ours} {exact}"
                    );
                }
            }
        }
    }
}

#[test]
fn prompts_chunks_and_single_tokens_share_a_step_without_touching_each_other() {
    for window in [None, Some(9)] {
        let sequences: Vec<Sequence> = [70, 5, 129, 1, 33]
            .iter()
            .map(|&len| Sequence::new(len as u64, len, SHAPE))
            .collect();
        let rows = [1, 5, 17, 1, 33];
        let mix: Vec<(&Sequence, usize)> = sequences.iter().zip(rows).collect();
        let mixed = paged(&mix, SHAPE, window);
        for ((sequence, rows), mixed) in mix.into_iter().zip(mixed) {
            let whole = paged(&[(sequence, sequence.len)], SHAPE, window).remove(0);
            assert_eq!(
                mixed,
                whole[whole.len() - mixed.len()..],
                "{rows} of {}",
                sequence.len
            );
        }
    }
}

#[test]
fn the_block_size_does_not_change_a_bit() {
    let sequence = Sequence::new(1, 100, SHAPE);
    let expected = paged(&[(&sequence, 100)], SHAPE, None);
    for block in [1, 7, 16, 64, 128] {
        assert_eq!(
            paged(&[(&sequence, 100)], Shape { block, ..SHAPE }, None),
            expected,
            "blocks of {block}"
        );
    }
}

#[test]
fn many_rows_on_many_threads_equal_each_row_alone() {
    let shape = Shape {
        heads: 4,
        kv_heads: 2,
        dim: 64,
        block: 16,
    };
    let sequence = Sequence::new(2, 200, shape);
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    let all = threads.install(|| paged(&[(&sequence, 200)], shape, None).remove(0));
    for len in [1, 64, 65, 200] {
        let head = Sequence {
            q: sequence.q[..len * 256].to_vec(),
            k: sequence.k.clone(),
            v: sequence.v.clone(),
            len,
        };
        assert_eq!(
            paged(&[(&head, 1)], shape, None)[0],
            all[(len - 1) * 256..len * 256],
            "row {len}"
        );
    }
}

#[test]
fn scores_far_apart_neither_overflow_nor_vanish() {
    let shape = Shape {
        heads: 1,
        kv_heads: 1,
        dim: 2,
        block: 4,
    };
    let mut sequence = Sequence::new(3, 70, shape);
    sequence.q.fill(1e4);
    sequence.k.fill(-1e4);
    sequence.k[66 * 2..67 * 2].fill(1e4);
    let out = paged(&[(&sequence, 1)], shape, None).remove(0);
    assert_eq!(
        out,
        sequence.v[66 * 2..67 * 2],
        "one key has all the weight"
    );
}

#[test]
fn pages_that_contradict_each_other_or_the_cache_are_refused() {
    let run = |tables: &[u32], starts: &[u32], lens: &[u32]| {
        let (q, cache) = (
            tensor(&floats(1, 16), &[2, 2, 4]),
            tensor(&floats(2, 3 * 2 * 4), &[3, 2, 1, 4]),
        );
        let tables = indices(tables)
            .reshape((lens.len(), tables.len() / lens.len()))
            .unwrap();
        let (cu_seqlens_q, context_lens) = (&indices(starts), &indices(lens));
        let pages = Pages {
            block_tables: &tables,
            cu_seqlens_q,
            context_lens,
        };
        let out = poisoned(&[2, 2, 4]);
        let v: Tensor = cache.copy().unwrap();
        let error = paged_attention(&q, &cache, &v, pages, None, &out).unwrap_err();
        assert!(
            values(&out).iter().all(|x| x.is_nan()),
            "nothing is written"
        );
        error.to_string()
    };
    assert_eq!(
        run(&[0, 3], &[0, 2], &[3]),
        "paged_attention: `block_tables` holds 3, which is not below 3"
    );
    assert!(
        run(&[0, 1], &[0, 2], &[1]).contains("`context_lens` is 1, expected 2 to 4 for sequence 0")
    );
    assert!(run(&[0, 1], &[0, 2], &[5]).contains("`context_lens` is 5"));
    assert!(
        run(&[0, 1], &[0, 1], &[2])
            .contains("`cu_seqlens_q` is [0, 1], expected ascending from 0 to 2")
    );
    assert!(run(&[0, 1], &[0, 2, 2], &[2, 2]).contains("`cu_seqlens_q` is [0, 2, 2]"));
}
