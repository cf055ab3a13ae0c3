//! Products with quantised weights: blocks are decoded on the way into the same loops, in the same order of additions.
//!
//! A few rows (`ROWS_IN_REGISTERS` of an instruction set) are multiplied with weights decoded in registers, more with panels
//! of decoded weights. Both give the bits of the product with dequantised weights.

use super::*;
use crate::ops::quantised::{fp8, q4_k, q8_0, w4a16};

#[macro_use]
mod panels;

use panels::{Line, PANEL, PANEL_COLUMNS, PANEL_ROWS, PANELS, ROWS, SCRATCH, SUMS, shares};

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

/// The loops over an output, for one instruction set and one format. Expects `Lanes`, `zero`, `load_f32`, `store`, `fma`,
/// `sum`, `sums` and `ROWS_IN_REGISTERS` around it, what `panels!` expects, and the format's decoder in `codes`.
macro_rules! block_tiles {
    ($format:ident, $(#[$feature:meta])?) => {
        pub mod $format {
            use super::codes::$format::{open, piece};
            use super::*;
            use crate::ops::quantised::$format::{Block, COLUMNS};

            const PIECES: usize = COLUMNS / LANES;
            /// Pieces in a row that are written out. Of `q4_k`, four have the low and the high halves of the same bytes, and
            /// this decides which when it is compiled; of the others all are alike.
            const RUN: usize = if PIECES == 16 { 4 } else { 1 };

            /// See [`Weight::columns`].
            $(#[$feature])?
            pub unsafe fn columns(product: &Product<'_, Block>, y: Output, columns: Range<usize>) {
                if product.m > ROWS_IN_REGISTERS {
                    // SAFETY: the caller's promise, passed on.
                    unsafe { over_panels(product, y, columns) };
                    return;
                }
                let mut j = columns.start;
                while j < columns.end {
                    let left = columns.end - j;
                    // SAFETY: `columns` and `m` bound every row and column; the caller vouches for them.
                    unsafe {
                        j += match (product.m, left) {
                            (0, _) => return,
                            (1, 8..) if RUN == 1 => tile::<1, 8>(product, y, j),
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

            panels!($($feature)?);

            /// Where rows `i..i + MR` of the activations begin, but for the first `skipped` columns.
            #[inline]
            $(#[$feature])?
            unsafe fn starts<const MR: usize>(
                product: &Product<'_, Block>,
                i: usize,
                skipped: usize,
            ) -> [*const f32; MR] {
                let mut x = [product.x.as_ptr(); MR];
                for r in 0..MR {
                    // SAFETY: the caller's rows and columns are there.
                    x[r] = unsafe { x[r].add(product.x_rows.row(i + r) * product.x_stride + skipped) };
                }
                x
            }

            /// Adds the products of `part` of rows `w` of the weights and rows `i..i + MR`, and leaves the weights in the
            /// panel if they are to be kept.
            #[inline]
            $(#[$feature])?
            unsafe fn decoded<const MR: usize, const NR: usize, const KEPT: bool>(
                product: &Product<'_, Block>,
                i: usize,
                w: [usize; NR],
                part: Range<usize>,
                panel: &mut [Line],
                acc: &mut [[Lanes; NR]; MR],
            ) {
                let blocks = part.len() / COLUMNS;
                let panel = if KEPT { &mut panel[..blocks * PIECES * NR] } else { panel };
                // SAFETY: `multiply_each` has asserted that each named row holds `k` elements within its slice; `part` is
                // below that. A line has 16 elements.
                unsafe {
                    let x = starts::<MR>(product, i, part.start);
                    let mut rows = [product.w.as_ptr(); NR];
                    for c in 0..NR {
                        rows[c] = rows[c].add(w[c] * product.w_stride + part.start / COLUMNS);
                    }
                    for at in 0..blocks {
                        let mut opened = [open(&*rows[0].add(at)); NR];
                        for c in 1..NR {
                            opened[c] = open(&*rows[c].add(at));
                        }
                        for c in 0..NR {
                            // Rows are too short for the hardware to see them coming.
                            let next = rows[c].wrapping_add(NR * product.w_stride + at).cast::<u8>();
                            for line in 0..size_of::<Block>().div_ceil(64) {
                                prefetch(next.wrapping_add(64 * line));
                            }
                        }
                        for run in (0..PIECES).step_by(RUN) {
                            for p in run..run + RUN {
                                let mut wide = [zero(); NR];
                                for c in 0..NR {
                                    wide[c] = piece(&*rows[c].add(at), &opened[c], p);
                                    if KEPT {
                                        store(wide[c], panel[(at * PIECES + p) * NR + c].0.as_mut_ptr());
                                    }
                                }
                                for r in 0..MR {
                                    let row = load_f32(x[r].add(at * COLUMNS + p * LANES));
                                    for c in 0..NR {
                                        acc[r][c] = fma(row, wide[c], acc[r][c]);
                                    }
                                }
                            }
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
                let mut acc = [[zero(); NR]; MR];
                // SAFETY: the caller's promise, passed on; each output lies within `y`.
                unsafe {
                    let w = std::array::from_fn(|c| j + c);
                    decoded::<MR, NR, false>(product, 0, w, 0..product.k, &mut [], &mut acc);
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
    use crate::ops::simd::avx512::{self as register, *};

    const ROWS_IN_REGISTERS: usize = 8;
    const FIRST_ROWS: usize = 4;
    /// As fast as six, for which there are registers too, from 24 rows on, and within 4 % below.
    const NEXT_ROWS: usize = 4;

    block_tiles!(q8_0, #[target_feature(enable = "avx512f,avx512dq,avx512vl")]);
    block_tiles!(w4a16, #[target_feature(enable = "avx512f,avx512dq,avx512vl")]);
    block_tiles!(q4_k, #[target_feature(enable = "avx512f,avx512dq,avx512vl")]);
    block_tiles!(fp8, #[target_feature(enable = "avx512f,avx512dq,avx512vl")]);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::*;
    use crate::ops::codes::avx2 as codes;
    use crate::ops::simd::avx2::{eight as register, *};

    const ROWS_IN_REGISTERS: usize = 4;
    const FIRST_ROWS: usize = 1;
    /// With three, one of 12 accumulators does not stay in a register, and all wait for it: that takes 1.7 times as long.
    const NEXT_ROWS: usize = 2;

    block_tiles!(q8_0, #[target_feature(enable = "avx2,fma")]);
    block_tiles!(w4a16, #[target_feature(enable = "avx2,fma")]);
    block_tiles!(q4_k, #[target_feature(enable = "avx2,fma")]);
    block_tiles!(fp8, #[target_feature(enable = "avx2,fma")]);
}

mod portable {
    use super::*;
    use crate::ops::codes::portable as codes;
    use crate::ops::simd::portable::{self as register, *};

    const ROWS_IN_REGISTERS: usize = 4;
    const FIRST_ROWS: usize = 1;
    /// Sixteen lanes are four registers of most machines without AVX.
    const NEXT_ROWS: usize = 1;

    block_tiles!(q8_0,);
    block_tiles!(w4a16,);
    block_tiles!(q4_k,);
    block_tiles!(fp8,);
}

#[cfg(test)]
mod tests;
