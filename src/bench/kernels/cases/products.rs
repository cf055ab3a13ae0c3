//! Products with weights: bound by memory while rows are few, by tensor cores then.

use crate::bench::kernels::pool::{Case, Pool, Work, weight_bytes};
use crate::bench::kernels::routing::Pairs;
use crate::bench::kernels::{Cost, KernelBenchError, Shape};
use crate::ops::{self, Device, GroupedLinear, GroupedSizes, PackedFormat, Side};

/// `[m, k]` (bf16) times `[n, k]` (bf16), transposed, gives `[m, n]` (f32).
pub(in crate::bench::kernels) fn bf16_product<D: Device>(
    pool: &mut Pool<'_, D>,
    sizes: [usize; 3],
) -> Result<Case, KernelBenchError> {
    linear(pool, None, sizes)
}

/// The same by whatever the device multiplies with.
pub(in crate::bench::kernels) fn library_product<D: Device>(
    pool: &mut Pool<'_, D>,
    [m, n, k]: [usize; 3],
) -> Result<Case, KernelBenchError> {
    let sizes = [m, n, k].map(|size| size as u32);
    pool.case(linear_cost(None, [m, n, k]), |pool, _| {
        let tensors = [
            pool.halves(m * k)?,
            pool.halves(n * k)?,
            pool.empty(m * n * 4)?,
        ];
        Ok(vec![Work::Multiply(tensors, sizes)])
    })
}

/// Weights and rows (bf16) read, results (f32) written.
fn linear_cost(format: Option<PackedFormat>, [m, n, k]: [usize; 3]) -> Cost {
    Cost {
        bytes: (weight_bytes(format, [1, n, k]) + m * k * 2 + m * n * 4) as u64,
        flops: 2 * (m * n * k) as u64,
    }
}

/// The same with weights in any format.
pub(super) fn linear<D: Device>(
    pool: &mut Pool<'_, D>,
    format: Option<PackedFormat>,
    [m, n, k]: [usize; 3],
) -> Result<Case, KernelBenchError> {
    let sizes = [m, n, k].map(|size| size as u32);
    pool.case(linear_cost(format, [m, n, k]), |pool, _| {
        let tensors = [
            pool.halves(m * k)?,
            pool.weights(format, [1, n, k])?,
            pool.empty(m * n * 4)?,
        ];
        Ok(vec![match format {
            None => ops::linear_launch(pool.device.multiplier(), tensors, sizes),
            Some(format) => {
                ops::quantised_linear_launch(pool.device.multiplier(), format, tensors, sizes)
            }
        }])
    })
}

/// Side `In`, then side `Out`. Weights of experts without rows are not read.
pub(super) fn experts<D: Device>(
    pool: &mut Pool<'_, D>,
    shape: &Shape,
    format: Option<PackedFormat>,
    m: usize,
) -> Result<Case, KernelBenchError> {
    let &Shape {
        hidden,
        intermediate,
        experts,
        top_k,
        ..
    } = shape;
    let pairs = Pairs::spread(m, experts, top_k);
    let count = pairs.order.len();
    let [n_in, n_out] = [2 * intermediate, hidden];
    let of_each =
        weight_bytes(format, [1, n_in, hidden]) + weight_bytes(format, [1, n_out, intermediate]);
    // Each side: rows read (bf16), results written (activated in bf16, then f32), order and offsets read.
    let activations = m * hidden * 2 + count * (2 * intermediate * 2 + n_out * 4);
    let indices = 2 * 4 * (count + experts + 1);
    let cost = Cost {
        bytes: (pairs.num_busy() * of_each + activations + indices) as u64,
        flops: 2 * (count * hidden * n_in + count * intermediate * n_out) as u64,
    };
    let sizes = |n: usize, k: usize| GroupedSizes {
        num_pairs: count as u32,
        n: n as u32,
        k: k as u32,
        num_experts: experts as u32,
        top_k: top_k as u32,
    };
    let by = pool.device.multiplier();
    let launch = |at, side, sizes| match format {
        None => ops::grouped_linear_launch(by, at, side, sizes),
        Some(format) => ops::quantised_experts_launch(by, format, at, side, sizes),
    };
    pool.case(cost, |pool, _| {
        let (order, offsets) = (pool.words(&pairs.order)?, pool.words(&pairs.offsets)?);
        let from_tokens = GroupedLinear {
            x: pool.halves(m * hidden)?,
            w: pool.weights(format, [experts, n_in, hidden])?,
            order,
            offsets,
            y: pool.empty(count * intermediate * 2)?,
        };
        let to_pairs = GroupedLinear {
            x: pool.halves(count * intermediate)?,
            w: pool.weights(format, [experts, n_out, intermediate])?,
            order,
            offsets,
            y: pool.empty(count * n_out * 4)?,
        };
        Ok(vec![
            launch(from_tokens, Side::In, sizes(n_in, hidden)),
            launch(to_pairs, Side::Out, sizes(n_out, intermediate)),
        ])
    })
}
