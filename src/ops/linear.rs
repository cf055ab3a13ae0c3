//! Linear layers without bias.

use candle_core::Tensor;

use super::access::{check_dims, dims, read, write};
use super::dot::{Product, Rows, Weight, multiply};
use super::launch::{Address, Launch};
use super::matrix::with_weights;
use super::tile::Tile;
use super::{Matrix, Multiplier, OpError};

const OP: &str = "linear";

/// `y = x · wᵀ`. Each weight is read once, whatever the number of rows.
///
/// - `x`: `[m, k]`, f32, contiguous
/// - `w`: `[n, k]`, f32 or bf16, contiguous; or blocks. What is not f32 is decoded on the way
/// - `y`: `[m, n]`, f32, contiguous, written
///
/// # Errors
/// [`OpError::Shape`] naming the argument.
pub fn linear(x: &Tensor, w: &Matrix, y: &Tensor) -> Result<(), OpError> {
    let [_, k] = dims(OP, "x", x)?;
    let n = w.dims().iter().rev().nth(1).copied().unwrap_or(0);
    w.check(OP, &[n, k])?;
    with_weights!(OP, w, |weights| typed(x, w, weights, n, y))
}

fn typed<W: Weight>(
    x: &Tensor,
    w: &Matrix,
    weights: &[W],
    n: usize,
    y: &Tensor,
) -> Result<(), OpError> {
    let [m, k] = dims(OP, "x", x)?;
    check_dims(OP, "y", y, &[m, n])?;
    let product = Product {
        x: &read::<f32>(OP, "x", x)?,
        x_stride: k,
        x_rows: Rows::From(0),
        m,
        w: weights,
        w_stride: k / W::COLUMNS,
        n,
        k,
        y_rows: Rows::From(0),
        y_stride: n,
    };
    let sources = [x, w.tensor().unwrap_or(x)];
    write(OP, "y", y, &sources, |y: &mut [f32]| multiply(&product, y))
}

/// Launches [`linear`] on tensor cores (`kernels/grouped_gemm.cu`).
///
/// - `x`: `[m, k]`, bf16
/// - `w`: `[n, k]`, bf16
/// - `y`: `[m, n]`, f32
///
/// `n` and `k` are multiples of 8.
pub fn linear_launch(by: Multiplier, at: [Address; 3], sizes: [u32; 3]) -> Launch {
    linear_launch_with(Tile::for_rows(by, sizes[0]), at, sizes)
}

/// The same, in blocks of `tile`.
pub(super) fn linear_launch_with(
    tile: Tile,
    [x, w, y]: [Address; 3],
    [m, n, k]: [u32; 3],
) -> Launch {
    Launch {
        kernel: tile.linear_kernel(),
        grid: [n.div_ceil(tile.columns()), m.div_ceil(tile.rows()), 1],
        block: [tile.threads(), 1, 1],
        shared_bytes: tile.shared_bytes(),
        arguments: vec![x.into(), w.into(), y.into(), m.into(), n.into(), k.into()],
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::ops::testing::{floats, poisoned, tensor, values};

    #[test]
    fn it_agrees_with_a_slow_twin_for_both_weight_types() {
        let (m, n, k) = (5, 7, 37);
        let x = tensor(&floats(1, m * k), &[m, k]);
        for dtype in [DType::F32, DType::BF16] {
            let w = tensor(&floats(2, n * k), &[n, k]).to_dtype(dtype).unwrap();
            let y = poisoned(&[m, n]);
            linear(&x, &w.clone().into(), &y).unwrap();
            let (x, w) = (values(&x), values(&w.to_dtype(DType::F32).unwrap()));
            for (at, y) in values(&y).into_iter().enumerate() {
                let (i, j) = (at / n, at % n);
                let exact: f64 = (0..k)
                    .map(|c| x[i * k + c] as f64 * w[j * k + c] as f64)
                    .sum();
                assert!(
                    (y as f64 - exact).abs() <= f32::EPSILON as f64 * (k as f64).sqrt(),
                    "{dtype:?} {at}"
                );
            }
        }
    }

    #[test]
    fn arguments_that_disagree_are_named() {
        let (x, w) = (poisoned(&[2, 8]), poisoned(&[3, 9]));
        let error = linear(&x, &w.into(), &poisoned(&[2, 3])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "linear: `w` is of shape [3, 9], expected [3, 8]"
        );
        let error = linear(&x, &poisoned(&[3, 8]).into(), &poisoned(&[3, 2])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "linear: `y` is of shape [3, 2], expected [2, 3]"
        );
        let strided = poisoned(&[8, 2]).t().unwrap();
        let error = linear(&strided, &poisoned(&[3, 8]).into(), &poisoned(&[2, 3])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "linear: `x` is strided by [1, 2], expected contiguous"
        );
    }

    #[test]
    fn an_output_in_a_source_is_refused_instead_of_waited_for() {
        let all = poisoned(&[8, 4]);
        let (x, y) = (all.narrow(0, 0, 4).unwrap(), all.narrow(0, 4, 4).unwrap());
        let error = linear(&x, &poisoned(&[4, 4]).into(), &y).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`y` is in the same storage as one"),
            "{error}"
        );
    }
}
