use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use super::*;
use crate::ops::testing::{floats, tensor};

/// Those that are blocks.
const FORMATS: [Storage; 4] = [Storage::W4a16, Storage::Q8_0, Storage::Q4K, Storage::Fp8];

/// One row.
fn quantise(storage: Storage, weights: &[f32]) -> Result<Blocks, QuantiseError> {
    Blocks::quantise(storage, [1, 1, weights.len()], |_, row| {
        row.copy_from_slice(weights)
    })
}

fn there_and_back(storage: Storage, weights: &[f32]) -> Vec<f32> {
    let mut back = vec![f32::NAN; weights.len()];
    quantise(storage, weights)
        .unwrap()
        .dequantise_row(0, &mut back);
    back
}

/// Normally distributed, deviation 1 (Box-Muller).
fn normal(seed: u64, count: usize) -> Vec<f32> {
    let uniform: Vec<f64> = floats(seed, 2 * count)
        .iter()
        .map(|x| (f64::from(*x) + 1.0) / 2.0)
        .collect();
    uniform
        .chunks_exact(2)
        .map(|pair| {
            let radius = (-2.0 * pair[0].max(1e-9).ln()).sqrt();
            (radius * (std::f64::consts::TAU * pair[1]).cos()) as f32
        })
        .collect()
}

fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    let squares = a
        .iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    squares.sum()
}

/// Two blocks of the widest format, at any magnitude that f16 scales reach, perhaps with one outlier.
fn rows() -> impl Strategy<Value = Vec<f32>> {
    (any::<u64>(), -9i32..=3, 0usize..1024, -100.0f32..100.0).prop_map(
        |(seed, magnitude, outlier, factor)| {
            let mut row: Vec<f32> = floats(seed, 512)
                .iter()
                .map(|x| x * 10f32.powi(magnitude))
                .collect();
            if let Some(weight) = row.get_mut(outlier) {
                *weight *= factor;
            }
            row
        },
    )
}

/// Half of the distance between neighbours of f16 at `scale`.
fn scale_rounding(scale: f32) -> f32 {
    (scale * 2f32.powi(-11)).max(2f32.powi(-25))
}

fn largest(weights: &[f32]) -> f32 {
    weights
        .iter()
        .fold(0.0, |most, weight| most.max(weight.abs()))
}

proptest! {
    #[test]
    fn q8_0_is_off_by_half_a_step_of_the_largest_127th(row in rows()) {
        let back = there_and_back(Storage::Q8_0, &row);
        for (block, back) in row.chunks(32).zip(back.chunks(32)) {
            let step = largest(block) / 127.0;
            // The code is the nearest for the scale before its rounding, which moves 127 steps with it.
            let bound = step / 2.0 * 1.000_01 + 127.0 * scale_rounding(step);
            for (weight, back) in block.iter().zip(back) {
                prop_assert!((weight - back).abs() <= bound, "{weight} {back} {step}");
            }
        }
    }

    #[test]
    fn fp8_is_off_by_a_sixteenth_of_a_weight_or_half_of_the_smallest_step(row in rows()) {
        let back = there_and_back(Storage::Fp8, &row);
        for (block, back) in row.chunks(128).zip(back.chunks(128)) {
            let scale = largest(block) / 448.0;
            for (weight, back) in block.iter().zip(back) {
                // Three bits of fraction; subnormals in steps of 2^-9; a scale that was rounded down clips.
                let bound = (weight.abs() / 16.0).max(scale / 1024.0) * 1.000_01
                    + 448.0 * scale_rounding(scale);
                prop_assert!((weight - back).abs() <= bound, "{weight} {back} {scale}");
            }
        }
    }

    #[test]
    fn w4a16_takes_the_nearest_of_sixteen_codes_and_a_scale_no_worse_than_the_plain_one(row in rows()) {
        let blocks = quantise(Storage::W4a16, &row).unwrap();
        let back = there_and_back(Storage::W4a16, &row);
        for (at, weights) in row.chunks(128).enumerate() {
            let scale = widen([blocks.bytes[66 * at], blocks.bytes[66 * at + 1]]);
            let nearest = |scale: f32, weight: f32| {
                let errors = (-8..8).map(|code| (weight - scale * code as f32).abs());
                errors.fold(f32::INFINITY, f32::min)
            };
            let extreme = weights.iter().fold(0.0f32, |a, &b| if b.abs() > a.abs() { b } else { a });
            let plain = f16::from_f32(extreme / -8.0).to_f32();
            let (mut ours, mut theirs) = (0.0f64, 0.0f64);
            for (weight, back) in weights.iter().zip(&back[128 * at..]) {
                let error = (weight - back).abs();
                prop_assert!(error <= nearest(scale, *weight) + 1e-5 * scale.abs(), "{weight} {back}");
                ours += f64::from(error).powi(2);
                theirs += f64::from(nearest(plain, *weight)).powi(2);
            }
            prop_assert!(ours <= theirs * 1.000_1, "{ours} {theirs}");
        }
    }

    #[test]
    fn q4_k_is_off_by_half_a_step_of_a_group_and_the_rounding_of_scales(row in rows()) {
        let blocks = quantise(Storage::Q4K, &row).unwrap();
        let back = there_and_back(Storage::Q4K, &row);
        for (at, (weights, back)) in row.chunks(32).zip(back.chunks(32)).enumerate() {
            let block = &blocks.bytes[at / 8 * 144..];
            let [d, dmin] = [0, 2].map(|at| widen([block[at], block[at + 1]]));
            let high = weights.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            let low = weights.iter().fold(0.0f32, |a, b| a.min(*b));
            let step = (high - low) / 15.0;
            // With the plain scale no weight is off by more than half a step, and the search may only lessen the mean
            // square. Then the scale moves by half of `d` at most, times 15, the minimum by half of `dmin`; where those
            // were rounded down to f16, 63 of them are missing at most that rounding.
            let moved = 15.0 * (d / 2.0 + 63.0 * scale_rounding(d)) + dmin / 2.0 + 63.0 * scale_rounding(dmin);
            let mean = (squared_error(weights, back) / 32.0).sqrt() as f32;
            prop_assert!(mean <= (step / 2.0 + moved) * 1.000_1, "{mean} {step} {d} {dmin}");
        }
    }
}

