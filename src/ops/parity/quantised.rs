//! Products with quantised weights, packed and multiplied on the emulated device, beside sums in f64 of weights decoded
//! here from the plain blocks.

use half::f16;

use mixgate_emulate::Architecture::{self, Ampere, Hopper};

use super::{Buffer, Exact, activated, at, exact_sum, narrow_floats, narrowed, run_as, widened};
use crate::ops::quantised::launch::{
    Tile, quantised_experts_launch_with, quantised_linear_launch_with,
};
use crate::ops::test_device::TestDevice;
use crate::ops::testing::floats;
use crate::ops::{Blocks, Device, GroupedLinear, GroupedSizes, Packed, PackedFormat, Side};

fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    let byte = |x: f32| ((x + 1.0) * 128.0) as u8;
    floats(seed, count).into_iter().map(byte).collect()
}

/// Random codes; scales of either sign, about as large as their number.
pub(super) fn random_blocks(format: PackedFormat, [experts, rows, columns]: [usize; 3]) -> Blocks {
    let storage = format.storage();
    let count = experts * rows * columns / storage.block_columns();
    let mut bytes = random_bytes(31, count * storage.block_bytes());
    let scales = floats(32, 2 * count);
    let blocks = bytes.chunks_exact_mut(storage.block_bytes());
    for (block, scales) in blocks.zip(scales.chunks_exact(2)) {
        let half = |scale: f32| f16::from_f32(scale / 16.0).to_le_bytes();
        block[..2].copy_from_slice(&half(scales[0]));
        match format {
            PackedFormat::Q4K => block[2..4].copy_from_slice(&half(scales[1])),
            // The two codes that are no numbers.
            PackedFormat::Fp8 => block[2..]
                .iter_mut()
                .filter(|code| **code & 0x7f == 0x7f)
                .for_each(|code| *code -= 1),
            _ => {}
        }
    }
    Blocks {
        storage,
        experts,
        rows,
        columns,
        bytes,
    }
}

/// A weight as the difference of two numbers, of which all but q4_k have the first alone. Decoded from the words of
/// [`crate::ops::Storage`], and for E4M3 from the definition.
fn decoded(blocks: &Blocks) -> Vec<[f64; 2]> {
    let half = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f64();
    let e4m3 = |code: u8| {
        let (exponent, fraction) = (i32::from(code >> 3 & 15), f64::from(code & 7));
        let magnitude = match exponent {
            0 => fraction / 8.0 * 2f64.powi(-6),
            _ => (1.0 + fraction / 8.0) * 2f64.powi(exponent - 7),
        };
        if code & 0x80 == 0 {
            magnitude
        } else {
            -magnitude
        }
    };
    let width = blocks.storage.block_columns();
    let weight = |block: &[u8], column: usize| -> [f64; 2] {
        match PackedFormat::of(blocks.storage).unwrap() {
            PackedFormat::W4a16 => {
                let code = (block[2 + column / 2] >> (column % 2 * 4)) & 0xf;
                [half(block) * (f64::from(code) - 8.0), 0.0]
            }
            PackedFormat::Q8_0 => [half(block) * f64::from(block[2 + column] as i8), 0.0],
            PackedFormat::Fp8 => [half(block) * e4m3(block[2 + column]), 0.0],
            PackedFormat::Q4K => {
                let six = &block[4..16];
                let group = column / 32;
                let (scale, minimum) = match group {
                    0..=3 => (six[group] % 64, six[4 + group] % 64),
                    _ => (
                        six[4 + group] % 16 + six[group - 4] / 64 * 16,
                        six[4 + group] / 16 + six[group] / 64 * 16,
                    ),
                };
                let byte = block[16 + column / 64 * 32 + column % 32];
                let code = if column % 64 < 32 {
                    byte % 16
                } else {
                    byte / 16
                };
                [
                    half(block) * f64::from(scale) * f64::from(code),
                    half(&block[2..]) * f64::from(minimum),
                ]
            }
        }
    };
    blocks
        .bytes
        .chunks_exact(blocks.storage.block_bytes())
        .flat_map(|block| (0..width).map(move |column| weight(block, column)))
        .collect()
}

/// The product of a row of `x` with a row of weights.
fn exact_product(x: &[f32], weights: &[[f64; 2]]) -> Exact {
    let terms = x.iter().zip(weights);
    exact_sum(terms.flat_map(|(&x, weight)| {
        let [plus, minus] = weight.map(|part| f64::from(x) * part);
        [plus, -minus]
    }))
}

/// Asserts that `given` is such a product, summed in f32 in any order.
fn assert_product(given: f32, x: &[f32], weights: &[[f64; 2]], place: &str) {
    let (exact, size) = exact_product(x, weights);
    let tolerance = f64::from(f32::EPSILON) * (x.len() as f64).sqrt() * size;
    assert_near(given, exact, tolerance, place);
}

