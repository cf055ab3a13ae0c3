//! Paged attention: one row per sequence on scalar lanes, several on tensor cores.

mod prompts;

use mixgate_emulate::Architecture;

use super::{Buffer, at, bits, narrow_floats, narrowed, run_as, widened};
use crate::ops::paged_attention::launch::{Prefill, launches_with};
use crate::ops::test_device::TestDevice;
use crate::ops::{AttentionSizes, Device, PagedAttention, attention_scratch_bytes};

/// Sequences as (rows of this step, keys with them). What no row sees nobody has written: slots past a sequence's end,
/// keys before every window. Table entries of blocks without a key that is seen point outside of the cache; tables lie in
/// the order of the sequences from the last to the first, and there is nothing behind the first.
#[derive(Clone)]
pub(super) struct Case {
    sequences: Vec<(usize, usize)>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    block_size: usize,
    window: usize,
    /// Queries are this many times as long: the larger, the fewer keys have the weight.
    sharpness: f32,
    /// The grids are for this many times the tokens and the context.
    room: usize,
    architecture: Architecture,
}

impl Case {
    /// Output rows, `[num_tokens][heads * head_dim]`, each compared with what f64 makes of the same inputs, and the same bits
    /// by warps and by warpgroups. A sequence's numbers follow from its seed, whoever else is there.
    pub(super) fn attend(&self, seeds: &[u64]) -> Vec<Vec<u16>> {
        let inputs: Vec<Inputs> = (self.sequences.iter().zip(seeds))
            .map(|(&sequence, &seed)| self.inputs(sequence, seed))
            .collect();
        self.attend_to(&inputs)
    }

    fn inputs(&self, (rows, keys): (usize, usize), seed: u64) -> Inputs {
        let (width, row) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        // A query follows from its position, so that chunks of a prompt agree.
        let drawn = narrow_floats(seed + 2, keys.max(rows) * width);
        let queries = &drawn[(keys.max(rows) - rows) * width..];
        Inputs {
            q: queries.iter().map(|x| x * self.sharpness).collect(),
            k: narrow_floats(seed, keys * row),
            v: narrow_floats(seed + 1, keys * row),
        }
    }

    /// The first key that a row at this position sees.
    fn first_seen(&self, position: usize) -> usize {
        match self.window {
            0 => 0,
            window => (position + 1).saturating_sub(window),
        }
    }

    fn attend_to(&self, inputs: &[Inputs]) -> Vec<Vec<u16>> {
        let (block_size, num_seqs) = (self.block_size, self.sequences.len());
        let (width, row) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let longest = self.sequences.iter().map(|&(_, keys)| keys).max().unwrap();
        let max_blocks = longest.div_ceil(block_size) + 1;
        let cache = || Buffer::<u16>::poisoned(num_seqs * max_blocks * block_size * row);
        let (k_cache, v_cache) = (cache(), cache());
        let blocks_of = |&(_, keys): &(usize, usize)| keys.div_ceil(block_size);
        let table_starts: Vec<usize> = (0..num_seqs)
            .map(|index| self.sequences[index + 1..].iter().map(blocks_of).sum())
            .collect();
        let mut tables = vec![u32::MAX; self.sequences.iter().map(blocks_of).sum()];
        let (mut q, mut starts) = (Vec::new(), vec![0u32]);
        for (index, (&(rows, keys), given)) in self.sequences.iter().zip(inputs).enumerate() {
            // Blocks lie scattered: the last of the table first, sequences between each other.
            let place = |block: usize| (max_blocks - 1 - block) * num_seqs + index;
            for key in self.first_seen(keys.saturating_sub(rows))..keys {
                let (block, offset) = (key / block_size, key % block_size);
                tables[table_starts[index] + block] = place(block) as u32;
                let to = (place(block) * block_size + offset) * row;
                k_cache.write(to, &bits(&given.k[key * row..][..row]));
                v_cache.write(to, &bits(&given.v[key * row..][..row]));
            }
            q.extend_from_slice(&given.q);
            starts.push(starts[index] + rows as u32);
        }
        let lens: Vec<u32> = (self.sequences.iter())
            .map(|&(_, keys)| keys as u32)
            .collect();
        let table_starts: Vec<u32> = table_starts.iter().map(|&start| start as u32).collect();
        let (q, tables) = (narrowed(&q), Buffer::new(&tables));
        let table_starts = Buffer::new(&table_starts);
        let (cu_seqlens_q, lens) = (Buffer::new(&starts), Buffer::new(&lens));
        let num_tokens = starts[num_seqs] as usize;
        let (heads, head_dim) = (self.heads as u32, self.head_dim as u32);
        let scratch = Buffer::<u8>::poisoned(attention_scratch_bytes(heads, head_dim, num_seqs));
        let most_rows = self.sequences.iter().map(|&(rows, _)| rows).max().unwrap();
        let sizes = AttentionSizes {
            num_tokens: (self.room * num_tokens) as u32,
            num_seqs: num_seqs as u32,
            max_rows: most_rows as u32,
            max_context: (self.room * max_blocks * block_size) as u32,
            block_size: block_size as u32,
            window: self.window as u32,
            heads,
            kv_heads: self.kv_heads as u32,
            head_dim,
        };
        let said = |prefill| -> Vec<Vec<u16>> {
            let out = Buffer::<u16>::poisoned(num_tokens * width);
            let has_fillers = self.sequences.iter().any(|&(_, keys)| keys == 0);
            let untouched = has_fillers.then(|| out.raw_values());
            let tensors = PagedAttention {
                q: at(&q),
                k_cache: at(&k_cache),
                v_cache: at(&v_cache),
                block_tables: at(&tables),
                table_starts: at(&table_starts),
                cu_seqlens_q: at(&cu_seqlens_q),
                context_lens: at(&lens),
                scratch: at(&scratch),
                out: at(&out),
            };
            for launch in launches_with(prefill, tensors, sizes) {
                run_as(&launch, self.architecture);
            }
            let mut given = out.raw_values();
            let of_sequences = starts.windows(2).zip(&self.sequences);
            for (rows, _) in of_sequences.filter(|&(_, &(_, keys))| keys == 0) {
                let its = rows[0] as usize * width..rows[1] as usize * width;
                let untouched = &untouched.as_ref().unwrap()[its.clone()];
                assert_eq!(given[its.clone()], *untouched, "{rows:?} were written");
                given[its].fill(0);
            }
            given.chunks(width).map(<[u16]>::to_vec).collect()
        };
        let by = TestDevice::adding_as(self.architecture).multiplier();
        let mut all = Prefill::all(by, head_dim).map(|prefill| (prefill, said(prefill)));
        let (_, given) = all.next().unwrap();
        for (prefill, other) in all {
            for (row, (given, other)) in given.iter().zip(&other).enumerate() {
                assert_eq!(given, other, "row {row} by {prefill:?}");
            }
        }

        let mut token = 0;
        for (&(rows, keys), inputs) in self.sequences.iter().zip(inputs) {
            for i in 0..rows {
                if keys > 0 {
                    self.check(&widened(&given[token]), inputs, [i, rows, keys]);
                }
                token += 1;
            }
        }
        given
    }

