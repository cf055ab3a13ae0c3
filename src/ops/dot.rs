//! Dot products of activation rows with weight rows: the inner loop of every linear layer and of attention scores.
//!
//! One order for every output, whatever tile it falls in and whatever instruction set runs: lane `j` of 16 takes the
//! products at `k = j, j + 16, …` by fused multiply-add, a tail is filled up with zeros, and the lanes are added
//! halves onto halves.
#![allow(unsafe_code)] // SIMD loads, and columns of one output written by several threads

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::lanes::{Isa, LANES};

mod blocks;

/// Products of `x` rows with all rows of `w`: `y[i, j] = x[rows(i)] · w[j]`.
pub struct Product<'a, W> {
    /// Activations, of which `rows` picks.
    pub x: &'a [f32],
    /// Elements from one row of `x` to the next.
    pub x_stride: usize,
    /// The row of `x` that makes each output row.
    pub x_rows: Rows<'a>,
    /// How many output rows.
    pub m: usize,
    /// Weights; row `j` begins at `j * w_stride` and has `k / W::COLUMNS` elements.
    pub w: &'a [W],
    /// Elements from one row of `w` to the next.
    pub w_stride: usize,
    /// How many rows of `w`, and columns of the output.
    pub n: usize,
    /// Length of a row.
    pub k: usize,
    /// The row of `y` that receives each output row; no two the same.
    pub y_rows: Rows<'a>,
    /// Elements from one row of `y` to the next.
    pub y_stride: usize,
}

/// Which row of a matrix an index means.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    /// Row `first + i`.
    From(usize),
    /// Row `list[i] / divisor`.
    Listed(&'a [u32], usize),
}

impl Rows<'_> {
    #[inline(always)]
    fn row(&self, i: usize) -> usize {
        match self {
            Rows::From(first) => first + i,
            Rows::Listed(list, divisor) => list[i] as usize / divisor,
        }
    }

    /// The largest row that the first `m` indices mean.
    fn last(&self, m: usize) -> usize {
        match self {
            Rows::From(first) => first + m - 1,
            Rows::Listed(list, divisor) => list[..m]
                .iter()
                .max()
                .map_or(0, |&row| row as usize / divisor),
        }
    }
}

/// What a row of weights consists of: `f32`, `bf16` that is widened in registers, or a quantised block.
pub trait Weight: Copy + Send + Sync + 'static {
    /// Weights in one element; divides the length of a row.
    const COLUMNS: usize = 1;

    /// Computes the columns of a product with one instruction set.
    ///
    /// # Safety
    /// The machine has `isa`; every row of `x` and `w` that the product names lies within its slice, and every row
    /// of the output within what `y` points to; nothing else touches those columns meanwhile.
    unsafe fn columns(isa: Isa, product: &Product<'_, Self>, y: Output, columns: Range<usize>)
    where
        Self: Sized;
}

/// The output of a product, shared by threads that write different columns.
#[derive(Clone, Copy)]
pub struct Output(*mut f32);

// SAFETY: threads write disjoint columns (see `multiply`), so the pointer may be shared.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// Computes a product into `y`, on several threads when that pays. The result does not depend on how many.
///
/// # Panics
/// If a row lies outside of its slice: the ops check their shapes before they come here.
pub fn multiply<W: Weight>(product: &Product<'_, W>, y: &mut [f32]) {
    multiply_each(
        Isa::best(),
        TASK_OPERATIONS,
        std::slice::from_ref(product),
        y,
    );
}

/// Computes a small product into `y` on this thread.
///
/// # Panics
/// As [`multiply`].
pub fn multiply_here<W: Weight>(product: &Product<'_, W>, y: &mut [f32]) {
    multiply_each(Isa::best(), usize::MAX, std::slice::from_ref(product), y);
}

