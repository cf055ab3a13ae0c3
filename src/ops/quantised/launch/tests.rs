use super::*;
use crate::ops::Multiplier::{Warpgroups, Warps};

#[test]
fn launches_have_room_for_every_distribution_and_fit_their_gpu() {
    let nowhere = GroupedLinear {
        x: Address(0),
        w: Address(0),
        order: Address(0),
        offsets: Address(0),
        y: Address(0),
    };
    let format = PackedFormat::W4a16;
    // Pairs of the step, width, the kernel for them, blocks of rows.
    for (by, pairs, n, kernel, rows, grid) in [
        (
            Warps,
            2u32,
            4096,
            "experts_out_w4a16_m16n32",
            16,
            [128, 2, 1],
        ),
        (Warps, 2, 28_672, "experts_out_w4a16_m16", 16, [224, 2, 1]),
        (Warps, 96, 4096, "experts_out_w4a16_m16", 16, [32, 14, 1]),
        (
            Warpgroups,
            256,
            4096,
            "experts_out_w4a16_m64",
            64,
            [32, 12, 1],
        ),
        (
            Warps,
            8192,
            4096,
            "experts_out_w4a16_m128",
            128,
            [32, 72, 1],
        ),
        (
            Warpgroups,
            8192,
            4096,
            "experts_out_w4a16_warpgroups",
            128,
            [32, 72, 1],
        ),
    ] {
        let sizes = GroupedSizes {
            num_pairs: pairs,
            n,
            k: 14_336,
            num_experts: 8,
            top_k: 2,
        };
        let launch = quantised_experts_launch(by, format, nowhere, Side::Out, sizes);
        assert_eq!((launch.kernel, launch.grid), (kernel, grid));
        // The worst distribution: one pair more than whole blocks on as many experts as can be.
        let begun = pairs.min(8);
        assert!(grid[1] >= begun + (pairs - begun) / rows);
    }
    let linear = |m| quantised_linear_launch(Warps, format, [Address(0); 3], [m, 6144, 4096]);
    assert_eq!(linear(1).grid, [192, 1, 1]);
    assert_eq!(linear(130).grid, [48, 2, 1]);
    for format in PackedFormat::ALL {
        for m in [1, 64, 4096] {
            for (by, most) in [(Warps, 163), (Warpgroups, 227)] {
                let at = [Address(0); 3];
                let launch = quantised_linear_launch(by, format, at, [m, 32_000, 4096]);
                assert!(launch.shared_bytes <= most << 10, "{}", launch.shared_bytes);
            }
        }
    }
}
