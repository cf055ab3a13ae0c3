//! Products with quantised weights: blocks are decoded on the way into the same loops, in the same order of additions.
//!
//! A few rows are multiplied with weights decoded in registers. For more, a part of four rows of weights at a time is
//! decoded into a panel that all rows share, so that each weight is read and decoded once; the lanes of each sum wait in
//! memory for the next part. Both give the bits of the product with dequantised weights.

use std::cell::Cell;

use super::*;
use crate::ops::quantised::{fp8, q4_k, q8_0, w4a16};

thread_local! {
    /// A panel, `[PANEL_COLUMNS / LANES, PANEL_ROWS, LANES]`, then lanes of sums, `[m, PANEL_ROWS, LANES]`; as large as
    /// its thread's largest step needed.
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Rows of weights that are decoded at once.
const PANEL_ROWS: usize = 4;
/// Columns that are decoded at once, whole blocks of any format: 16 KiB with the rows, half of a first-level cache. Rows
/// alternate every 16 columns, because whole rows would lie 4 KiB apart, and share the same few places of that cache.
const PANEL_COLUMNS: usize = 1024;
const PANEL: usize = PANEL_ROWS * PANEL_COLUMNS;
/// Rows of activations up to which decoding in registers costs no more than a panel: one tile's.
const ROWS_IN_REGISTERS: usize = 4;

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

/// The loops over an output, for one instruction set and one format. Expects `zero`, `load_f32`, `store`, `fma`, `sum`
/// and `sums` around it, and the format's decoder in `codes`.
macro_rules! block_tiles {
    ($format:ident, $(#[$feature:meta])?) => {
        pub mod $format {
            use super::*;
            use crate::ops::quantised::$format::{Block, COLUMNS, header};

            /// See [`Weight::columns`].
            $(#[$feature])?
            pub unsafe fn columns(product: &Product<'_, Block>, y: Output, columns: Range<usize>) {
                let mut j = columns.start;
                if product.m > ROWS_IN_REGISTERS {
                    let mut scratch = SCRATCH.take();
                    let size = PANEL + product.m * PANEL_ROWS * LANES;
                    scratch.resize(scratch.len().max(size), 0.0);
                    while j < columns.end {
                        let n = PANEL_ROWS.min(columns.end - j);
                        let (panel, lanes) = scratch.split_at_mut(PANEL);
                        // SAFETY: `n` rows from `j` on are within `columns`; the caller vouches for them. There are
                        // lanes for `m` rows.
                        unsafe { over_panels(product, y, j, n, panel, lanes) };
                        j += n;
                    }
                    SCRATCH.set(scratch);
                    return;
                }
                while j < columns.end {
                    let left = columns.end - j;
                    // SAFETY: `columns` and `m` bound every row and column; the caller vouches for them.
                    unsafe {
                        match (product.m, left) {
                            (0, _) => return,
                            (1, 8..) => tile::<1, 8>(product, y, j),
                            (1, 4..) => tile::<1, 4>(product, y, j),
                            (1, _) => tile::<1, 1>(product, y, j),
                            (2, 4..) => tile::<2, 4>(product, y, j),
                            (2, _) => tile::<2, 1>(product, y, j),
                            (3, 4..) => tile::<3, 4>(product, y, j),
                            (3, _) => tile::<3, 1>(product, y, j),
                            (_, 4..) => tile::<4, 4>(product, y, j),
                            _ => tile::<4, 1>(product, y, j),
                        }
                    }
                    j += match (product.m, left) {
                        (1, 8..) => 8,
                        (_, 4..) => 4,
                        _ => 1,
                    };
                }
            }

            /// Outputs `[0..m, j..j + n]`, where `n` is at most [`PANEL_ROWS`]. If it is less, what the panel held before
            /// is multiplied too, and not written.
            $(#[$feature])?
            unsafe fn over_panels(
                product: &Product<'_, Block>,
                y: Output,
                j: usize,
                n: usize,
                panel: &mut [f32],
                lanes: &mut [f32],
            ) {
                lanes[..product.m * PANEL_ROWS * LANES].fill(0.0);
                for first in (0..product.k).step_by(PANEL_COLUMNS) {
                    let count = PANEL_COLUMNS.min(product.k - first);
                    for row in 0..n {
                        let blocks = (j + row) * product.w_stride + first / COLUMNS;
                        let blocks = &product.w[blocks..][..count / COLUMNS];
                        decode(blocks, &mut panel[row * LANES..]);
                    }
                    for i in (0..product.m).step_by(4) {
                        // SAFETY: the rows are below `m`, and the columns below `k`.
                        unsafe {
                            match product.m - i {
                                1 => add::<1>(product, i, first, count, panel, lanes),
                                2 => add::<2>(product, i, first, count, panel, lanes),
                                3 => add::<3>(product, i, first, count, panel, lanes),
                                _ => add::<4>(product, i, first, count, panel, lanes),
                            }
                        }
                    }
                }
                for (i, lanes) in lanes.chunks_exact(PANEL_ROWS * LANES).take(product.m).enumerate() {
                    for (c, lanes) in lanes.chunks_exact(LANES).take(n).enumerate() {
                        // SAFETY: the caller vouches for the output; a chunk has 16 elements.
                        unsafe {
                            let out = y.0.add(product.y_rows.row(i) * product.y_stride + j + c);
                            *out = sum(load_f32(lanes.as_ptr()));
                        }
                    }
                }
            }

            /// Decodes a row into the panel's sixteens that begin at every `PANEL_ROWS`-th place.
            #[inline]
            $(#[$feature])?
            fn decode(blocks: &[Block], panel: &mut [f32]) {
                let mut places = panel.chunks_mut(PANEL_ROWS * LANES);
                for block in blocks {
                    let header = header(block);
                    for piece in 0..COLUMNS / LANES {
                        let Some(to) = places.next().and_then(|place| place.first_chunk_mut::<LANES>()) else {
                            return;
                        };
                        // SAFETY: the block is whole, and the place has 16 elements.
                        unsafe { store(codes::$format(block.as_ptr(), &header, piece), to.as_mut_ptr()) };
                    }
                }
            }

            /// Adds the products of columns `first..first + count` of rows `i..i + MR` to their lanes.
            #[inline]
            $(#[$feature])?
            unsafe fn add<const MR: usize>(
                product: &Product<'_, Block>,
                i: usize,
                first: usize,
                count: usize,
                panel: &[f32],
                lanes: &mut [f32],
            ) {
                let lanes = &mut lanes[i * PANEL_ROWS * LANES..][..MR * PANEL_ROWS * LANES];
                let panel = &panel[..PANEL];
                let mut x = [product.x.as_ptr(); MR];
                let mut acc = [[zero(); PANEL_ROWS]; MR];
                // SAFETY: `multiply_each` has asserted that each named row holds `k` elements within its slice; the
                // caller's columns are below that, and `count` is at most the panel's width.
                unsafe {
                    for r in 0..MR {
                        x[r] = x[r].add(product.x_rows.row(i + r) * product.x_stride + first);
                        for c in 0..PANEL_ROWS {
                            acc[r][c] = load_f32(lanes.as_ptr().add((r * PANEL_ROWS + c) * LANES));
                        }
                    }
                    for at in (0..count).step_by(LANES) {
                        let mut wide = [zero(); PANEL_ROWS];
                        for c in 0..PANEL_ROWS {
                            wide[c] = load_f32(panel.as_ptr().add(at * PANEL_ROWS + c * LANES));
                        }
                        for r in 0..MR {
                            let row = load_f32(x[r].add(at));
                            for c in 0..PANEL_ROWS {
                                acc[r][c] = fma(row, wide[c], acc[r][c]);
                            }
                        }
                    }
                    for r in 0..MR {
                        for c in 0..PANEL_ROWS {
                            store(acc[r][c], lanes.as_mut_ptr().add((r * PANEL_ROWS + c) * LANES));
                        }
                    }
                }
            }

            /// Outputs `[0..MR, j..j + NR]`. Sixteen accumulators at most, so that they stay in registers.
            #[inline]
            $(#[$feature])?
            unsafe fn tile<const MR: usize, const NR: usize>(
                product: &Product<'_, Block>,
                y: Output,
                j: usize,
            ) {
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
                        let mut headers = [header(&*w[0].add(at)); NR];
                        for c in 0..NR {
                            headers[c] = header(&*w[c].add(at));
                            // Rows are too short for the hardware to see them coming.
                            prefetch(w[c].wrapping_add(NR * product.w_stride + at));
                        }
                        for piece in 0..COLUMNS / LANES {
                            let mut wide = [zero(); NR];
                            for c in 0..NR {
                                let block = w[c].add(at).cast();
                                wide[c] = codes::$format(block, &headers[c], piece);
                            }
                            for r in 0..MR {
                                let row = load_f32(x[r].add(at * COLUMNS + piece * LANES));
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
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::*;
    use crate::ops::codes::avx512 as codes;
    use crate::ops::simd::avx512::*;

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

    block_tiles!(q8_0, #[target_feature(enable = "avx2,fma")]);
    block_tiles!(w4a16, #[target_feature(enable = "avx2,fma")]);
    block_tiles!(q4_k, #[target_feature(enable = "avx2,fma")]);
    block_tiles!(fp8, #[target_feature(enable = "avx2,fma")]);
}

mod portable {
    use super::*;
    use crate::ops::codes::portable as codes;
    use crate::ops::simd::portable::*;

    block_tiles!(q8_0,);
    block_tiles!(w4a16,);
    block_tiles!(q4_k,);
    block_tiles!(fp8,);
}

#[cfg(test)]
mod tests;