/// Computes several products with equally many columns into disjoint rows of `y`. Threads share the work by columns,
/// so that each weight is read once and a crowded product keeps no thread waiting.
///
/// # Panics
/// As [`multiply`].
pub fn multiply_each<W: Weight>(isa: Isa, task: usize, products: &[Product<'_, W>], y: &mut [f32]) {
    let Some(n) = products.first().map(|product| product.n) else {
        return;
    };
    assert!(
        isa == Isa::best() || Isa::available().contains(&isa),
        "no {isa:?} here. This is a bug."
    );
    let mut operations = 0usize;
    for product in products {
        assert!(product.n == n, "products differ in columns. This is a bug.");
        product.check(y.len());
        operations += 2 * product.m * n * product.k;
    }
    let y = Output(y.as_mut_ptr());
    let columns = |columns: Range<usize>| {
        for product in products {
            // SAFETY: the instruction set was asserted above and the bounds by `check`; calls that run at the same
            // time are given disjoint ranges of columns.
            unsafe { W::columns(isa, product, y, columns.clone()) }
        }
    };
    let tasks = if operations / 2 < task {
        1
    } else {
        (operations / task).min(rayon::current_num_threads())
    };
    if tasks == 1 {
        return columns(0..n);
    }
    let width = n.div_ceil(tasks).next_multiple_of(COLUMNS);
    (0..n.div_ceil(width))
        .into_par_iter()
        .for_each(|part| columns(part * width..n.min((part + 1) * width)));
}

impl<W: Weight> Product<'_, W> {
    /// Asserts that every row lies within its slice, for an output of `len` elements.
    fn check(&self, len: usize) {
        let fits = |rows: Rows<'_>, count: usize, stride: usize, width: usize, len: usize| {
            count == 0 || width == 0 || rows.last(count) * stride + width <= len
        };
        assert!(
            fits(self.x_rows, self.m, self.x_stride, self.k, self.x.len()),
            "x is short. This is a bug."
        );
        assert!(
            self.k.is_multiple_of(W::COLUMNS),
            "k is no whole number of blocks. This is a bug."
        );
        let width = self.k / W::COLUMNS;
        assert!(
            fits(Rows::From(0), self.n, self.w_stride, width, self.w.len()),
            "w is short. This is a bug."
        );
        assert!(
            fits(self.y_rows, self.m, self.y_stride, self.n, len),
            "y is short. This is a bug."
        );
    }
}

macro_rules! weight {
    ($weight:ty, $load:ident) => {
        impl Weight for $weight {
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
                        Isa::Avx512 => avx512::$load::columns(product, y, columns),
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx2 => avx2::$load::columns(product, y, columns),
                        _ => portable::$load::columns(product, y, columns),
                    }
                }
            }
        }
    };
}

weight!(f32, load_f32);
weight!(bf16, load_bf16);

