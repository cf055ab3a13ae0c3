//! Conversions, and what tensor cores make of whole numbers.

use super::super::*;
use super::*;

pub(super) fn bf16(x: f32) -> u16 {
    (x.to_bits() >> 16) as u16
}

#[test]
fn ldmatrix_and_mma_multiply_as_matrices_do() {
    // Small whole numbers: exact in every type.
    let a: Vec<f32> = (0..256).map(|i| (i * 7 % 13) as f32 - 6.0).collect();
    let b: Vec<f32> = (0..128).map(|i| (i * 5 % 11) as f32 - 5.0).collect();
    let product = |b_at: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
        let element = |i: usize| (0..16).map(|k| a[i / 8 * 16 + k] * b_at(k, i % 8)).sum();
        (0..128).map(element).collect()
    };
    let bits = |values: &[f32]| Buffer::new(&values.iter().map(|&x| bf16(x)).collect::<Vec<_>>());
    let to = Buffer::<f32>::poisoned(128);
    let (left, right) = (bits(&a), bits(&b));
    launch(
        "probe_mma_bf16",
        1,
        32,
        vec![left.pointer(), right.pointer(), to.pointer()],
    )
    .unwrap();
    assert_eq!(to.values(), product(&|k, n| b[n * 16 + k]));

    let halves = |values: &[f32]| Buffer::new(&values.iter().map(|&x| half(x)).collect::<Vec<_>>());
    let (left, right, to) = (halves(&a), halves(&b), Buffer::<f32>::poisoned(128));
    launch(
        "probe_mma_f16_transposed",
        1,
        32,
        vec![left.pointer(), right.pointer(), to.pointer()],
    )
    .unwrap();
    assert_eq!(to.values(), product(&|k, n| b[k * 8 + n]));
}

/// Whole numbers below 2048 as a half.
fn half(x: f32) -> u16 {
    if x == 0.0 {
        return 0;
    }
    let exponent = x.abs().log2().floor() as i32;
    let fraction = (x.abs() / 2f32.powi(exponent) * 1024.0) as u16 - 1024;
    u16::from(x < 0.0) << 15 | ((exponent + 15) as u16) << 10 | fraction
}

#[test]
fn byte_products_add_up_in_integers() {
    let a: Vec<i8> = (0..512).map(|i| (i * 7 % 255 - 127) as i8).collect();
    let b: Vec<i8> = (0..256).map(|i| (i * 11 % 255 - 127) as i8).collect();
    let words = |bytes: &[i8]| -> Vec<u32> {
        let word = |four: &[i8]| {
            u32::from_le_bytes([four[0] as u8, four[1] as u8, four[2] as u8, four[3] as u8])
        };
        bytes.chunks(4).map(word).collect()
    };
    let (left, right, to) = (
        Buffer::new(&words(&a)),
        Buffer::new(&words(&b)),
        Buffer::<i32>::poisoned(128),
    );
    launch(
        "probe_mma_s8",
        1,
        32,
        vec![left.pointer(), right.pointer(), to.pointer()],
    )
    .unwrap();
    let element = |i: usize| {
        (0..32)
            .map(|k| a[i / 8 * 32 + k] as i32 * b[i % 8 * 32 + k] as i32)
            .sum()
    };
    assert_eq!(to.values(), (0..128).map(element).collect::<Vec<i32>>());
}

