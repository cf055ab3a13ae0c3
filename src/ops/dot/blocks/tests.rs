use half::{bf16, f16};

use super::*;
use crate::ops::testing::floats;
use crate::ops::{Blocks, Storage};

/// Random rows, and one of large and one of small weights among them.
fn blocks(storage: Storage, n: usize, k: usize) -> Blocks {
    let weights = floats(1, n * k);
    Blocks::quantise(storage, [1, n, k], |row, to| {
        let scale = [1.0, 1e4, 1e-5, 0.3][row % 4];
        for (to, weight) in to.iter_mut().zip(&weights[row * k..]) {
            *to = bf16::from_f32(scale * weight).to_f32();
        }
    })
    .unwrap()
}

fn decoded(blocks: &Blocks) -> Vec<f32> {
    let mut weights = vec![f32::NAN; blocks.rows * blocks.columns];
    for (row, weights) in weights.chunks_exact_mut(blocks.columns).enumerate() {
        blocks.dequantise_row(row, weights);
    }
    weights
}

fn product<W: Weight>(isa: Isa, task: usize, x: &[f32], w: &[W], n: usize, k: usize) -> Vec<f32> {
    let m = x.len() / k;
    let mut y = vec![f32::NAN; m * n];
    let product = Product {
        x,
        x_stride: k,
        x_rows: Rows::From(0),
        m,
        w,
        w_stride: k / W::COLUMNS,
        n,
        k,
        y_rows: Rows::From(0),
        y_stride: n,
    };
    multiply_each(isa, task, &[product], &mut y);
    y
}

/// As the last: with blocks of any format.
fn quantised(isa: Isa, task: usize, x: &[f32], w: &Blocks) -> Vec<f32> {
    let (n, k) = (w.rows, w.columns);
    match w.storage {
        Storage::W4a16 => product::<w4a16::Block>(isa, task, x, w.bytes.as_chunks().0, n, k),
        Storage::Q8_0 => product::<q8_0::Block>(isa, task, x, w.bytes.as_chunks().0, n, k),
        Storage::Q4K => product::<q4_k::Block>(isa, task, x, w.bytes.as_chunks().0, n, k),
        Storage::Fp8 => product::<fp8::Block>(isa, task, x, w.bytes.as_chunks().0, n, k),
        Storage::F32 | Storage::Bf16 => panic!("no blocks"),
    }
}

const FORMATS: [Storage; 4] = [Storage::W4a16, Storage::Q8_0, Storage::Q4K, Storage::Fp8];

#[test]
fn every_instruction_set_gives_the_bits_of_the_product_with_dequantised_weights() {
    let k = 2304;
    for storage in FORMATS {
        for n in [1, 3, 4, 8, 13] {
            let w = blocks(storage, n, k);
            let dense = decoded(&w);
            for m in 1..=9 {
                let x = floats(2, m * k);
                let expected = product(Isa::Portable, usize::MAX, &x, &dense, n, k);
                assert!(expected.iter().all(|y| y.is_finite()));
                for isa in Isa::available() {
                    let ours = quantised(isa, usize::MAX, &x, &w);
                    assert_eq!(ours, expected, "{isa:?} {storage} {m}×{n}");
                }
            }
        }
    }
}

#[test]
fn a_row_alone_equals_the_row_in_a_crowd_on_many_threads() {
    let (m, n, k) = (11, 131, 256);
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    let x = floats(3, m * k);
    for storage in FORMATS {
        let w = blocks(storage, n, k);
        let crowd = threads.install(|| quantised(Isa::best(), 1, &x, &w));
        for row in 0..m {
            let alone = quantised(Isa::best(), usize::MAX, &x[row * k..][..k], &w);
            assert_eq!(alone, crowd[row * n..][..n], "{storage} row {row}");
        }
    }
}

#[test]
#[should_panic(expected = "no whole number of blocks")]
fn a_row_that_ends_within_a_block_is_never_read() {
    let w = [[0; 34]; 8];
    product::<q8_0::Block>(Isa::Portable, usize::MAX, &[0.0; 48], &w, 4, 48);
}

#[test]
#[should_panic(expected = "w is short")]
fn blocks_that_end_early_are_never_read() {
    let w = [[0; 34]; 7];
    product::<q8_0::Block>(Isa::Portable, usize::MAX, &[0.0; 64], &w, 4, 64);
}

#[test]
fn many_rows_and_columns_give_the_bits_of_the_product_with_dequantised_weights() {
    // Two parts of `k`, the second short; more columns than share a part of the activations, the last panel not whole; rows
    // for one, two and three rounds.
    let (n, k) = (35, 1280);
    for storage in FORMATS {
        let w = blocks(storage, n, k);
        let dense = decoded(&w);
        let x = floats(4, 130 * k);
        let expected = product(Isa::best(), usize::MAX, &x, &dense, n, k);
        for isa in Isa::available() {
            let counts: &[usize] = if isa == Isa::Portable {
                &[12]
            } else {
                &[10, 11, 12, 64, 65, 130]
            };
            for &m in counts {
                let ours = quantised(isa, usize::MAX, &x[..m * k], &w);
                assert_eq!(ours, expected[..m * n], "{isa:?} {storage} {m}");
            }
        }
    }
}

#[test]
fn every_code_with_every_kind_of_scale_is_decoded_on_every_instruction_set() {
    let scales = [1.0, -0.37, 2.0f32.powi(-24), -3.0e-7, 65_504.0, 0.0].map(f16::from_f32);
    for storage in FORMATS {
        let (k, bytes) = (256, storage.row_bytes(256));
        let block_bytes = storage.block_bytes();
        let n = 16 * scales.len();
        let mut w = blocks(storage, n, k);
        for (row, row_bytes) in w.bytes.chunks_exact_mut(bytes).enumerate() {
            for (at, byte) in row_bytes.iter_mut().enumerate() {
                // Odd steps: every value of a byte occurs.
                *byte = (row * 37 + at * 101) as u8;
            }
            for block in row_bytes.chunks_exact_mut(block_bytes) {
                block[..2].copy_from_slice(&scales[row % scales.len()].to_le_bytes());
                if storage == Storage::Q4K {
                    block[2..4].copy_from_slice(&scales[row / 16].to_le_bytes());
                }
            }
        }
        let dense = decoded(&w);
        // A row of the identity picks a column.
        let mut identity = vec![0.0; k * k];
        identity
            .iter_mut()
            .step_by(k + 1)
            .for_each(|one| *one = 1.0);
        for isa in Isa::available() {
            for m in [1, 2, 3, 4, 5, 6, 7, 8, k] {
                for (first, x) in (0..k).step_by(m).zip(identity.chunks_exact(m * k)) {
                    let ours = quantised(isa, usize::MAX, x, &w);
                    for (at, ours) in ours.iter().enumerate() {
                        let expected = dense[at % n * k + first + at / n];
                        assert_eq!(
                            *ours,
                            expected,
                            "{isa:?} {storage} column {first}+{}, row {}",
                            at / n,
                            at % n
                        );
                    }
                }
            }
        }
    }
}