fn assert_near(given: f32, exact: f64, tolerance: f64, place: &str) {
    let error = (f64::from(given) - exact).abs();
    assert!(
        error <= tolerance,
        "{place}: {given}, not {exact}, by {error:e} of {tolerance:e}"
    );
}

/// Multiplies on one side of random experts, and checks each output.
pub(super) fn check_experts(
    format: PackedFormat,
    tile: Tile,
    side: Side,
    experts_of: &[u32],
    top_k: usize,
    [num_experts, n, k]: [usize; 3],
    architecture: Architecture,
) {
    let pairs = experts_of.len();
    let mut order: Vec<u32> = (0..pairs as u32).collect();
    order.sort_by_key(|&pair| experts_of[pair as usize]);
    let offsets: Vec<u32> = (0..=num_experts as u32)
        .map(|end| experts_of.iter().filter(|&&expert| expert < end).count() as u32)
        .collect();
    let rows = match side {
        Side::In => pairs / top_k,
        Side::Out => pairs,
    };
    let x = narrow_floats(33, rows * k);
    let blocks = random_blocks(format, [num_experts, n, k]);
    let (x_at, w_at) = (
        narrowed(&x),
        Buffer::new(&Packed::new(&blocks).unwrap().bytes),
    );
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
        y: match side {
            Side::In => at(&sorted),
            Side::Out => at(&by_pair),
        },
    };
    let sizes = GroupedSizes {
        num_pairs: pairs as u32,
        n: n as u32,
        k: k as u32,
        num_experts: num_experts as u32,
        top_k: top_k as u32,
    };
    let launch = quantised_experts_launch_with(tile, format, tensors, side, sizes);
    run_as(&launch, architecture);

    let weights = decoded(&blocks);
    let w_row = |pair: u32, column: usize| {
        let row = experts_of[pair as usize] as usize * n + column;
        &weights[row * k..][..k]
    };
    let place = |row, column| format!("{format:?} {tile:?} {side:?}, row {row}, column {column}");
    match side {
        Side::In => {
            let given = widened(&sorted.values());
            for (row, &pair) in order.iter().enumerate() {
                let x = &x[pair as usize / top_k * k..][..k];
                let its = |column| exact_product(x, w_row(pair, column));
                for column in 0..n / 2 {
                    let (exact, off) = activated(its(2 * column), its(2 * column + 1), k);
                    assert_near(given[row * n / 2 + column], exact, off, &place(row, column));
                }
            }
        }
        Side::Out => {
            let given = by_pair.values();
            for (sorted, &pair) in order.iter().enumerate() {
                let (x, row) = (&x[sorted * k..][..k], pair as usize);
                for column in 0..n {
                    let given = given[row * n + column];
                    assert_product(given, x, w_row(pair, column), &place(row, column));
                }
            }
        }
    }
}

/// `x · wᵀ` on the emulated device.
fn multiplied(
    tile: Tile,
    format: PackedFormat,
    x: &[f32],
    blocks: &Blocks,
    architecture: Architecture,
) -> Vec<f32> {
    let (n, k) = (blocks.rows, blocks.columns);
    let m = x.len() / k;
    let packed = Packed::new(blocks).unwrap();
    let (x_at, w_at) = (narrowed(x), Buffer::new(&packed.bytes));
    let y = Buffer::<f32>::poisoned(m * n);
    let tensors = [at(&x_at), at(&w_at), at(&y)];
    let sizes = [m as u32, n as u32, k as u32];
    let launch = quantised_linear_launch_with(tile, format, tensors, sizes);
    run_as(&launch, architecture);
    y.values()
}

pub(super) fn check_linear(
    format: PackedFormat,
    tile: Tile,
    [m, n, k]: [usize; 3],
    architecture: Architecture,
) {
    let (x, blocks) = (narrow_floats(34, m * k), random_blocks(format, [1, n, k]));
    let (y, weights) = (
        multiplied(tile, format, &x, &blocks, architecture),
        decoded(&blocks),
    );
    for (i, given) in y.into_iter().enumerate() {
        let (row, column) = (i / n, i % n);
        assert_product(
            given,
            &x[row * k..][..k],
            &weights[column * k..][..k],
            &format!("{format:?} {tile:?}, row {row}, column {column}"),
        );
    }
}

fn has_warpgroups(format: PackedFormat) -> bool {
    tiles(format).any(|tile| tile == Tile::Warpgroups)
}

/// Those of the device that the tests run on.
pub(super) fn tiles(format: PackedFormat) -> impl Iterator<Item = Tile> {
    Tile::all(TestDevice::default().multiplier(), format)
}