#[test]
fn eight_bit_floats_have_every_value_they_should_and_products_add() {
    // OCP 8-bit floating point, 2023: four bits of exponent with bias 7, three of fraction, no infinities.
    let value = |code: u8| -> f32 {
        let (exponent, fraction) = (i32::from(code >> 3 & 15), f32::from(code & 7));
        let size = match exponent {
            0 => fraction * 2f32.powi(-9),
            _ => (8.0 + fraction) * 2f32.powi(exponent - 10),
        };
        if code & 0x80 == 0 { size } else { -size }
    };
    let codes: Vec<u8> = (0..=255).filter(|code| code & 0x7f != 0x7f).collect();
    let multiply = |a: &[u8], b: &[u8]| -> Vec<f32> {
        let (left, right) = (Buffer::new(a), Buffer::new(b));
        let to = Buffer::<f32>::poisoned(128);
        let arguments = vec![left.pointer(), right.pointer(), to.pointer()];
        launch("probe_mma_e4m3", 1, 32, arguments).unwrap();
        to.values()
    };
    // Eight of each row's 32 at a time: b has a one where its column is.
    let one = 0x38;
    for shift in (0..32).step_by(8) {
        let a: Vec<u8> = (0..512).map(|i| codes[i % codes.len()]).collect();
        let b: Vec<u8> = (0..256)
            .map(|i| if i % 32 == i / 32 + shift { one } else { 0 })
            .collect();
        for (i, given) in multiply(&a, &b).into_iter().enumerate() {
            assert_eq!(given, value(a[i / 8 * 32 + i % 8 + shift]));
        }
    }
    let a: Vec<u8> = (0..512).map(|i| codes[i * 37 % codes.len()]).collect();
    let b: Vec<u8> = (0..256).map(|i| codes[i * 101 % codes.len()]).collect();
    for (i, given) in multiply(&a, &b).into_iter().enumerate() {
        let terms =
            (0..32).map(|k| value(a[i / 8 * 32 + k]) as f64 * value(b[i % 8 * 32 + k]) as f64);
        let (exact, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
        // 32 terms summed in f32 in some order.
        assert!((given as f64 - exact).abs() <= 32.0 * f32::EPSILON as f64 * size);
    }
}

#[test]
fn conversions_round_to_nearest_even() {
    let cases: Vec<f32> = vec![
        0.0,
        -0.0,
        1.0,
        -2.5,
        1.0 + 1.0 / 256.0,
        1.0 + 3.0 / 256.0,
        1.0 + 1.0 / 2048.0,
        1.0 + 3.0 / 2048.0,
        65504.0,
        65519.9,
        65520.0,
        6.0e-8,
        2.9e-8,
        3.1e-8,
        6.1e-5,
        6.097e-5,
        f32::INFINITY,
        3.0e38,
        2047.5,
        2048.5,
    ];
    let count = cases.len();
    let from = Buffer::new(&cases);
    let (narrow, halves, back) = (
        Buffer::<u32>::poisoned(count),
        Buffer::<u32>::poisoned(count),
        Buffer::<f32>::poisoned(count),
    );
    let arguments = vec![
        from.pointer(),
        narrow.pointer(),
        halves.pointer(),
        back.pointer(),
        Argument::U32(count as u32),
    ];
    launch("probe_conversions", 1, 32, arguments).unwrap();
    for (at, x) in cases.iter().enumerate() {
        assert_eq!(
            narrow.values()[at] as u16,
            half::bf16::from_f32(*x).to_bits(),
            "{x} as bf16"
        );
        assert_eq!(
            halves.values()[at] as u16,
            half::f16::from_f32(*x).to_bits(),
            "{x} as f16"
        );
        assert_eq!(
            back.values()[at],
            half::f16::from_f32(*x).to_f32(),
            "{x} there and back"
        );
    }
}

/// A code's number, from the definition of E4M3.
fn e4m3(code: u8) -> f64 {
    let (exponent, fraction) = (i32::from(code >> 3 & 15), f64::from(code & 7));
    let magnitude = match exponent {
        0 => fraction / 8.0 * 2f64.powi(-6),
        _ => (1.0 + fraction / 8.0) * 2f64.powi(exponent - 7),
    };
    if code < 0x80 { magnitude } else { -magnitude }
}

#[test]
fn a_number_becomes_the_nearest_e4m3() {
    let codes = || (0..=u8::MAX).filter(|code| code & 0x7f != 0x7f);
    // Each of them, halves between neighbours, what is just off those, and what is beyond.
    let mut cases: Vec<f32> = codes().map(|code| e4m3(code) as f32).collect();
    for code in (0..0x7e).chain(0x80..0xfe) {
        let half = ((e4m3(code) + e4m3(code + 1)) / 2.0) as f32;
        cases.extend([half, half.next_up(), half.next_down()]);
    }
    cases.extend([449.0, 1e30, -1e30, f32::INFINITY, 1e-30, f32::NAN]);
    let count = cases.len();
    let (from, to) = (Buffer::new(&cases), Buffer::<u32>::poisoned(count));
    let back = Buffer::<f32>::poisoned(count);
    let mut arguments = vec![from.pointer(), to.pointer(), back.pointer()];
    arguments.push(Argument::U32(count as u32));
    launch("probe_e4m3", count.div_ceil(32) as u32, 32, arguments).unwrap();
    for ((x, code), back) in cases.iter().zip(to.values()).zip(back.values()) {
        if x.is_nan() {
            assert!(code == 0x7f && back.is_nan());
            continue;
        }
        let off = |code: u8| (e4m3(code) - f64::from(x.clamp(-448.0, 448.0))).abs();
        let near = codes()
            .filter(|its| (its >= &0x80) == x.is_sign_negative())
            .min_by(|a, b| off(*a).total_cmp(&off(*b)).then((a & 1).cmp(&(b & 1))));
        assert_eq!(Some(code as u8), near, "{x}");
        assert_eq!(f64::from(back), e4m3(code as u8), "{x}");
    }
}
