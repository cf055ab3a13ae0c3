//! Products with quantised weights: blocks are decoded on the way into the same loops, in the same order of additions.
//!
//! A few rows are multiplied with weights decoded in registers. For more, a part of four rows of weights at a time is
//! decoded into a panel that all rows share, so that each weight is read and decoded once; the lanes of each sum wait in
//! memory for the next part. Both give the bits of the product with dequantised weights.

use std::cell::Cell;

use super::*;
use crate::ops::quantised::{fp8, q4_k, q8_0, w4a16};

thread_local! {
    /// A panel and lanes of sums, made by its thread's first product that needs them.
    static SCRATCH: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Sixteen lanes, in a line of cache of their own: loads that cross from one line to the next take twice the time.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([f32; LANES]);

/// Rows of weights that are decoded at once.
const PANEL_ROWS: usize = 4;
/// Columns that are decoded at once, whole blocks of any format: 16 KiB with the rows, half of a first-level cache. Rows
/// alternate every 16 columns, because whole rows would lie 4 KiB apart, and share the same few places of that cache.
const PANEL_COLUMNS: usize = 1024;
/// Lines of a panel, `[PANEL_COLUMNS / LANES, PANEL_ROWS]`.
const PANEL: usize = PANEL_ROWS * PANEL_COLUMNS / LANES;
/// Rows of activations that are multiplied with one panel after the other: the same columns of them, 256 KiB, wait in the
/// second-level cache meanwhile.
const ROWS: usize = 64;
/// Panels that are multiplied with the same columns of those rows.
const PANELS: usize = 8;
/// Lines of sums, `[PANELS, ROWS, PANEL_ROWS]`.
const SUMS: usize = PANELS * ROWS * PANEL_ROWS;

macro_rules! block_weight {
    ($format:ident) => {
        impl Weight for $format::Block {
            const COLUMNS: usize = $format::COLUMNS;

            unsafe fn columns(
                isa: Isa,
                product: &Product<'_, Self>,
                y: Output,
                columns: Range<usize>,
            ) {
                // SAFETY: the caller's promise, passed on.
                unsafe {
                    match isa {
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx512 => avx512::$format::columns(product, y, columns),
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx2 => avx2::$format::columns(product, y, columns),
                        _ => portable::$format::columns(product, y, columns),
                    }
                }
            }
        }
    };
}

block_weight!(q8_0);
block_weight!(w4a16);
block_weight!(q4_k);
block_weight!(fp8);

/// The loops over an output, for one instruction set and one format. Expects `zero`, `load_f32`, `store`, `fma`, `sum`,
/// `sums` and `ROWS_IN_REGISTERS` around it, and the format's decoder in `codes`.
macro_rules! block_tiles {
    ($format:ident, $(#[$feature:meta])?) => {
        pub mod $format {
            use super::*;
            use super::codes::$format::{open, piece};
            use crate::ops::quantised::$format::{Block, COLUMNS};

            const PIECES: usize = COLUMNS / LANES;

            /// See [`Weight::columns`].
            $(#[$feature])?
            pub unsafe fn columns(product: &Product<'_, Block>, y: Output, columns: Range<usize>) {
                if product.m > ROWS_IN_REGISTERS {
                    let mut scratch = SCRATCH.take();
                    scratch.resize(PANEL + SUMS, Line([0.0; LANES]));
                    let (panel, lanes) = scratch.split_at_mut(PANEL);
                    for j in columns.clone().step_by(PANELS * PANEL_ROWS) {
                        for i in (0..product.m).step_by(ROWS) {
                            let columns = j..columns.end.min(j + PANELS * PANEL_ROWS);
                            // SAFETY: the columns are within `columns`, which the caller vouches for.
                            unsafe { over_panels(product, y, i..product.m.min(i + ROWS), columns, panel, lanes) };
                        }
                    }
                    SCRATCH.set(scratch);
                    return;
                }
                let mut j = columns.start;
                while j < columns.end {
                    let left = columns.end - j;
                    // SAFETY: `columns` and `m` bound every row and column; the caller vouches for them.
                    unsafe {
                        j += match (product.m, left) {
                            (0, _) => return,
                            (1, 8..) => tile::<1, 8>(product, y, j),
                            (1, 4..) => tile::<1, 4>(product, y, j),
                            (1, _) => tile::<1, 1>(product, y, j),
                            (2, 4..) => tile::<2, 4>(product, y, j),
                            (2, _) => tile::<2, 1>(product, y, j),
                            (3, 4..) => tile::<3, 4>(product, y, j),
                            (3, _) => tile::<3, 1>(product, y, j),
                            (4, 4..) => tile::<4, 4>(product, y, j),
                            (4, _) => tile::<4, 1>(product, y, j),
                            (5, 4..) => tile::<5, 4>(product, y, j),
                            (5, _) => tile::<5, 1>(product, y, j),
                            (6, 4..) => tile::<6, 4>(product, y, j),
                            (6, _) => tile::<6, 1>(product, y, j),
                            (7, 3..) => tile::<7, 3>(product, y, j),
                            (7, _) => tile::<7, 1>(product, y, j),
                            (_, 3..) => tile::<8, 3>(product, y, j),
                            _ => tile::<8, 1>(product, y, j),
                        }
                    }
                }
            }

            /// Outputs of at most [`ROWS`] rows and [`PANELS`] times [`PANEL_ROWS`] columns. If the columns are no whole
            /// number of panels, what the panel held before is multiplied too, and not written.
            $(#[$feature])?
            unsafe fn over_panels(
                product: &Product<'_, Block>,
                y: Output,
                rows: Range<usize>,
                columns: Range<usize>,
                panel: &mut [Line],
                lanes: &mut [Line],
            ) {
                let panels = columns.len().div_ceil(PANEL_ROWS);
                lanes[..panels * rows.len() * PANEL_ROWS].fill(Line([0.0; LANES]));
                for first in (0..product.k).step_by(PANEL_COLUMNS) {
                    let count = PANEL_COLUMNS.min(product.k - first);
                    let lanes = lanes.chunks_exact_mut(rows.len() * PANEL_ROWS);
                    for (j, lanes) in columns.clone().step_by(PANEL_ROWS).zip(lanes) {
                        for row in j..columns.end.min(j + PANEL_ROWS) {
                            let blocks = row * product.w_stride + first / COLUMNS;
                            let blocks = &product.w[blocks..][..count / COLUMNS];
                            decode(blocks, PANEL_ROWS * product.w_stride, &mut panel[row - j..]);
                        }
                        let panel = &panel[..count / LANES * PANEL_ROWS];
                        for (i, lanes) in rows.clone().step_by(4).zip(lanes.chunks_mut(4 * PANEL_ROWS)) {
                            // SAFETY: the rows are below `m`, and the columns below `k`.
                            unsafe {
                                match rows.end - i {
                                    1 => add::<1>(product, i, first, panel, lanes),
                                    2 => add::<2>(product, i, first, panel, lanes),
                                    3 => add::<3>(product, i, first, panel, lanes),
                                    _ => add::<4>(product, i, first, panel, lanes),
                                }
                            }
                        }
                    }
                }
                let lanes = lanes.chunks_exact(rows.len() * PANEL_ROWS);
                for (j, lanes) in columns.clone().step_by(PANEL_ROWS).zip(lanes) {
                    for (i, lanes) in rows.clone().zip(lanes.chunks_exact(PANEL_ROWS)) {
                        for (column, lanes) in (j..columns.end).zip(lanes) {
                            // SAFETY: the caller vouches for the output; a line has 16 elements.
                            unsafe {
                                let out = y.0.add(product.y_rows.row(i) * product.y_stride + column);
                                *out = sum(load_f32(lanes.0.as_ptr()));
                            }
                        }
                    }
                }
            }

            /// Decodes a row into every `PANEL_ROWS`-th line of a panel.
            #[inline]
            $(#[$feature])?
            fn decode(blocks: &[Block], ahead: usize, panel: &mut [Line]) {
                for (block, places) in blocks.iter().zip(panel.chunks_mut(PIECES * PANEL_ROWS)) {
                    for line in 0..size_of::<Block>().div_ceil(64) {
                        prefetch(std::ptr::from_ref(block).wrapping_add(ahead).cast::<u8>().wrapping_add(64 * line));
                    }
                    let opened = open(block);
                    for at in 0..PIECES {
                        // SAFETY: a line has 16 elements.
                        unsafe { store(piece(block, &opened, at), places[at * PANEL_ROWS].0.as_mut_ptr()) };
                    }
                }
            }

            /// Adds the products of a panel, which begins at column `first`, and rows `i..i + MR` to their lanes.
            #[inline]
            $(#[$feature])?
            unsafe fn add<const MR: usize>(
                product: &Product<'_, Block>,
                i: usize,
                first: usize,
                panel: &[Line],
                lanes: &mut [Line],
            ) {
                let lanes = &mut lanes[..MR * PANEL_ROWS];
                let mut x = [product.x.as_ptr(); MR];
                let mut acc = [[zero(); PANEL_ROWS]; MR];
                // SAFETY: `multiply_each` has asserted that each named row holds `k` elements within its slice; the
                // caller's columns are below that. A line has 16 elements.
                unsafe {
                    for r in 0..MR {
                        x[r] = x[r].add(product.x_rows.row(i + r) * product.x_stride + first);
                        for c in 0..PANEL_ROWS {
                            acc[r][c] = load_f32(lanes[r * PANEL_ROWS + c].0.as_ptr());
                        }
                    }
                    for (at, weights) in panel.as_chunks::<PANEL_ROWS>().0.iter().enumerate() {
                        let mut wide = [zero(); PANEL_ROWS];
                        for c in 0..PANEL_ROWS {
                            wide[c] = load_f32(weights[c].0.as_ptr());
                        }
                        for r in 0..MR {
                            let row = load_f32(x[r].add(at * LANES));
                            for c in 0..PANEL_ROWS {
                                acc[r][c] = fma(row, wide[c], acc[r][c]);
                            }
                        }
                    }
                    for r in 0..MR {
                        for c in 0..PANEL_ROWS {
                            store(acc[r][c], lanes[r * PANEL_ROWS + c].0.as_mut_ptr());
                        }
                    }
                }
            }

            /// Outputs `[0..MR, j..j + NR]`; returns `NR`. Accumulators and weights stay in registers.
            #[inline]
            $(#[$feature])?
            unsafe fn tile<const MR: usize, const NR: usize>(
                product: &Product<'_, Block>,
                y: Output,
                j: usize,
            ) -> usize {
                let mut x = [product.x.as_ptr(); MR];
                let mut w = [product.w.as_ptr(); NR];
                let mut acc = [[zero(); NR]; MR];
                // SAFETY: `multiply_each` has asserted that each named row holds `k` elements within its slice and
                // that each output lies within `y`.
                unsafe {
                    for r in 0..MR {
                        x[r] = x[r].add(product.x_rows.row(r) * product.x_stride);
                    }
                    for c in 0..NR {
                        w[c] = w[c].add((j + c) * product.w_stride);
                    }
                    for at in 0..product.k / COLUMNS {
                        let mut opened = [open(&*w[0].add(at)); NR];
                        for c in 0..NR {
                            opened[c] = open(&*w[c].add(at));
                            // Rows are too short for the hardware to see them coming.
                            let next = w[c].wrapping_add(NR * product.w_stride + at).cast::<u8>();
                            for line in 0..size_of::<Block>().div_ceil(64) {
                                prefetch(next.wrapping_add(64 * line));
                            }
                        }
                        for p in 0..PIECES {
                            let mut wide = [zero(); NR];
                            for c in 0..NR {
                                wide[c] = piece(&*w[c].add(at), &opened[c], p);
                            }
                            for r in 0..MR {
                                let row = load_f32(x[r].add(at * COLUMNS + p * LANES));
                                for c in 0..NR {
                                    acc[r][c] = fma(row, wide[c], acc[r][c]);
                                }
                            }
                        }
                    }
                    for r in 0..MR {
                        let out = y.0.add(product.y_rows.row(r) * product.y_stride + j);
                        for (c, four) in acc[r].as_chunks::<4>().0.iter().enumerate() {
                            out.add(4 * c).cast::<[f32; 4]>().write_unaligned(sums(*four));
                        }
                        for c in NR - NR % 4..NR {
                            *out.add(c) = sum(acc[r][c]);
                        }
                    }
                }
                NR
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::*;
    use crate::ops::codes::avx512 as codes;
    use crate::ops::simd::avx512::*;

    /// Rows of activations up to which weights are decoded in registers.
    const ROWS_IN_REGISTERS: usize = 8;

    block_tiles!(q8_0, #[target_feature(enable = "avx512f,avx512dq,avx512vl")]);
    block_tiles!(w4a16, #[target_feature(enable = "avx512f,avx512dq,avx512vl")]);
    block_tiles!(q4_k, #[target_feature(enable = "avx512f,avx512dq,avx512vl")]);
    block_tiles!(fp8, #[target_feature(enable = "avx512f,avx512dq,avx512vl")]);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::*;
    use crate::ops::codes::avx2 as codes;
    use crate::ops::simd::avx2::*;

    /// Rows of activations up to which weights are decoded in registers.
    const ROWS_IN_REGISTERS: usize = 4;

    block_tiles!(q8_0, #[target_feature(enable = "avx2,fma")]);
    block_tiles!(w4a16, #[target_feature(enable = "avx2,fma")]);
    block_tiles!(q4_k, #[target_feature(enable = "avx2,fma")]);
    block_tiles!(fp8, #[target_feature(enable = "avx2,fma")]);
}

mod portable {
    use super::*;
    use crate::ops::codes::portable as codes;
    use crate::ops::simd::portable::*;

    /// Rows of activations up to which weights are decoded in registers.
    const ROWS_IN_REGISTERS: usize = 4;

    block_tiles!(q8_0,);
    block_tiles!(w4a16,);
    block_tiles!(q4_k,);
    block_tiles!(fp8,);
}

#[cfg(test)]
mod tests;
