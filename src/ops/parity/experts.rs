//! Products with bf16 weights: both sides of the experts, and plain ones.

use mixgate_emulate::Architecture::{self, Ampere, Hopper};

use super::{Buffer, activated, at, exact_sum, narrow_floats, narrowed, run_as, widened};
use crate::ops::experts::grouped_linear_launch_with;
use crate::ops::linear::linear_launch_with;
use crate::ops::test_device::TestDevice;
use crate::ops::tile::Tile;
use crate::ops::{self, Device, GroupedLinear, GroupedSizes, Multiplier, Side};

/// Multiplies on one side, on the emulated device and in f64 of the same inputs.
pub(super) fn check_product(
    tile: Tile,
    side: Side,
    experts_of: &[u32],
    top_k: usize,
    sizes: [usize; 3],
    architecture: Architecture,
) {
    let [num_experts, n, k] = sizes;
    let pairs = experts_of.len();
    let mut order: Vec<u32> = (0..pairs as u32).collect();
    order.sort_by_key(|&pair| experts_of[pair as usize]);
    let offsets: Vec<u32> = (0..=num_experts as u32)
        .map(|end| experts_of.iter().filter(|&&expert| expert < end).count() as u32)
        .collect();
    let rows = if side == Side::In {
        pairs / top_k
    } else {
        pairs
    };
    let (x, w) = (
        narrow_floats(17, rows * k),
        narrow_floats(18, num_experts * n * k),
    );
    let (x_at, w_at) = (narrowed(&x), narrowed(&w));
    let (order_at, offsets_at) = (Buffer::new(&order), Buffer::new(&offsets));
    let (sorted, by_pair) = (
        Buffer::<u16>::poisoned(pairs * n / 2),
        Buffer::<f32>::poisoned(pairs * n),
    );
    let tensors = GroupedLinear {
        x: at(&x_at),
        w: at(&w_at),
        order: at(&order_at),
        offsets: at(&offsets_at),
        y: if side == Side::In {
            at(&sorted)
        } else {
            at(&by_pair)
        },
    };
    let sizes = GroupedSizes {
        num_pairs: pairs as u32,
        n: n as u32,
        k: k as u32,
        num_experts: num_experts as u32,
        top_k: top_k as u32,
    };
    let launch = grouped_linear_launch_with(tile, tensors, side, sizes);
    run_as(&launch, architecture);

    let sum = |x_row: usize, expert: usize, column: usize| {
        let w_row = (expert * n + column) * k;
        exact_sum((0..k).map(|i| x[x_row * k + i] as f64 * w[w_row + i] as f64))
    };
    let near = |given: f32, exact: f64, tolerance: f64, place: [usize; 2]| {
        let error = (given as f64 - exact).abs();
        assert!(error <= tolerance, "{place:?}: {given}, not {exact}");
    };
    let expert_of = |pair: u32| experts_of[pair as usize] as usize;
    match side {
        Side::In => {
            let given = widened(&sorted.values());
            for (row, &pair) in order.iter().enumerate() {
                let its = |column| sum(pair as usize / top_k, expert_of(pair), column);
                for column in 0..n / 2 {
                    let (exact, off) = activated(its(2 * column), its(2 * column + 1), k);
                    near(given[row * n / 2 + column], exact, off, [row, column]);
                }
            }
        }
        Side::Out => {
            let given = by_pair.values();
            for (row, &pair) in order.iter().enumerate() {
                for column in 0..n {
                    let (exact, size) = sum(row, expert_of(pair), column);
                    // f32 sums in any order.
                    let tolerance = f32::EPSILON as f64 * (k as f64).sqrt() * size;
                    let row = pair as usize;
                    near(given[row * n + column], exact, tolerance, [row, column]);
                }
            }
        }
    }
}

#[test]
fn grouped_linear_matches_cpu() {
    let one = [6u32, 2];
    let few = [3u32, 1, 3, 5, 0, 3, 7, 3];
    let crowd = [2u32; 38];
    let spread: Vec<u32> = (0..150).map(|i| i * i % 7 % 3).collect();
    for side in [Side::In, Side::Out] {
        // A single token, in whole tiles; then tails of rows, columns and k, with experts that have nobody.
        check_product(Tile::Rows16, side, &one, 2, [8, 128, 64], Hopper);
        for architecture in [Hopper, Ampere] {
            check_product(Tile::Rows16, side, &few, 2, [8, 136, 200], architecture);
        }
        // Everybody on one expert: three blocks of rows. More of k than there are stages.
        check_product(Tile::Rows16, side, &crowd, 2, [4, 24, 8], Hopper);
        check_product(Tile::Rows64, side, &crowd, 2, [4, 40, 456], Hopper);
        check_product(Tile::Rows64, side, &crowd, 2, [4, 40, 456], Ampere);
        check_product(Tile::Rows64, side, &spread, 3, [5, 72, 72], Hopper);
        check_product(Tile::Rows128, side, &spread, 3, [3, 136, 80], Hopper);
        if tiles().any(|tile| tile == Tile::Warpgroups) {
            check_product(Tile::Warpgroups, side, &spread, 3, [3, 264, 456], Hopper);
            check_product(Tile::Warpgroups, side, &few, 2, [8, 24, 8], Hopper);
        }
    }
}

