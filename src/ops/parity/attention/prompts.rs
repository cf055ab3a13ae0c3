//! Steps long enough for warpgroups: [`Case::attend`] holds them to f64, and to the bits of warps.

use super::*;
use crate::ops::testing::floats;
use crate::ops::{Address, Multiplier, paged_attention_launches};

#[test]
fn tiles_of_every_length_and_place_match_cpu() {
    // One warpgroup full, one row more, both full, one more; prefixes that end anywhere in a tile of keys; single rows beside.
    let sequences = [(64, 64), (1, 90), (65, 130), (128, 191), (129, 129)];
    case(&sequences, [2, 1, 64], 16).attend(&seeds(5));
    case(&[(130, 197), (1, 3), (66, 66)], [1, 1, 128], 16).attend(&seeds(3));
    // More tiles of keys than twice what shared memory holds.
    case(&[(130, 770)], [1, 1, 64], 16).attend(&seeds(1));
}

#[test]
fn heads_of_every_group_match_cpu() {
    for (group, dim) in [(8, 64), (6, 64), (4, 128), (1, 128)] {
        case(&[(70, 101)], [2 * group, 2, dim], 16).attend(&seeds(1));
    }
}

#[test]
fn windows_leave_each_warpgroup_its_own_tiles() {
    // Of 200 rows' tiles, some are seen by the first warpgroup alone, some by the second, and 1 and 40 leave none in common.
    for (window, dim) in [(1, 64), (40, 128), (64, 64), (65, 64), (150, 64)] {
        let mut case = case(&[(200, 330), (1, 150), (67, 67)], [1, 1, dim], 32);
        case.window = window;
        case.attend(&seeds(3));
    }
}

#[test]
fn pages_of_every_size_match_cpu() {
    for block_size in [1, 7, 16, 24, 64, 100] {
        case(&[(80, 170), (2, 70)], [1, 1, 64], block_size).attend(&seeds(2));
    }
}

#[test]
fn random_steps_match_cpu_and_have_the_bits_of_warps() {
    let mut random = floats(11, 200).into_iter();
    let mut up_to = |most: usize| ((random.next().unwrap() + 1.0) / 2.0 * most as f32) as usize;
    for turn in 0..6 {
        let sequences: Vec<(usize, usize)> = (0..1 + up_to(4))
            .map(|_| match up_to(3) {
                0 => (1, 1 + up_to(200)),
                _ => {
                    let rows = 2 + up_to(180);
                    (rows, rows + up_to(2) * up_to(150))
                }
            })
            .collect();
        let mut case = case(&sequences, [2, 1, [64, 128][turn % 2]], 1 + up_to(40));
        case.window = up_to(2) * (1 + up_to(200));
        case.sharpness = [1.0, 16.0][up_to(2)];
        case.attend(&seeds(sequences.len()));
    }
}

#[test]
fn rows_with_large_scores_get_the_same_bits_in_chunks() {
    for (dim, window) in [(64, 0), (64, 90), (128, 0)] {
        let said = |rows, keys| {
            let mut case = case(&[(rows, keys)], [2, 1, dim], 16);
            (case.window, case.sharpness) = (window, 64.0);
            case.attend(&[5])
        };
        let whole = said(210, 210);
        for (rows, end) in [(20, 210), (77, 210), (70, 133), (33, 96)] {
            assert_eq!(said(rows, end), whole[end - rows..end], "{rows} to {end}");
        }
    }
}

/// Six keys share the weight, and what they say lies as near as may be to half way between two numbers of bf16: multiplied once
/// more by anything but one, sum and weight are rounded apart, and some quotient falls to the other side.
#[test]
fn a_tile_of_which_a_row_sees_nothing_leaves_it_as_it_was() {
    for dim in [64, 128] {
        // A score times its scale is no f32. A weight is two to the power of what it is off by.
        let (key, scale) = (2.9375, std::f32::consts::LOG2_E / (dim as f32).sqrt());
        let score = key * dim as f32;
        let weight = score.mul_add(scale, -(score * scale)).exp2();
        assert_ne!(weight, 1.0);
        // Three bf16 that sum up to a number of 24 digits.
        let cut = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
        let parts = |i: usize| {
            let half_way = 1.0 + (2 * (i % 16) + 1) as f32 / 256.0;
            let near = (6.0 * half_way * weight).to_bits() + i as u32 / 16 - 2;
            let sum = f32::from_bits(near);
            let (high, rest) = (cut(sum), sum - cut(sum));
            [high, cut(rest), rest - cut(rest), 0.0, 0.0, 0.0]
        };
        let said = |rows| {
            let case = case(&[(rows, 71)], [1, 1, dim], 16);
            let mut inputs = case.inputs(case.sequences[0], 5);
            inputs.q.fill(1.0);
            inputs.k.fill(-key);
            for needle in 0..6 {
                let its = (8 + needle) * dim;
                inputs.k[its..][..dim].fill(key);
                for i in 0..dim {
                    inputs.v[its + i] = parts(i)[needle];
                }
            }
            case.attend_to(&[inputs])
        };
        // Positions 40 to 63 do not see the tile of key 64, which 64 to 70 do.
        assert_eq!(said(31), said(71)[40..], "{dim}");
    }
}

#[test]
fn warpgroups_take_steps_of_more_than_half_a_tile_where_a_device_and_heads_allow() {
    let at = Address(256);
    let tensors = PagedAttention {
        q: at,
        k_cache: at,
        v_cache: at,
        block_tables: at,
        table_starts: at,
        cu_seqlens_q: at,
        context_lens: at,
        scratch: at,
        out: at,
    };
    let launched = |by, max_rows, head_dim| {
        let sizes = AttentionSizes {
            num_tokens: 300,
            num_seqs: 3,
            max_rows,
            max_context: 300,
            block_size: 16,
            window: 0,
            heads: 32,
            kv_heads: 8,
            head_dim,
        };
        let launch = paged_attention_launches(by, tensors, sizes).remove(0);
        (launch.kernel, launch.grid, launch.block[0])
    };
    let by_warps = |kernel| (kernel, [32, 4 + 3, 1], 128);
    let by_warpgroups = |kernel| (kernel, [32, 2 + 3, 1], 256);
    use Multiplier::{Warpgroups, Warps};
    for (by, max_rows, head_dim, expected) in [
        (Warpgroups, 64, 128, by_warps("paged_prefill_d128")),
        (
            Warpgroups,
            65,
            128,
            by_warpgroups("paged_prefill_d128_warpgroups"),
        ),
        (
            Warpgroups,
            65,
            64,
            by_warpgroups("paged_prefill_d64_warpgroups"),
        ),
        (Warpgroups, 65, 32, by_warps("paged_prefill_d32")),
        (Warps, 65, 128, by_warps("paged_prefill_d128")),
    ] {
        assert_eq!(launched(by, max_rows, head_dim), expected, "{by:?}");
    }
}
