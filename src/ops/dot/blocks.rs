//! Products with quantised weights: blocks are decoded on the way into the same loops, in the same order of additions.
//!
//! A few rows are multiplied with weights decoded in registers. For more, four rows of weights at a time are decoded into
//! a panel that all rows share, so that each weight is read and decoded once. Both give the bits of the product with
//! dequantised weights.

use std::cell::Cell;

use super::*;
use crate::ops::quantised::{fp8, q4_k, q8_0, w4a16};

thread_local! {
    /// Decoded rows of weights, `[PANEL, k]`; allocated once for each thread.
    static DECODED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Rows of weights that are decoded at once: as many as a tile of the dense product takes.
const PANEL: usize = 4;
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
/// and `sums` around it, the format's decoder in `codes` and the dense product in `dense`.
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
                    let mut decoded = DECODED.take();
                    decoded.resize(decoded.len().max(PANEL * product.k), 0.0);
                    while j < columns.end {
                        let n = PANEL.min(columns.end - j);
                        // SAFETY: `n` rows from `j` on are below the end, and the panel has room for them; the
                        // product with it is as large as this one's columns.
                        unsafe {
                            decode(product, j, n, &mut decoded);
                            let panel = product.over_panel(&decoded, n);
                            dense::load_f32::columns(&panel, Output(y.0.add(j)), 0..n);
                        }
                        j += n;
                    }
                    DECODED.set(decoded);
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

            /// Decodes rows `j..j + n` of the weights into the panel.
            #[inline]
            $(#[$feature])?
            unsafe fn decode(product: &Product<'_, Block>, j: usize, n: usize, panel: &mut [f32]) {
                let rows = panel.chunks_exact_mut(product.k.max(1)).take(n);
                for (row, decoded) in rows.enumerate() {
                    let blocks = &product.w[(j + row) * product.w_stride..];
                    let columns = decoded.as_chunks_mut::<COLUMNS>().0;
                    for (block, columns) in blocks.iter().zip(columns) {
                        let header = header(block);
                        for piece in 0..COLUMNS / LANES {
                            // SAFETY: the block is whole, and as many columns are.
                            unsafe {
                                let lanes = codes::$format(block.as_ptr(), &header, piece);
                                store(lanes, columns.as_mut_ptr().add(piece * LANES));
                            }
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

impl<W> Product<'_, W> {
    /// The same product with `n` rows of dequantised weights.
    fn over_panel<'a>(&'a self, weights: &'a [f32], n: usize) -> Product<'a, f32> {
        Product {
            x: self.x,
            x_stride: self.x_stride,
            x_rows: self.x_rows,
            m: self.m,
            w: weights,
            w_stride: self.k,
            n,
            k: self.k,
            y_rows: self.y_rows,
            y_stride: self.y_stride,
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::super::avx512 as dense;
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
    use super::super::avx2 as dense;
    use super::*;
    use crate::ops::codes::avx2 as codes;
    use crate::ops::simd::avx2::*;

    block_tiles!(q8_0, #[target_feature(enable = "avx2,fma")]);
    block_tiles!(w4a16, #[target_feature(enable = "avx2,fma")]);
    block_tiles!(q4_k, #[target_feature(enable = "avx2,fma")]);
    block_tiles!(fp8, #[target_feature(enable = "avx2,fma")]);
}

mod portable {
    use super::super::portable as dense;
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