#[test]
fn quantised_experts_match_decoded_weights() {
    let one = [6u32, 2];
    let few = [3u32, 1, 3, 5, 0, 3, 7, 3];
    let crowd = [2u32; 38];
    let spread: Vec<u32> = (0..150).map(|i| i * i % 7 % 3).collect();
    for format in PackedFormat::ALL {
        for side in [Side::In, Side::Out] {
            let check = |tile, experts: &[u32], top_k, sizes| {
                check_experts(format, tile, side, experts, top_k, sizes, Hopper);
            };
            // Experts that have nobody, a tail of rows, the least of columns, more of k than there are stages.
            check(Tile::Rows16Columns32, &few, 2, [8, 8, 1280]);
            check_experts(format, Tile::Rows16, side, &few, 2, [8, 40, 256], Ampere);
            // Everybody on one expert: three blocks of rows.
            check(Tile::Rows16, &crowd, 2, [4, 40, 768]);
            check(Tile::Rows64, &spread, 3, [5, 72, 256]);
            check(Tile::Rows128, &spread, 3, [3, 40, 512]);
            if has_warpgroups(format) {
                check(Tile::Warpgroups, &spread, 3, [3, 136, 1024]);
                check(Tile::Warpgroups, &few, 2, [8, 8, 256]);
            }
        }
        let check = |tile, experts: &[u32], top_k, sizes| {
            check_experts(format, tile, Side::Out, experts, top_k, sizes, Hopper);
        };
        // A single token; columns beyond a block.
        check(Tile::Rows16Columns32, &one, 2, [8, 64, 256]);
        check(Tile::Rows16, &few, 2, [8, 136, 256]);
        check(Tile::Rows64, &crowd, 2, [4, 136, 1024]);
    }
}

#[test]
fn quantised_linear_matches_decoded_weights() {
    for format in PackedFormat::ALL {
        let check = |tile, sizes| check_linear(format, tile, sizes, Hopper);
        check(Tile::Rows16Columns32, [1, 40, 256]);
        check(Tile::Rows16, [17, 136, 256]);
        check(Tile::Rows64, [65, 24, 512]);
        check(Tile::Rows128, [130, 8, 1024]);
        // The longest sum there is.
        check(Tile::Rows16Columns32, [3, 8, 14_336]);
        check_linear(format, Tile::Rows16Columns32, [3, 8, 14_336], Ampere);
        if has_warpgroups(format) {
            check(Tile::Warpgroups, [130, 168, 896]);
            check(Tile::Warpgroups, [1, 8, 128]);
        }
        if format != PackedFormat::Q4K {
            check(Tile::Rows16, [2, 8, 128]);
            check(Tile::Rows64, [2, 16, 384]);
        }
    }
}

#[test]
fn ones_on_a_diagonal_read_every_weight_back() {
    let k = 256;
    let mut x = vec![0.0; k * k];
    x.iter_mut().step_by(k + 1).for_each(|x| *x = 1.0);
    for format in PackedFormat::ALL {
        let all = tiles(format);
        for tile in all.filter(|tile| *tile != Tile::Rows16 && *tile != Tile::Rows64) {
            let blocks = random_blocks(format, [1, 40, k]);
            let (y, weights) = (
                multiplied(tile, format, &x, &blocks, Hopper),
                decoded(&blocks),
            );
            for (i, given) in y.into_iter().enumerate() {
                let (row, column) = (i / 40, i % 40);
                let [plus, minus] = weights[column * k + row];
                // Products of so few digits are exact; their difference is rounded once.
                let exact = (plus - minus) as f32;
                assert_eq!(given, exact, "{format:?} {tile:?}, {row}, {column}");
            }
        }
    }
}

#[test]
fn an_output_has_the_same_bits_in_every_tile_and_alone() {
    let (m, n, k) = (70, 72, 512);
    let x = narrow_floats(35, m * k);
    let pairs = PackedFormat::ALL
        .into_iter()
        .flat_map(|format| [(format, Hopper), (format, Ampere)]);
    for (format, architecture) in pairs {
        let blocks = random_blocks(format, [1, n, k]);
        let bits = |tile, x: &[f32]| -> Vec<u32> {
            let y = multiplied(tile, format, x, &blocks, architecture);
            y.into_iter().map(f32::to_bits).collect()
        };
        let all = bits(Tile::Rows16, &x);
        let by = TestDevice::adding_as(architecture).multiplier();
        for tile in Tile::all(by, format) {
            assert_eq!(bits(tile, &x), all, "{format:?} {tile:?}");
            let last = bits(tile, &x[(m - 1) * k..]);
            assert_eq!(last, all[(m - 1) * n..], "{format:?} {tile:?}");
            // As many as leave a warp half of its rows, or none, and one more.
            for rows in [8, 9, 16, 17, 32, 33, 49, 64] {
                let some = bits(tile, &x[..rows * k]);
                assert_eq!(some, all[..rows * n], "{format:?} {tile:?} {rows}");
            }
        }
    }
}