#[test]
fn q8_0_has_the_bytes_of_ggml() {
    let mut row = normal(1, 4096);
    row[..32].fill(0.0);
    row[77] = 1000.0;
    row[200] = -3e-8;
    let theirs = QTensor::quantize(&tensor(&row, &[1, 4096]), GgmlDType::Q8_0).unwrap();
    assert!(*theirs.data().unwrap() == *quantise(Storage::Q8_0, &row).unwrap().bytes);
}

#[test]
fn ggml_reads_our_bytes_as_we_do() {
    for (storage, dtype) in [
        (Storage::Q8_0, GgmlDType::Q8_0),
        (Storage::Q4K, GgmlDType::Q4K),
    ] {
        let row: Vec<f32> = normal(2, 2048).iter().map(|x| x + 0.3).collect();
        let blocks = quantise(storage, &row).unwrap();
        let data = QStorage::from_data(blocks.bytes.into(), &Device::Cpu, dtype).unwrap();
        let theirs = QTensor::new(data, (1, 2048)).unwrap();
        let theirs = theirs.dequantize(&Device::Cpu).unwrap();
        let theirs: Vec<f32> = theirs.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(there_and_back(storage, &row), theirs, "{storage}");
    }
}

#[test]
fn q4_k_leaves_less_error_than_candles_quantiser_which_loses_equal_weights() {
    let count = 1 << 16;
    for (name, row) in [
        ("normal", normal(3, count)),
        ("uniform", floats(4, count)),
        ("equal", vec![0.5; count]),
    ] {
        let theirs = QTensor::quantize(&tensor(&row, &[1, count]), GgmlDType::Q4K).unwrap();
        let theirs = theirs.dequantize(&Device::Cpu).unwrap();
        let theirs: Vec<f32> = theirs.flatten_all().unwrap().to_vec1().unwrap();
        if name == "equal" {
            assert!(theirs.iter().all(|weight| *weight == 0.0));
        }
        let ours = squared_error(&row, &there_and_back(Storage::Q4K, &row));
        let theirs = squared_error(&row, &theirs);
        assert!(ours <= 0.93 * theirs, "{name}: {ours} of {theirs}");
    }
}

#[test]
fn w4a16_search_beats_the_plain_scale() {
    let row = normal(5, 1 << 16);
    let ours = squared_error(&row, &there_and_back(Storage::W4a16, &row));
    let plain: f64 = row
        .chunks(128)
        .map(|block| {
            let extreme = block
                .iter()
                .fold(0.0f32, |a, &b| if b.abs() > a.abs() { b } else { a });
            let scale = extreme / -8.0;
            let back: Vec<f32> = block
                .iter()
                .map(|w| scale * (w / scale).round().clamp(-8.0, 7.0))
                .collect();
            squared_error(block, &back)
        })
        .sum();
    assert!(ours < 0.9 * plain, "{ours} of {plain}");
}

#[test]
fn e4m3_codes_are_those_of_another_implementation() {
    let mut numbers = floats(6, 4096);
    for (at, number) in numbers.iter_mut().enumerate() {
        *number *= [448.0, 1.0, 0.01, 0.001][at % 4];
    }
    // Ties, ends and the edge between normal and subnormal numbers.
    numbers.extend([
        0.0,
        448.0,
        -448.0,
        432.0,
        416.0,
        2f32.powi(-6),
        2f32.powi(-7),
        2f32.powi(-10),
        1.0625,
        1.1875,
    ]);
    numbers.extend([0.015_136_72, 0.014_648_44, 3.0 * 2f32.powi(-10)]);
    let theirs = Tensor::new(&*numbers, &Device::Cpu).unwrap();
    let theirs = theirs.to_dtype(DType::F8E4M3).unwrap();
    let theirs: Vec<f32> = theirs.to_dtype(DType::F32).unwrap().to_vec1().unwrap();
    for (number, theirs) in numbers.iter().zip(theirs) {
        assert_eq!(fp8::decode(fp8::encode(*number)), theirs, "{number}");
    }
    for code in (0..=0x7e).chain(0x80..=0xfe) {
        assert_eq!(fp8::encode(fp8::decode(code)), code);
    }
    assert_eq!(fp8::decode(0x7e), 448.0);
    assert_eq!(fp8::decode(0x81), -1.0 / 512.0);
}

