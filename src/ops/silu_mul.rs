//! The gated activation of an expert.

use candle_core::Tensor;
use rayon::prelude::*;

use super::OpError;
use super::access::{check_dims, dims, read, shape, write};
use super::lanes::{exp, widest};

const OP: &str = "silu_mul";

/// `out = silu(gate) · up`, where `silu(x) = x / (1 + e⁻ˣ)`. On a device this is the end of the product before it
/// ([`super::grouped_linear_launch`]).
///
/// - `gate_up`: `[rows, 2 * width]`, f32, contiguous: each row is a gate, then an up
/// - `out`: `[rows, width]`, f32, contiguous, written
///
/// # Errors
/// [`OpError::Shape`] naming the argument.
pub fn silu_mul(gate_up: &Tensor, out: &Tensor) -> Result<(), OpError> {
    let [rows, double] = dims(OP, "gate_up", gate_up)?;
    if !double.is_multiple_of(2) {
        return Err(shape(
            OP,
            "gate_up",
            "of an even width",
            format!("{double} wide"),
        ));
    }
    let width = double / 2;
    check_dims(OP, "out", out, &[rows, width])?;
    let gate_up_rows = &*read::<f32>(OP, "gate_up", gate_up)?;
    write(OP, "out", out, &[gate_up], |out: &mut [f32]| {
        if width == 0 {
            return;
        }
        let row = |(out, row): (&mut [f32], &[f32])| activate(&row[..width], &row[width..], out);
        if rows * width < PARALLEL_ELEMENTS {
            out.chunks_exact_mut(width)
                .zip(gate_up_rows.chunks_exact(double))
                .for_each(row);
        } else {
            out.par_chunks_exact_mut(width)
                .zip(gate_up_rows.par_chunks_exact(double))
                .with_min_len((PARALLEL_ELEMENTS / 2).div_ceil(width))
                .for_each(row);
        }
    })
}

widest! {
    fn activate(gate: &[f32], up: &[f32], out: &mut [f32]) = activate_row;
}

#[inline(always)]
fn activate_row(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate / (1.0 + exp(-gate)) * up;
    }
}

/// Elements that are worth a second thread, at about 1 ns each.
const PARALLEL_ELEMENTS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{floats, poisoned, tensor, values};

    #[test]
    fn it_agrees_with_a_slow_twin_from_minus_to_plus_a_hundred() {
        let (rows, width) = (7, 33);
        let wide: Vec<f32> = floats(8, rows * 2 * width)
            .iter()
            .map(|x| x * 100.0)
            .collect();
        let out = poisoned(&[rows, width]);
        silu_mul(&tensor(&wide, &[rows, 2 * width]), &out).unwrap();
        for (at, out) in values(&out).into_iter().enumerate() {
            let (gate, up) = (
                wide[at / width * 2 * width + at % width],
                wide[at / width * 2 * width + width + at % width],
            );
            let exact = gate as f64 / (1.0 + (-gate as f64).exp()) * up as f64;
            // Below e⁻⁸⁷ the exponential saturates and the product is nothing.
            let tolerance = 4.0 * f32::EPSILON as f64 * exact.abs() + 1e-30;
            assert!(
                (out as f64 - exact).abs() <= tolerance,
                "{gate} {up}: {out} {exact}"
            );
        }
    }

    #[test]
    fn many_rows_in_parallel_equal_each_row_alone() {
        let (rows, width) = (600, 128);
        let all = tensor(&floats(9, rows * 2 * width), &[rows, 2 * width]);
        let out = poisoned(&[rows, width]);
        silu_mul(&all, &out).unwrap();
        for row in [0, 1, 299, 599] {
            let alone = poisoned(&[1, width]);
            silu_mul(&all.narrow(0, row, 1).unwrap(), &alone).unwrap();
            assert_eq!(values(&alone), values(&out)[row * width..][..width]);
        }
    }
}
