//! Kernels that treat each row by itself: bound by memory, all of them.

use crate::bench::kernels::pool::{Case, Pool, shuffled};
use crate::bench::kernels::{Cost, KernelBenchError, Shape};
use crate::ops::{self, Device, RopeStoreKv, Route, RouteSizes};

/// Per row: the addend and the residual read, the residual written (f32), the normed row written (bf16). The weight.
pub(super) fn add_rms_norm<D: Device>(
    pool: &mut Pool<'_, D>,
    shape: &Shape,
    m: usize,
) -> Result<Case, KernelBenchError> {
    let hidden = shape.hidden;
    pool.case(
        moves(m * hidden * (4 + 4 + 4 + 2) + hidden * 4),
        |pool, _| {
            let tensors = [
                pool.floats(m * hidden)?,
                pool.floats(m * hidden)?,
                pool.floats(hidden)?,
                pool.empty(m * hidden * 2)?,
            ];
            Ok(vec![ops::add_rms_norm_launch(
                tensors,
                m as u32,
                hidden as u32,
                1e-5,
            )])
        },
    )
}

/// Per row: its id, its weights read (bf16), the row and a row of zeros written (f32).
pub(super) fn embedding<D: Device>(
    pool: &mut Pool<'_, D>,
    shape: &Shape,
    m: usize,
) -> Result<Case, KernelBenchError> {
    let hidden = shape.hidden;
    let table = pool.halves(shape.vocab * hidden)?;
    pool.case(moves(m * (4 + hidden * (2 + 4 + 4))), |pool, set| {
        let order = shuffled(shape.vocab, set as u32);
        let ids: Vec<u32> = order.into_iter().cycle().take(m).collect();
        let ids = pool.words(&ids)?;
        let tensors = [
            table,
            ids,
            ids,
            pool.empty(m * hidden * 4)?,
            pool.empty(m * hidden * 4)?,
        ];
        Ok(vec![ops::embedding_launch(
            tensors,
            m as u32,
            hidden as u32,
        )])
    })
}

/// Per row: queries, keys and values read (f32), as many written (bf16), angles (f32), position and slot.
pub(super) fn rope_store_kv<D: Device>(
    pool: &mut Pool<'_, D>,
    shape: &Shape,
    m: usize,
) -> Result<Case, KernelBenchError> {
    let width = shape.q_width() + 2 * shape.kv_width();
    pool.case(
        moves(m * (width * (4 + 2) + shape.head_dim * 4 + 8)),
        |pool, set| {
            let positions: Vec<u32> = (0..m as u32).collect();
            let tensors = RopeStoreKv {
                qkv: pool.floats(m * width)?,
                positions: pool.words(&positions)?,
                slots: pool.words(&shuffled(m, set as u32))?,
                cos: pool.floats(m * shape.head_dim / 2)?,
                sin: pool.floats(m * shape.head_dim / 2)?,
                q: pool.empty(m * shape.q_width() * 2)?,
                k_cache: pool.empty(m * shape.kv_width() * 2)?,
                v_cache: pool.empty(m * shape.kv_width() * 2)?,
            };
            let [heads, kv_heads, head_dim] =
                [shape.heads, shape.kv_heads, shape.head_dim].map(|size| size as u32);
            Ok(vec![ops::rope_store_kv_launch(
                tensors, m as u32, heads, kv_heads, head_dim,
            )])
        },
    )
}

/// Rows and gate read (bf16); experts written and read again, weights, order, offsets written. Products with the gate.
pub(super) fn route<D: Device>(
    pool: &mut Pool<'_, D>,
    shape: &Shape,
    m: usize,
) -> Result<Case, KernelBenchError> {
    let Shape {
        hidden,
        experts,
        top_k,
        ..
    } = *shape;
    let pairs = m * top_k;
    let cost = Cost {
        bytes: ((m + experts) * hidden * 2 + pairs * (4 + 4 + 4 + 4) + (experts + 1) * 4) as u64,
        flops: (2 * m * hidden * experts) as u64,
    };
    let sizes = RouteSizes {
        num_tokens: m as u32,
        hidden: hidden as u32,
        num_experts: experts as u32,
        top_k: top_k as u32,
    };
    pool.case(cost, |pool, _| {
        let tensors = Route {
            normed: pool.halves(m * hidden)?,
            gate: pool.halves(experts * hidden)?,
            slots: pool.words(&vec![0; m])?,
            experts: pool.empty(pairs * 4)?,
            weights: pool.empty(pairs * 4)?,
            order: pool.empty(pairs * 4)?,
            offsets: pool.empty((experts + 1) * 4)?,
        };
        Ok(ops::route_launches(tensors, sizes))
    })
}

/// As [`add_rms_norm`], but for the addend: per pair, a row read (f32) and its weight.
pub(super) fn add_experts_rms_norm<D: Device>(
    pool: &mut Pool<'_, D>,
    shape: &Shape,
    m: usize,
) -> Result<Case, KernelBenchError> {
    let (hidden, top_k) = (shape.hidden, shape.top_k);
    let pairs = m * top_k;
    let rest = m * hidden * (4 + 4 + 2) + hidden * 4;
    pool.case(moves(pairs * (hidden * 4 + 4) + rest), |pool, _| {
        let tensors = [
            pool.floats(pairs * hidden)?,
            pool.floats(pairs)?,
            pool.words(&vec![0; m])?,
            pool.floats(m * hidden)?,
            pool.floats(hidden)?,
            pool.empty(m * hidden * 2)?,
        ];
        let [m, hidden, top_k] = [m, hidden, top_k].map(|size| size as u32);
        Ok(vec![ops::add_experts_rms_norm_launch(
            tensors, m, hidden, top_k, 1e-5,
        )])
    })
}

/// Per row: its index, the row read and written (bf16).
pub(super) fn gather_rows<D: Device>(
    pool: &mut Pool<'_, D>,
    shape: &Shape,
    m: usize,
) -> Result<Case, KernelBenchError> {
    let hidden = shape.hidden;
    pool.case(moves(m * (4 + hidden * (2 + 2))), |pool, set| {
        let tensors = [
            pool.halves(m * hidden)?,
            pool.words(&shuffled(m, set as u32))?,
            pool.empty(m * hidden * 2)?,
        ];
        Ok(vec![ops::gather_rows_launch(
            tensors,
            m as u32,
            hidden as u32,
        )])
    })
}

pub(super) fn moves(bytes: usize) -> Cost {
    Cost {
        bytes: bytes as u64,
        flops: 0,
    }
}