/// Those of the device that the tests run on.
pub(super) fn tiles() -> impl Iterator<Item = Tile> {
    Tile::all(TestDevice::default().multiplier())
}

#[test]
fn linear_matches_cpu() {
    check_linear(&[
        (Tile::Rows16, 1, 128, 64, Hopper),
        (Tile::Rows16, 17, 136, 200, Hopper),
        (Tile::Rows16, 17, 136, 200, Ampere),
        (Tile::Rows64, 65, 24, 328, Hopper),
        (Tile::Rows128, 130, 264, 72, Hopper),
        (Tile::Rows128, 130, 264, 72, Ampere),
        (Tile::Warpgroups, 130, 264, 328, Hopper),
    ]);
}

/// Tile, rows, columns, terms of a sum, and what multiplies in the emulation.
pub(super) fn check_linear(cases: &[(Tile, usize, usize, usize, Architecture)]) {
    for &(tile, m, n, k, architecture) in cases {
        if tiles().all(|its| its != tile) {
            continue;
        }
        let (x, w) = (narrow_floats(19, m * k), narrow_floats(20, n * k));
        let (x_at, w_at) = (narrowed(&x), narrowed(&w));
        let y = Buffer::<f32>::poisoned(m * n);
        let tensors = [at(&x_at), at(&w_at), at(&y)];
        let sizes = [m as u32, n as u32, k as u32];
        run_as(&linear_launch_with(tile, tensors, sizes), architecture);
        let own = y.values();
        // What a device chooses by itself: the same kernel, or the library, where there is one. That device has a stream of its
        // own: all that it writes is asked of it. What it reads is there since `own` is.
        let device = || TestDevice::with_library().unwrap_or_default();
        let chosen = Buffer::<f32>::poisoned_on(device(), m * n);
        let tensors = [at(&x_at), at(&w_at), at(&chosen)];
        device().multiply(tensors, sizes).unwrap();
        let all = own.into_iter().chain(chosen.values());
        for (i, given) in all.enumerate() {
            let i = i % (m * n);
            let terms = (0..k).map(|j| x[i / n * k + j] as f64 * w[i % n * k + j] as f64);
            let (exact, size) = terms.fold((0.0, 0.0), |(sum, size), term| {
                (sum + term, size + term.abs())
            });
            let tolerance = f32::EPSILON as f64 * (k as f64).sqrt() * size;
            assert!(
                (given as f64 - exact).abs() <= tolerance,
                "{i}: {given}, not {exact}"
            );
        }
    }
}

#[test]
fn a_grouped_product_of_real_experts_stands_for_all_sizes_of_step() {
    let sizes = |num_pairs| GroupedSizes {
        num_pairs,
        n: 28_672,
        k: 4096,
        num_experts: 8,
        top_k: 2,
    };
    let nowhere = GroupedLinear {
        x: ops::Address(0),
        w: ops::Address(0),
        order: ops::Address(0),
        offsets: ops::Address(0),
        y: ops::Address(0),
    };
    // Pairs of the step, the kernel for them and its rows, blocks of rows.
    use Multiplier::{Warpgroups, Warps};
    for (by, pairs, kernel, rows, [column_blocks, row_blocks]) in [
        (Warps, 2u32, "experts_in_bf16_m16", 16, [224, 2]),
        (Warps, 96, "experts_in_bf16_m16", 16, [224, 14]),
        (Warpgroups, 256, "experts_in_bf16_m64", 64, [224, 12]),
        (Warps, 8192, "experts_in_bf16_m128", 128, [224, 72]),
        (
            Warpgroups,
            8192,
            "experts_in_bf16_warpgroups",
            128,
            [112, 72],
        ),
    ] {
        let launch = ops::grouped_linear_launch(by, nowhere, Side::In, sizes(pairs));
        let grid = [column_blocks, row_blocks, 1];
        assert_eq!((launch.kernel, launch.grid), (kernel, grid));
        // The worst distribution: one pair more than whole blocks on as many experts as can be.
        let begun = pairs.min(8);
        assert!(row_blocks >= begun + (pairs - begun) / rows);
        // What a block of an H100 can have, and of an A100.
        let most = if by == Warpgroups { 227 } else { 163 };
        assert!(launch.shared_bytes <= most << 10);
    }
}
