//! The experts' linear layers: rows grouped by expert, each expert's weights read once per step.

use candle_core::Tensor;

use super::access::{check_dims, check_index, dims, read, shape, write};
use super::dot::{Product, Rows, TASK_OPERATIONS, Weight, multiply_each};
use super::lanes::Isa;
use super::launch::{Address, Launch};
use super::matrix::with_weights;
use super::tile::Tile;
use super::{Matrix, Multiplier, OpError};

/// Which rows go to which expert, as [`super::sort_by_expert`] writes it.
#[derive(Debug, Clone, Copy)]
pub struct Routing<'a> {
    /// `[num_tokens * top_k]`, u32: pairs `token * top_k + rank`, expert by expert
    pub order: &'a Tensor,
    /// `[num_experts + 1]`, u32: expert `e` has `order[offsets[e]..offsets[e + 1]]`
    pub offsets: &'a Tensor,
    /// Experts per token
    pub top_k: usize,
}

/// Which side of the experts a linear layer is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// From tokens to rows sorted by expert.
    In,
    /// From rows sorted by expert to pairs.
    Out,
}

/// Where the tensors of [`grouped_linear_launch`] lie.
#[derive(Debug, Clone, Copy)]
pub struct GroupedLinear {
    /// `[num_tokens, k]` on side `In`, `[num_pairs, k]` in sorted order on side `Out`; bf16
    pub x: Address,
    /// `[num_experts, n, k]`, bf16; on side `In` rows of gate and up in turn
    pub w: Address,
    /// `[num_pairs]`, u32, as [`super::sort_by_expert`] writes it
    pub order: Address,
    /// `[num_experts + 1]`, u32, likewise
    pub offsets: Address,
    /// Written: on side `In` `silu(gate) · up`, `[num_pairs, n / 2]`, bf16 in sorted order; on side `Out` `[num_pairs, n]`,
    /// f32 by pair
    pub y: Address,
}

/// Sizes of [`grouped_linear_launch`].
#[derive(Debug, Clone, Copy)]
pub struct GroupedSizes {
    /// Tokens of the step times experts per token.
    pub num_pairs: u32,
    /// Rows of each expert's weights; a multiple of 8.
    pub n: u32,
    /// Width of `x`; a multiple of 8.
    pub k: u32,
    /// At most 32.
    pub num_experts: u32,
    /// Experts per token.
    pub top_k: u32,
}

/// Launches [`grouped_linear`] on tensor cores, on side `In` with [`super::silu_mul`] behind it (`kernels/grouped_gemm.cu`).
///
/// The grid has room for any distribution of the pairs over the experts: how many rows each has is known on the device
/// alone.
pub fn grouped_linear_launch(
    by: Multiplier,
    at: GroupedLinear,
    side: Side,
    sizes: GroupedSizes,
) -> Launch {
    let tile = Tile::for_rows(by, sizes.num_pairs.div_ceil(sizes.num_experts));
    grouped_linear_launch_with(tile, at, side, sizes)
}

/// The same, in blocks of `tile`.
pub(super) fn grouped_linear_launch_with(
    tile: Tile,
    at: GroupedLinear,
    side: Side,
    sizes: GroupedSizes,
) -> Launch {
    let GroupedSizes {
        num_pairs,
        n,
        k,
        num_experts,
        top_k,
    } = sizes;
    let (rows, threads) = (tile.rows(), tile.threads());
    let row_blocks = num_pairs.min(num_experts) + num_pairs / rows;
    Launch {
        kernel: tile.experts_kernel(side),
        grid: [n.div_ceil(tile.columns()), row_blocks, 1],
        block: [threads, 1, 1],
        shared_bytes: tile.shared_bytes(),
        arguments: vec![
            at.x.into(),
            at.w.into(),
            at.order.into(),
            at.offsets.into(),
            at.y.into(),
            n.into(),
            k.into(),
            num_experts.into(),
            top_k.into(),
        ],
    }
}

/// Multiplies each row with the weights of its expert: `y = x · w[expert]ᵀ`.
///
/// - `x`: `[num_tokens, k]` on side `In`, `[num_tokens * top_k, k]` in sorted order on side `Out`; f32, contiguous
/// - `w`: `[num_experts, n, k]`, f32 or bf16, contiguous; or blocks
/// - `y`: `[num_tokens * top_k, n]`, f32, contiguous, written: in sorted order on side `In`, by pair on side `Out`
///
/// # Errors
/// [`OpError::Shape`] naming the argument; [`OpError::Index`] if the routing points outside of `x` or `y`.
pub fn grouped_linear(
    x: &Tensor,
    w: &Matrix,
    routing: Routing<'_>,
    side: Side,
    y: &Tensor,
) -> Result<(), OpError> {
    const OP: &str = "grouped_linear";
    let [_, k] = dims(OP, "x", x)?;
    let w_dims = w.dims();
    let [num_experts, n] = [0, 1].map(|dim| w_dims.get(dim).copied().unwrap_or(0));
    w.check(OP, &[num_experts, n, k])?;
    let shape = [num_experts, n];
    with_weights!(OP, w, |weights| typed(
        OP, x, w, weights, shape, routing, side, y
    ))
}

