//! What ends the experts' first product, bit by bit: of the sums that the second one's kernel leaves as they are.

use half::bf16;

use super::quantised::random_blocks;
use super::{Buffer, at, narrow_floats, narrowed, run};
use crate::ops::experts::grouped_linear_launch_with;
use crate::ops::quantised::launch::{Tile, quantised_experts_launch_with};
use crate::ops::test_device::TestDevice;
use crate::ops::tile::Tile as Bf16Tile;
use crate::ops::{
    Address, Device, GroupedLinear, GroupedSizes, Launch, Packed, PackedFormat, Side,
};

/// The bits of `silu(gate) · up` where gate and up are sums, and roundings as [`super::activated`] says; with the emulation's
/// exponential.
fn activated_bits(gate: f32, up: f32) -> u16 {
    let [gate, up] = [gate, up].map(|sum| bf16::from_f32(sum).to_f32());
    bf16::from_f32(up * (gate / (1.0 + (-gate).exp()))).to_bits()
}

#[test]
fn an_activation_has_the_bits_that_rounding_gate_and_up_would_give() {
    if !TestDevice::default().is_emulated() {
        return; // a GPU's exponential is another one
    }
    // Each token has one expert, so that both sides multiply the same rows.
    let experts_of = [
        3u32, 1, 3, 0, 1, 3, 3, 1, 3, 0, 3, 3, 1, 3, 3, 3, 3, 3, 3, 3,
    ];
    let (pairs, n, k) = (experts_of.len(), 72, 256);
    let mut order: Vec<u32> = (0..pairs as u32).collect();
    order.sort_by_key(|&pair| experts_of[pair as usize]);
    let offsets: Vec<u32> = (0..=4)
        .map(|end| experts_of.iter().filter(|&&expert| expert < end).count() as u32)
        .collect();
    let x = narrow_floats(36, pairs * k);
    let sorted_x: Vec<f32> = (order.iter())
        .flat_map(|&pair| x[pair as usize * k..][..k].to_vec())
        .collect();
    let (x, sorted_x) = (narrowed(&x), narrowed(&sorted_x));
    let (order_at, offsets_at) = (Buffer::new(&order), Buffer::new(&offsets));
    let sizes = GroupedSizes {
        num_pairs: pairs as u32,
        n: n as u32,
        k: k as u32,
        num_experts: 4,
        top_k: 1,
    };
    let check = |w: Address, launch: &dyn Fn(GroupedLinear, Side) -> Launch, place: &str| {
        let (activations, sums) = (
            Buffer::<u16>::poisoned(pairs * n / 2),
            Buffer::<f32>::poisoned(pairs * n),
        );
        for (side, x, y) in [
            (Side::In, at(&x), at(&activations)),
            (Side::Out, at(&sorted_x), at(&sums)),
        ] {
            let (order, offsets) = (at(&order_at), at(&offsets_at));
            let tensors = GroupedLinear {
                x,
                w,
                order,
                offsets,
                y,
            };
            run(launch(tensors, side));
        }
        let (activations, sums) = (activations.values(), sums.values());
        for (row, &pair) in order.iter().enumerate() {
            let its = sums[pair as usize * n..][..n].chunks_exact(2);
            let expected: Vec<u16> = its.map(|two| activated_bits(two[0], two[1])).collect();
            let given = &activations[row * n / 2..][..n / 2];
            assert_eq!(given, expected, "{place}, row {row}");
        }
    };
    let plain = narrowed(&narrow_floats(37, 4 * n * k));
    let by = TestDevice::default().multiplier();
    for tile in Bf16Tile::all(by) {
        let launch = |at, side| grouped_linear_launch_with(tile, at, side, sizes);
        check(at(&plain), &launch, &format!("bf16 {tile:?}"));
    }
    for format in PackedFormat::ALL {
        let blocks = random_blocks(format, [4, n, k]);
        let packed = Buffer::new(&Packed::new(&blocks).unwrap().bytes);
        for tile in Tile::all(by, format) {
            let launch = |at, side| quantised_experts_launch_with(tile, format, at, side, sizes);
            check(at(&packed), &launch, &format!("{format:?} {tile:?}"));
        }
    }
}
