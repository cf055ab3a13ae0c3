//! Root-mean-square normalisation, with or without adding a residual first.

use candle_core::Tensor;

use super::OpError;
use super::access::{check_dims, dims, read, write};
use super::lanes::{LANES, tree, widest};
use super::launch::{Address, Launch, threads_for};

const OP: &str = "rms_norm";

/// `out = weight · x / √(mean(x²) + eps)`, row by row (Zhang and Sennrich 2019).
///
/// - `x`: `[num_tokens, hidden]`, f32, contiguous
/// - `weight`: `[hidden]`, f32
/// - `out`: as `x`, written
///
/// # Errors
/// [`OpError::Shape`] naming the argument.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32, out: &Tensor) -> Result<(), OpError> {
    let [_, hidden] = dims(OP, "x", x)?;
    check_dims(OP, "weight", weight, &[hidden])?;
    check_dims(OP, "out", out, x.dims())?;
    let (rows, weights) = (
        &*read::<f32>(OP, "x", x)?,
        &*read::<f32>(OP, "weight", weight)?,
    );
    write(OP, "out", out, &[x, weight], |out: &mut [f32]| {
        for (row, out) in rows.chunks_exact(hidden).zip(out.chunks_exact_mut(hidden)) {
            normalise(row, weights, eps, out);
        }
    })
}

/// `residual += x`, then `out = rms_norm(residual)`.
///
/// - `x`: `[num_tokens, hidden]`, f32, contiguous
/// - `residual`: as `x`, read and written
/// - `weight`: `[hidden]`, f32
/// - `out`: as `x`, written
///
/// # Errors
/// [`OpError::Shape`] naming the argument.
pub fn add_rms_norm(
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    eps: f32,
    out: &Tensor,
) -> Result<(), OpError> {
    let [_, hidden] = dims(OP, "x", x)?;
    check_dims(OP, "residual", residual, x.dims())?;
    check_dims(OP, "weight", weight, &[hidden])?;
    check_dims(OP, "out", out, x.dims())?;
    let (rows, weights) = (
        &*read::<f32>(OP, "x", x)?,
        &*read::<f32>(OP, "weight", weight)?,
    );
    write(
        OP,
        "residual",
        residual,
        &[x, weight, out],
        |residual: &mut [f32]| {
            write(OP, "out", out, &[x, weight], |out: &mut [f32]| {
                let rows = rows
                    .chunks_exact(hidden)
                    .zip(residual.chunks_exact_mut(hidden));
                for ((row, sum), out) in rows.zip(out.chunks_exact_mut(hidden)) {
                    for (sum, value) in sum.iter_mut().zip(row) {
                        *sum += value;
                    }
                    normalise(sum, weights, eps, out);
                }
            })
        },
    )?
}

/// Launches [`super::combine_experts`] and [`add_rms_norm`] of its sums in one kernel (`kernels/rms_norm.cu`).
///
/// - `pairs`: `[num_tokens * top_k, hidden]`, f32
/// - `weights`: `[num_tokens, top_k]`, f32: of the pairs
/// - `slots`: `[num_tokens]`, u32, uploaded: [`u32::MAX`] for a token that only fills the batch, whose pairs and weights are
///   not read
/// - `residual`, `weight`, `out`, `hidden`: as for [`add_rms_norm_launch`]
pub fn add_experts_rms_norm_launch(
    [pairs, weights, slots, residual, weight, out]: [Address; 6],
    num_tokens: u32,
    hidden: u32,
    top_k: u32,
    eps: f32,
) -> Launch {
    let arguments = vec![
        pairs.into(),
        weights.into(),
        slots.into(),
        residual.into(),
        weight.into(),
        out.into(),
        hidden.into(),
        top_k.into(),
        eps.into(),
    ];
    let threads = threads_for(hidden / 4, 1024);
    Launch::linear("add_experts_rms_norm", num_tokens, threads, arguments)
}

/// Launches [`add_rms_norm`] on a device, where `out` is bf16 (`kernels/rms_norm.cu`).
///
/// - `x`, `residual`: `[num_tokens, hidden]`, f32
/// - `weight`: `[hidden]`, f32
/// - `out`: `[num_tokens, hidden]`, bf16
///
/// `hidden` is a multiple of 4.
pub fn add_rms_norm_launch(
    [x, residual, weight, out]: [Address; 4],
    num_tokens: u32,
    hidden: u32,
    eps: f32,
) -> Launch {
    let arguments = vec![
        x.into(),
        residual.into(),
        weight.into(),
        out.into(),
        hidden.into(),
        eps.into(),
    ];
    let threads = threads_for(hidden / 4, 1024);
    Launch::linear("add_rms_norm", num_tokens, threads, arguments)
}

widest! {
    fn normalise(row: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = normalise_row;
}

#[inline(always)]
fn normalise_row(row: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mut lanes = [0.0f32; LANES];
    let (whole, tail) = row.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = x.mul_add(*x, *lane);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane = x.mul_add(*x, *lane);
    }
    let scale = 1.0 / (tree(lanes) / row.len() as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(row).zip(weight) {
        *out = x * scale * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{floats, poisoned, tensor, values};

    fn slow(x: &[f32], weight: &[f32], eps: f64) -> Vec<f64> {
        let mean = x.iter().map(|&x| x as f64 * x as f64).sum::<f64>() / x.len() as f64;
        x.iter()
            .zip(weight)
            .map(|(&x, &w)| x as f64 / (mean + eps).sqrt() * w as f64)
            .collect()
    }

    #[test]
    fn rows_agree_with_a_slow_twin_at_odd_sizes() {
        for hidden in [1, 15, 16, 17, 100] {
            let x = tensor(&floats(3, 3 * hidden), &[3, hidden]);
            let weight = tensor(&floats(4, hidden), &[hidden]);
            let out = poisoned(&[3, hidden]);
            rms_norm(&x, &weight, 1e-5, &out).unwrap();
            let (x, weight, out) = (values(&x), values(&weight), values(&out));
            for (row, out) in x.chunks(hidden).zip(out.chunks(hidden)) {
                for (exact, out) in slow(row, &weight, 1e-5).iter().zip(out) {
                    // Four roundings after the sum; the sum's own error halves in the root.
                    let tolerance = f32::EPSILON as f64
                        * (4.0 + (hidden as f64).sqrt())
                        * exact.abs().max(1e-6);
                    assert!((exact - *out as f64).abs() <= tolerance, "{exact} {out}");
                }
            }
        }
    }

    #[test]
    fn the_fused_form_adds_and_then_normalises_to_the_same_bits() {
        let (x, sum) = (
            tensor(&floats(5, 66), &[2, 33]),
            tensor(&floats(6, 66), &[2, 33]),
        );
        let weight = tensor(&floats(7, 33), &[33]);
        let expected_sum = (&sum + &x).unwrap();
        let (fused, plain) = (poisoned(&[2, 33]), poisoned(&[2, 33]));
        add_rms_norm(&x, &sum, &weight, 1e-5, &fused).unwrap();
        rms_norm(&expected_sum, &weight, 1e-5, &plain).unwrap();
        assert_eq!(values(&sum), values(&expected_sum));
        assert_eq!(values(&fused), values(&plain));
    }
}