#[allow(clippy::too_many_arguments)] // those of `grouped_linear` and what it found of `w`
fn typed<W: Weight>(
    op: &'static str,
    x: &Tensor,
    w: &Matrix,
    weights: &[W],
    [num_experts, n]: [usize; 2],
    routing: Routing<'_>,
    side: Side,
    y: &Tensor,
) -> Result<(), OpError> {
    let [pairs] = dims(op, "routing.order", routing.order)?;
    let [rows, k] = dims(op, "x", x)?;
    check_dims(op, "y", y, &[pairs, n])?;
    check_dims(op, "routing.offsets", routing.offsets, &[num_experts + 1])?;
    let expected = if side == Side::In {
        pairs / routing.top_k.max(1)
    } else {
        pairs
    };
    if rows != expected {
        return Err(shape(
            op,
            "x",
            format!("{expected} rows"),
            format!("{rows} rows"),
        ));
    }
    let order = &*read::<u32>(op, "routing.order", routing.order)?;
    let offsets = &*read::<u32>(op, "routing.offsets", routing.offsets)?;
    check_routing(op, order, offsets)?;
    let x_elements = &*read::<f32>(op, "x", x)?;
    let w_stride = k / W::COLUMNS;
    let products: Vec<Product<'_, W>> = (0..num_experts)
        .filter(|&expert| offsets[expert] < offsets[expert + 1])
        .map(|expert| {
            let sorted = offsets[expert] as usize..offsets[expert + 1] as usize;
            let first = Rows::From(sorted.start);
            let m = sorted.len();
            let (x_rows, y_rows) = match side {
                Side::In => (Rows::Listed(&order[sorted], routing.top_k), first),
                Side::Out => (first, Rows::Listed(&order[sorted], 1)),
            };
            let w = &weights[expert * n * w_stride..(expert + 1) * n * w_stride];
            Product {
                x: x_elements,
                x_stride: k,
                x_rows,
                m,
                w,
                w_stride,
                n,
                k,
                y_rows,
                y_stride: n,
            }
        })
        .collect();
    write(
        op,
        "y",
        y,
        &[x, w.tensor().unwrap_or(x), routing.order, routing.offsets],
        |y: &mut [f32]| {
            multiply_each(Isa::best(), TASK_OPERATIONS, &products, y);
        },
    )
}

/// Refuses offsets that are not ascending up to the number of pairs, and pairs that do not exist.
fn check_routing(op: &'static str, order: &[u32], offsets: &[u32]) -> Result<(), OpError> {
    let ascending = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
    if !ascending || offsets.first() != Some(&0) || offsets.last() != Some(&(order.len() as u32)) {
        return Err(shape(
            op,
            "routing.offsets",
            format!("ascending from 0 to {}", order.len()),
            offsets,
        ));
    }
    for &pair in order {
        check_index(op, "routing.order", pair as usize, order.len())?;
    }
    Ok(())
}

/// Adds up what a token's experts say: `out[t] = Σ over ranks r, ascending, of weights[t, r] · pairs[t, r]`.
///
/// The order by rank depends on the token alone. Transformers adds by expert index; the difference is one rounding. On a
/// device this is part of the norm that follows ([`super::add_experts_rms_norm_launch`]).
///
/// - `pairs`: `[num_tokens * top_k, hidden]`, f32, contiguous
/// - `weights`: `[num_tokens, top_k]`, f32
/// - `out`: `[num_tokens, hidden]`, f32, contiguous, written
///
/// # Errors
/// [`OpError::Shape`] naming the argument.
pub fn combine_experts(pairs: &Tensor, weights: &Tensor, out: &Tensor) -> Result<(), OpError> {
    const OP: &str = "combine_experts";
    let [num_tokens, top_k] = dims(OP, "weights", weights)?;
    let [_, hidden] = dims(OP, "pairs", pairs)?;
    check_dims(OP, "pairs", pairs, &[num_tokens * top_k, hidden])?;
    check_dims(OP, "out", out, &[num_tokens, hidden])?;
    let (rows, scales) = (
        &*read::<f32>(OP, "pairs", pairs)?,
        &*read::<f32>(OP, "weights", weights)?,
    );
    write(OP, "out", out, &[pairs, weights], |out: &mut [f32]| {
        for (token, out) in out.chunks_exact_mut(hidden).enumerate() {
            out.fill(0.0);
            for pair in token * top_k..(token + 1) * top_k {
                for (out, value) in out.iter_mut().zip(&rows[pair * hidden..][..hidden]) {
                    *out += scales[pair] * value;
                }
            }
        }
    })
}

#[cfg(test)]
mod tests;