    /// Compares row `i` of a sequence's `rows` with a softmax over all visible scores at once, in f64.
    fn check(&self, given: &[f32], inputs: &Inputs, [i, rows, keys]: [usize; 3]) {
        let (dim, group) = (self.head_dim, self.heads / self.kv_heads);
        let position = keys - rows + i;
        let seen = self.first_seen(position)..position + 1;
        for head in 0..self.heads {
            let query = &inputs.q[(i * self.heads + head) * dim..][..dim];
            let place = |key: usize| (key * self.kv_heads + head / group) * dim;
            // Of each score also the sum without signs, which bounds what f32 loses of it.
            let mut reach = 0f64;
            let scores: Vec<f64> = (seen.clone())
                .map(|key| {
                    let (mut dot, mut size) = (0.0, 0.0);
                    for (&q, &k) in query.iter().zip(&inputs.k[place(key)..]) {
                        let product = q as f64 * k as f64;
                        dot += product;
                        size += product.abs();
                    }
                    reach = reach.max(size / (dim as f64).sqrt());
                    dot / (dim as f64).sqrt()
                })
                .collect();
            let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - best).exp()).collect();
            let all: f64 = weights.iter().sum();
            for d in 0..dim {
                let (mut sum, mut size, mut squares) = (0.0, 0.0, 0.0);
                for (key, weight) in seen.clone().zip(&weights) {
                    let part = weight / all * inputs.v[place(key) + d] as f64;
                    sum += part;
                    size += part.abs();
                    squares += part * part;
                }
                let tolerance = tolerance(
                    [sum, size, squares],
                    [dim as f64, seen.len() as f64, reach],
                    rows > 1,
                );
                let given = given[head * dim + d] as f64;
                assert!(
                    (given - sum).abs() <= tolerance,
                    "row {i} of {rows}, {keys} keys, head {head}, element {d}: {given}, not {sum} to within {tolerance}"
                );
            }
        }
    }
}

/// What `[sum, sum of sizes, sum of squares]` of `keys` weighted values may be off by.
///
/// - The result is rounded to bf16: 2⁻⁸ of it.
/// - On tensor cores each weight is: 2⁻⁸ of each part, as it happens up or down. That spreads by 2⁻⁸ / √3 × √squares at
///   most; five times that is taken, and never more than all of them the same way.
/// - f32 loses √dim units in the last place of `reach` of a score, which is an exponent, so of each weight the same share;
///   √keys in either sum; 4 in a power of two, which is good to 2⁻²².
fn tolerance(
    [sum, size, squares]: [f64; 3],
    [dim, keys, reach]: [f64; 3],
    rounded_weights: bool,
) -> f64 {
    let (narrow, single) = (2f64.powi(-8), 2f64.powi(-23));
    let weights = (5.0 / 3f64.sqrt() * squares.sqrt()).min(size) * narrow;
    let sums = 2.0 * size * single * (dim.sqrt() * reach + keys.sqrt() + 4.0);
    sum.abs() * narrow + sums + if rounded_weights { weights } else { 0.0 }
}

