//! Weighted sums of rows: how attention adds up values.
//!
//! Each element of a sum takes its terms one after the other in the order of the rows, by fused multiply-add, on
//! every instruction set.
#![allow(unsafe_code)] // SIMD loads and stores

use super::lanes::{Isa, LANES};

/// Several sums over the same rows: `out[h] += Σ weights[h][j] · rows[j]`.
pub struct WeightedSum<'a> {
    /// Weight `j` of sum `h` is at `h * weight_stride + j`.
    pub weights: &'a [f32],
    /// Elements from one sum's weights to the next's.
    pub weight_stride: usize,
    /// Row `j` begins at `j * stride`.
    pub rows: &'a [f32],
    /// Elements from one row to the next.
    pub stride: usize,
    /// How many rows.
    pub count: usize,
    /// Length of a row and of a sum.
    pub dim: usize,
}

impl WeightedSum<'_> {
    /// Adds to the sums in `out`, `[sums, dim]`.
    ///
    /// # Panics
    /// If a weight or a row lies outside of its slice: the op has checked its shapes.
    pub fn add_to(&self, out: &mut [f32]) {
        self.add_with(Isa::best(), out);
    }

    fn add_with(&self, isa: Isa, out: &mut [f32]) {
        let sums = out.len() / self.dim.max(1);
        if sums == 0 || self.count == 0 {
            return;
        }
        let fits = |rows, stride: usize, width, len| (rows - 1) * stride + width <= len;
        assert!(
            fits(sums, self.weight_stride, self.count, self.weights.len()),
            "weights are short. This is a bug."
        );
        assert!(
            fits(self.count, self.stride, self.dim, self.rows.len()),
            "rows are short. This is a bug."
        );
        assert!(isa <= Isa::best(), "no {isa:?} here. This is a bug.");
        // SAFETY: the asserts above; `out` holds `sums` rows of `dim`.
        unsafe {
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => avx512::add(self, sums, out.as_mut_ptr()),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => avx2::add(self, sums, out.as_mut_ptr()),
                _ => portable::add(self, sums, out.as_mut_ptr()),
            }
        }
        // What is left of a row that is no multiple of 16 long.
        let whole = self.dim - self.dim % LANES;
        for (sum, out) in out.chunks_exact_mut(self.dim).enumerate() {
            let weights = &self.weights[sum * self.weight_stride..][..self.count];
            for (j, weight) in weights.iter().enumerate() {
                let row = &self.rows[j * self.stride..][..self.dim];
                for (out, value) in out[whole..].iter_mut().zip(&row[whole..]) {
                    *out = weight.mul_add(*value, *out);
                }
            }
        }
    }
}

/// The loops for one instruction set. Expects its lanes around it.
macro_rules! tiles {
    ($(#[$feature:meta])?) => {
        /// Adds to every whole chunk of 16 elements of every sum.
        ///
        /// # Safety
        /// The machine has the instruction set; weights and rows lie within their slices; `out` points to `sums`
        /// rows of `dim` elements.
        $(#[$feature])?
        pub unsafe fn add(sum: &WeightedSum<'_>, sums: usize, out: *mut f32) {
            let chunks = sum.dim / LANES;
            let mut chunk = 0;
            while chunk < chunks {
                // SAFETY: each arm's chunks are below `chunks`.
                unsafe {
                    if chunks - chunk >= 4 {
                        heads::<4>(sum, sums, out, chunk);
                        chunk += 4;
                    } else {
                        heads::<1>(sum, sums, out, chunk);
                        chunk += 1;
                    }
                }
            }
        }

        #[inline]
        $(#[$feature])?
        unsafe fn heads<const C: usize>(sum: &WeightedSum<'_>, sums: usize, out: *mut f32, chunk: usize) {
            let mut h = 0;
            while h < sums {
                // SAFETY: each arm's sums are below `sums`.
                unsafe {
                    if sums - h >= 2 {
                        tile::<2, C>(sum, out, h, chunk);
                        h += 2;
                    } else {
                        tile::<1, C>(sum, out, h, chunk);
                        h += 1;
                    }
                }
            }
        }

        /// `H` sums, `C` chunks of each, which stay in registers while the rows go by.
        #[inline]
        $(#[$feature])?
        unsafe fn tile<const H: usize, const C: usize>(sum: &WeightedSum<'_>, out: *mut f32, h: usize, chunk: usize) {
            // SAFETY: `add_with` has asserted that weights, rows and sums of these indices lie within their slices.
            unsafe {
                let weights = sum.weights.as_ptr().add(h * sum.weight_stride);
                let mut row = sum.rows.as_ptr().add(chunk * LANES);
                let out = out.add(h * sum.dim + chunk * LANES);
                let mut acc = [[zero(); C]; H];
                for i in 0..H {
                    for c in 0..C {
                        acc[i][c] = load_f32(out.add(i * sum.dim + c * LANES));
                    }
                }
                for j in 0..sum.count {
                    let mut values = [zero(); C];
                    for c in 0..C {
                        values[c] = load_f32(row.add(c * LANES));
                    }
                    for i in 0..H {
                        let weight = splat(*weights.add(i * sum.weight_stride + j));
                        for c in 0..C {
                            acc[i][c] = fma(weight, values[c], acc[i][c]);
                        }
                    }
                    row = row.wrapping_add(sum.stride);
                }
                for i in 0..H {
                    for c in 0..C {
                        store(acc[i][c], out.add(i * sum.dim + c * LANES));
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::super::simd::avx512::*;
    use super::*;

    tiles!(#[target_feature(enable = "avx512f,avx512dq,avx512vl")]);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::super::simd::avx2::*;
    use super::*;

    tiles!(#[target_feature(enable = "avx2,fma")]);
}

mod portable {
    use super::super::simd::portable::*;
    use super::*;

    tiles!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::floats;

    #[test]
    fn every_instruction_set_adds_rows_one_after_the_other() {
        for dim in [1, 15, 16, 24, 64, 80, 128, 131] {
            for sums in 1..=4 {
                for count in [0, 1, 2, 16] {
                    let (weights, rows) = (floats(1, 4 * 20), floats(2, 17 * (dim + 3)));
                    let before = floats(3, sums * dim);
                    let mut expected = before.clone();
                    for (at, out) in expected.iter_mut().enumerate() {
                        for j in 0..count {
                            *out = weights[at / dim * 20 + j]
                                .mul_add(rows[j * (dim + 3) + at % dim], *out);
                        }
                    }
                    let (weights, rows) = (&weights[..], &rows[..]);
                    let sum = WeightedSum {
                        weights,
                        weight_stride: 20,
                        rows,
                        stride: dim + 3,
                        count,
                        dim,
                    };
                    for isa in Isa::available() {
                        let mut out = before.clone();
                        sum.add_with(isa, &mut out);
                        assert_eq!(
                            out, expected,
                            "{isa:?}: {sums} sums of {count} rows of {dim}"
                        );
                    }
                }
            }
        }
    }
}