#[test]
fn scales_are_read_as_half_reads_them() {
    for bits in 0..=u16::MAX {
        let half = f16::from_bits(bits);
        if half.is_finite() {
            assert_eq!(widen(bits.to_le_bytes()).to_bits(), half.to_f32().to_bits());
        }
    }
    assert_eq!(narrow(65_519.0).unwrap().1, 65_504.0);
    assert_eq!(narrow(65_520.0), None);
}

#[test]
fn zeros_and_weights_too_small_for_a_scale_become_zeros() {
    for storage in FORMATS {
        for small in [0.0, -0.0, 1e-12, -1e-30, 1e-42] {
            let back = there_and_back(storage, &[small; 256]);
            assert!(
                back.iter().all(|weight| *weight == 0.0),
                "{storage} {small}"
            );
        }
    }
}

#[test]
fn equal_weights_are_kept_to_the_rounding_of_scales() {
    for storage in FORMATS {
        for equal in [0.5f32, -0.5, 3e4, -1e-4] {
            let back = there_and_back(storage, &[equal; 256]);
            // Two factors of f16 and 6 bits in q4_k; one factor of f16 elsewhere.
            let bound = equal.abs() * 2f32.powi(-10) + 127.0 * 2f32.powi(-25);
            let off = back.iter().find(|weight| (**weight - equal).abs() > bound);
            assert_eq!(off, None, "{storage} {equal}");
        }
    }
}

#[test]
fn one_outlier_spoils_no_block_but_its_own() {
    for storage in FORMATS {
        let mut row = normal(7, 768);
        let clean = there_and_back(storage, &row);
        row[300] = 900.0;
        let back = there_and_back(storage, &row);
        let block = storage.block_columns();
        let spoilt = 300 / block * block..(300 / block + 1) * block;
        for (column, (back, clean)) in back.iter().zip(&clean).enumerate() {
            assert!(
                spoilt.contains(&column) || back == clean,
                "{storage} {column}"
            );
        }
        assert!(
            (back[300] - 900.0).abs() <= 900.0 / 14.0,
            "{storage} {}",
            back[300]
        );
    }
}

#[test]
fn weights_that_no_scale_reaches_are_refused_by_place() {
    for (storage, fits, beyond) in [
        (Storage::Q8_0, 8.3e6, 8.4e6),
        (Storage::Fp8, 2.93e7, 2.94e7),
        (Storage::W4a16, 5.2e5, 8e5),
        (Storage::Q4K, 5e7, 1e8),
        (Storage::Q4K, -4e6, f32::MIN),
    ] {
        let mut row = vec![1.0; 768];
        row[515] = fits;
        let back = there_and_back(storage, &row);
        assert!(
            (back[515] - fits).abs() <= fits.abs() / 100.0,
            "{storage} {}",
            back[515]
        );
        row[515] = beyond;
        let refused = quantise(storage, &row).unwrap_err();
        let (value, row, column) = (beyond, 0, 515);
        let expected = QuantiseError::TooLarge {
            value,
            row,
            column,
            storage,
        };
        assert_eq!(refused, expected);
    }
    let mut row = vec![1.0; 256];
    row[9] = -1e9;
    assert_eq!(
        quantise(Storage::W4a16, &row).unwrap_err().to_string(),
        "holds -1e9 in row 0, column 9: too large for the scales of w4a16"
    );
}

#[test]
fn weights_that_are_not_finite_are_refused_by_place() {
    for storage in FORMATS {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let refused = Blocks::quantise(storage, [2, 3, 512], |row, weights| {
                weights.copy_from_slice(&floats(8, 512));
                if row >= 4 {
                    weights[300] = value;
                }
            });
            assert_eq!(
                refused.unwrap_err().to_string(),
                format!("holds {value} in row 4, column 300: {storage} stores finite weights only")
            );
        }
    }
}

#[test]
fn rows_that_are_no_whole_number_of_blocks_are_refused() {
    assert_eq!(
        quantise(Storage::Q4K, &[0.0; 384]).unwrap_err().to_string(),
        "has rows of 384 weights, q4_k stores them in blocks of 256"
    );
}

#[test]
fn rows_do_not_depend_on_how_many_threads_store_them() {
    let weights = normal(9, 64 * 512);
    let read = |row: usize, to: &mut [f32]| to.copy_from_slice(&weights[row * 512..][..512]);
    for storage in FORMATS {
        let many = Blocks::quantise(storage, [4, 16, 512], read).unwrap();
        for row in [0, 17, 63] {
            let alone = quantise(storage, &weights[row * 512..][..512]).unwrap();
            let size = storage.row_bytes(512);
            assert!(
                alone.bytes == many.bytes[row * size..][..size],
                "{storage} {row}"
            );
        }
    }
}