/// One sequence's numbers: queries of this step, keys and values of all positions.
struct Inputs {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

pub(super) fn case(
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
        sharpness: 1.0,
        room: 1,
        architecture: Architecture::Hopper,
    }
}

pub(super) fn seeds(count: usize) -> Vec<u64> {
    (0..count as u64).map(|i| 1000 + 10 * i).collect()
}

#[test]
fn paged_decode_matches_cpu() {
    // One key; blocks exactly full and one more; splits exactly full and one more; several splits.
    let lens = [1, 15, 16, 17, 128, 129, 300];
    let sequences: Vec<(usize, usize)> = lens.map(|len| (1, len)).to_vec();
    case(&sequences, [4, 1, 128], 16).attend(&seeds(lens.len()));
    for dim in [32, 64, 128] {
        for group in [1, 2, 4, 6, 8] {
            case(&[(1, 37), (1, 130)], [2 * group, 2, dim], 1).attend(&seeds(2));
        }
    }
    case(&[(1, 70)], [2, 1, 64], 24).attend(&seeds(1));
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
    let architecture = Architecture::Ampere;
    let ampere = Case {
        architecture,
        ..case(&[(40, 75)], [2, 2, 128], 32)
    };
    ampere.attend(&seeds(1));
    case(&[(19, 19), (7, 90)], [8, 1, 32], 1).attend(&seeds(2));
    case(&[(9, 70)], [4, 1, 128], 24).attend(&seeds(1));
}

#[test]
fn more_sequences_than_lanes_find_their_tiles() {
    // The grid has room for 42 tiles, of which 22 are used: not for one of each of the 32 that have one row.
    let rows = |i: usize| if i < 64 { [0, 1, 1, 2][i % 4] } else { 3 };
    let sequences: Vec<(usize, usize)> = (0..70).map(|i| (rows(i), 4 + i % 3)).collect();
    case(&sequences, [1, 1, 32], 16).attend(&seeds(70));
}

#[test]
fn few_keys_with_all_the_weight_come_out_as_well() {
    let mut case = case(&[(1, 200), (33, 140)], [4, 2, 64], 16);
    for sharpness in [8.0, 64.0] {
        case.sharpness = sharpness;
        case.attend(&seeds(2));
    }
}

#[test]
fn scores_far_apart_neither_overflow_nor_vanish() {
    let case = case(&[(1, 300), (3, 150)], [1, 1, 32], 16);
    let inputs: Vec<Inputs> = (case.sequences.iter().zip([(5, 201), (6, 80)]))
        .map(|(&sequence, (seed, needle))| {
            let mut inputs = case.inputs(sequence, seed);
            inputs.q.fill(1024.0);
            inputs.k.fill(-1024.0);
            inputs.k[needle * 32..][..32].fill(1024.0);
            inputs
        })
        .collect();
    let out = case.attend_to(&inputs);
    assert_eq!(out[0], bits(&inputs[0].v[201 * 32..][..32]));
    for row in &out[1..] {
        assert_eq!(*row, bits(&inputs[1].v[80 * 32..][..32]));
    }
}

#[test]
fn windows_hide_the_same_keys_from_both_and_nobody_reads_them() {
    let sequences = [(1, 300), (70, 200), (1, 40), (20, 20), (2, 130)];
    // Of 81 keys, row 15 of the second sequence's tile does not see key 64, the first of a tile that row 0 sees whole.
    for window in [1, 16, 63, 80, 81, 100, 128, u32::MAX as usize] {
        let mut case = case(&sequences, [4, 2, 32], 16);
        case.window = window;
        case.attend(&seeds(5));
    }
}

#[test]
fn a_sequence_gets_the_same_bits_alone_among_others_and_with_room_and_fillers_get_nothing() {
    let mixed = [
        (1, 200),
        (33, 80),
        (1, 0),
        (0, 0),
        (1, 5),
        (70, 70),
        (66, 0),
        (1, 0),
        (3, 129),
    ];
    for window in [0, 90] {
        let mut all = case(&mixed, [4, 2, 64], 16);
        all.window = window;
        let marks = seeds(mixed.len());
        let together = all.attend(&marks);
        let mut token = 0;
        for (&sequence, mark) in mixed.iter().zip(marks) {
            if sequence.1 > 0 {
                let mut alone = case(&[sequence], [4, 2, 64], 16);
                alone.window = window;
                assert_eq!(alone.attend(&[mark]), together[token..token + sequence.0]);
                alone.room = 40;
                assert_eq!(alone.attend(&[mark]), together[token..token + sequence.0]);
            }
            token += sequence.0;
        }
    }
}

#[test]
fn rows_of_a_prompt_get_the_same_bits_in_chunks() {
    // The last 20 rows of 190: as a chunk of their own, and as the end of one of 77.
    for window in [0, 50] {
        let [long, short] = [77, 20].map(|rows| {
            let mut case = case(&[(rows, 190)], [2, 1, 64], 16);
            case.window = window;
            case.attend(&[5])
        });
        assert_eq!(short, long[57..]);
    }
}