/// The loops over an output, for one instruction set and one weight type. Expects `Lanes`, `zero`, `load_f32`,
/// `$load`, `fma` and `sum` around it.
macro_rules! tiles {
    ($weight:ty, $load:ident, $(#[$feature:meta])?) => {
        pub mod $load {
            use super::*;

            /// See [`Weight::columns`].
            $(#[$feature])?
            pub unsafe fn columns(product: &Product<'_, $weight>, y: Output, columns: Range<usize>) {
                let mut j = columns.start;
                while j < columns.end {
                    // SAFETY: `columns` and `m` bound every row and column; the caller vouches for them.
                    unsafe {
                        let left = columns.end - j;
                        if product.m == 1 && left >= 8 {
                            tile::<1, 8>(product, y, 0, j);
                            j += 8;
                        } else if left >= 4 {
                            rows::<4>(product, y, j);
                            j += 4;
                        } else {
                            rows::<1>(product, y, j);
                            j += 1;
                        }
                    }
                }
            }

            #[inline]
            $(#[$feature])?
            unsafe fn rows<const NR: usize>(product: &Product<'_, $weight>, y: Output, j: usize) {
                let mut i = 0;
                while i < product.m {
                    // SAFETY: each arm's rows are below `m`.
                    unsafe {
                        match product.m - i {
                            1 => tile::<1, NR>(product, y, i, j),
                            2 => tile::<2, NR>(product, y, i, j),
                            3 => tile::<3, NR>(product, y, i, j),
                            _ => tile::<4, NR>(product, y, i, j),
                        }
                    }
                    i += 4;
                }
            }

            /// Outputs `[i..i + MR, j..j + NR]`. Sixteen accumulators at most, so that they stay in registers.
            #[inline]
            $(#[$feature])?
            unsafe fn tile<const MR: usize, const NR: usize>(
                product: &Product<'_, $weight>,
                y: Output,
                i: usize,
                j: usize,
            ) {
                let k = product.k;
                let whole = k - k % LANES;
                let mut x = [product.x.as_ptr(); MR];
                let mut w = [product.w.as_ptr(); NR];
                let mut acc = [[zero(); NR]; MR];
                // SAFETY: `multiply_with` has asserted that each named row holds `k` elements within its slice and
                // that each output lies within `y`; loads past `whole` go through zero-filled copies.
                unsafe {
                    for r in 0..MR {
                        x[r] = x[r].add(product.x_rows.row(i + r) * product.x_stride);
                    }
                    for c in 0..NR {
                        w[c] = w[c].add((j + c) * product.w_stride);
                    }
                    let mut at = 0;
                    while at < whole {
                        let mut wide = [zero(); NR];
                        for c in 0..NR {
                            wide[c] = super::$load(w[c].add(at));
                            if i == 0 {
                                // Rows are too short for the hardware to see them coming.
                                prefetch(w[c].wrapping_add(NR * product.w_stride + at));
                            }
                        }
                        for r in 0..MR {
                            let row = super::load_f32(x[r].add(at));
                            for c in 0..NR {
                                acc[r][c] = fma(row, wide[c], acc[r][c]);
                            }
                        }
                        at += LANES;
                    }
                    if whole < k {
                        let mut wide = [zero(); NR];
                        for c in 0..NR {
                            let tail = filled(w[c].add(whole), k - whole, <$weight>::from_bits(0));
                            wide[c] = super::$load(tail.as_ptr());
                        }
                        for r in 0..MR {
                            let tail = filled(x[r].add(whole), k - whole, 0.0);
                            let row = super::load_f32(tail.as_ptr());
                            for c in 0..NR {
                                acc[r][c] = fma(row, wide[c], acc[r][c]);
                            }
                        }
                    }
                    for r in 0..MR {
                        let out = y.0.add(product.y_rows.row(i + r) * product.y_stride + j);
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

/// The `count` elements at `from`, then zeros.
///
/// # Safety
/// `from` points to `count` elements, fewer than [`LANES`].
#[inline(always)]
unsafe fn filled<T: Copy>(from: *const T, count: usize, zero: T) -> [T; LANES] {
    let mut lanes = [zero; LANES];
    for (lane, value) in lanes.iter_mut().enumerate().take(count) {
        // SAFETY: `lane < count`.
        *value = unsafe { *from.add(lane) };
    }
    lanes
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::super::simd::avx512::*;
    use super::*;

    tiles!(f32, load_f32, #[target_feature(enable = "avx512f,avx512dq,avx512vl")]);
    tiles!(bf16, load_bf16, #[target_feature(enable = "avx512f,avx512dq,avx512vl")]);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::super::simd::avx2::*;
    use super::*;

    tiles!(f32, load_f32, #[target_feature(enable = "avx2,fma")]);
    tiles!(bf16, load_bf16, #[target_feature(enable = "avx2,fma")]);
}

mod portable {
    use super::super::simd::portable::*;
    use super::*;

    tiles!(f32, load_f32,);
    tiles!(bf16, load_bf16,);
}

/// Columns are handed to threads in multiples of this, a cache line of outputs.
const COLUMNS: usize = 16;

/// Floating-point operations that are worth another thread: some 20 µs of work, well above the cost of waking one.
pub const TASK_OPERATIONS: usize = 1 << 20;

#[cfg(test)]
mod tests;
