//! Sixteen f32 lanes in the registers of each instruction set, behind the same names, so that [`super::dot`] and
//! [`super::weighted_sum`] write their loops once. Loads and stores take unaligned addresses of sixteen elements.
#![allow(unsafe_code)] // SIMD loads and stores

use half::bf16;

use super::lanes::LANES;

#[cfg(target_arch = "x86_64")]
pub mod avx512 {
    use std::arch::x86_64::{
        __m512, _MM_HINT_T0, _mm_prefetch, _mm_storeu_ps, _mm256_add_ps, _mm256_loadu_si256,
        _mm512_add_ps, _mm512_castps512_ps128, _mm512_castps512_ps256, _mm512_castsi512_ps,
        _mm512_cvtepu16_epi32, _mm512_extractf32x8_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_permute_ps, _mm512_permutexvar_ps, _mm512_set1_ps, _mm512_setr_epi32,
        _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_slli_epi32, _mm512_storeu_ps,
    };

    use super::*;

    /// Lanes 0 to 15.
    pub type Lanes = __m512;

    /// Lanes of a register.
    pub const WIDTH: usize = 16;

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub fn zero() -> __m512 {
        _mm512_setzero_ps()
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub unsafe fn load_f32(from: *const f32) -> __m512 {
        // SAFETY: the caller promises 16 elements.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub unsafe fn load_bf16(from: *const bf16) -> __m512 {
        // SAFETY: the caller promises 16 elements; a bf16 is the upper half of the f32 of the same value.
        let halves = unsafe { _mm256_loadu_si256(from.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub fn sum(lanes: __m512) -> f32 {
        let eight = _mm256_add_ps(
            _mm512_castps512_ps256(lanes),
            _mm512_extractf32x8_ps::<1>(lanes),
        );
        avx2::sum_eight(eight)
    }

    /// Four sums at once, in 15 instructions instead of 32: each step adds halves of all four onto halves.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub fn sums([a, b, c, d]: [__m512; 4]) -> [f32; 4] {
        let halves = |x, y| {
            _mm512_add_ps(
                _mm512_shuffle_f32x4::<0x44>(x, y),
                _mm512_shuffle_f32x4::<0xEE>(x, y),
            )
        };
        let (ab, cd) = (halves(a, b), halves(c, d));
        let fours = _mm512_add_ps(
            _mm512_shuffle_f32x4::<0x88>(ab, cd),
            _mm512_shuffle_f32x4::<0xDD>(ab, cd),
        );
        let twos = _mm512_add_ps(fours, _mm512_permute_ps::<0xEE>(fours));
        let ones = _mm512_add_ps(twos, _mm512_permute_ps::<0x55>(twos));
        let firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        let mut sums = [0.0; 4];
        let packed = _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, ones));
        // SAFETY: `sums` has the four elements.
        unsafe { _mm_storeu_ps(sums.as_mut_ptr(), packed) };
        sums
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub fn prefetch<T>(at: *const T) {
        _mm_prefetch::<_MM_HINT_T0>(at.cast())
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub fn splat(value: f32) -> __m512 {
        _mm512_set1_ps(value)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub unsafe fn store(lanes: __m512, to: *mut f32) {
        // SAFETY: the caller promises 16 elements.
        unsafe { _mm512_storeu_ps(to, lanes) }
    }
}

#[cfg(target_arch = "x86_64")]
pub mod avx2 {
    use std::arch::x86_64::{
        __m256, _MM_HINT_T0, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_loadu_si128,
        _mm_movehdup_ps, _mm_movehl_ps, _mm_prefetch, _mm256_add_ps, _mm256_castps256_ps128,
        _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_extractf128_ps, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
    };

    use super::*;

    #[derive(Clone, Copy)]
    /// Lanes 0 to 7, lanes 8 to 15.
    pub struct Lanes(pub __m256, pub __m256);

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub fn zero() -> Lanes {
        Lanes(_mm256_setzero_ps(), _mm256_setzero_ps())
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn load_f32(from: *const f32) -> Lanes {
        // SAFETY: the caller promises 16 elements.
        unsafe { Lanes(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn load_bf16(from: *const bf16) -> Lanes {
        // SAFETY: the caller promises 16 elements; a bf16 is the upper half of the f32 of the same value.
        let (low, high) = unsafe {
            (
                _mm_loadu_si128(from.cast()),
                _mm_loadu_si128(from.add(8).cast()),
            )
        };
        Lanes(
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(low))),
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(high))),
        )
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub fn fma(a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        Lanes(
            _mm256_fmadd_ps(a.0, b.0, c.0),
            _mm256_fmadd_ps(a.1, b.1, c.1),
        )
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub fn sum(lanes: Lanes) -> f32 {
        sum_eight(_mm256_add_ps(lanes.0, lanes.1))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub fn sums([a, b, c, d]: [Lanes; 4]) -> [f32; 4] {
        [sum(a), sum(b), sum(c), sum(d)]
    }

    /// The last three levels of the tree.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub fn sum_eight(eight: __m256) -> f32 {
        let four = _mm_add_ps(
            _mm256_castps256_ps128(eight),
            _mm256_extractf128_ps::<1>(eight),
        );
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub fn prefetch<T>(at: *const T) {
        _mm_prefetch::<_MM_HINT_T0>(at.cast())
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub fn splat(value: f32) -> Lanes {
        Lanes(_mm256_set1_ps(value), _mm256_set1_ps(value))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn store(lanes: Lanes, to: *mut f32) {
        // SAFETY: the caller promises 16 elements.
        unsafe {
            _mm256_storeu_ps(to, lanes.0);
            _mm256_storeu_ps(to.add(8), lanes.1);
        }
    }

    /// Eight of the lanes, one register: there are too few of these for tiles of pairs.
    pub mod eight {
        use super::*;

        /// Lanes of a register.
        pub const WIDTH: usize = 8;

        #[inline]
        #[target_feature(enable = "avx2,fma")]
        pub fn zero() -> __m256 {
            _mm256_setzero_ps()
        }

        #[inline]
        #[target_feature(enable = "avx2,fma")]
        pub unsafe fn load_f32(from: *const f32) -> __m256 {
            // SAFETY: the caller promises 8 elements.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline]
        #[target_feature(enable = "avx2,fma")]
        pub fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            _mm256_fmadd_ps(a, b, c)
        }

        #[inline]
        #[target_feature(enable = "avx2,fma")]
        pub unsafe fn store(lanes: __m256, to: *mut f32) {
            // SAFETY: the caller promises 8 elements.
            unsafe { _mm256_storeu_ps(to, lanes) }
        }
    }
}

pub mod portable {
    use super::*;
    pub use crate::ops::lanes::tree as sum;

    pub type Lanes = [f32; LANES];

    /// Lanes that are added at a time.
    pub const WIDTH: usize = LANES;

    #[inline(always)]
    pub fn zero() -> Lanes {
        [0.0; LANES]
    }

    #[inline(always)]
    pub fn sums(four: [Lanes; 4]) -> [f32; 4] {
        four.map(sum)
    }

    #[inline(always)]
    pub unsafe fn load_f32(from: *const f32) -> Lanes {
        // SAFETY: the caller promises 16 elements; an array has the alignment of its elements.
        unsafe { *from.cast::<Lanes>() }
    }

    #[inline(always)]
    pub unsafe fn load_bf16(from: *const bf16) -> Lanes {
        // SAFETY: the caller promises 16 elements; an array has the alignment of its elements.
        unsafe { *from.cast::<[bf16; LANES]>() }.map(bf16::to_f32)
    }

    #[inline(always)]
    pub fn fma(a: Lanes, b: Lanes, mut c: Lanes) -> Lanes {
        for lane in 0..LANES {
            c[lane] = a[lane].mul_add(b[lane], c[lane]);
        }
        c
    }

    #[inline(always)]
    pub fn prefetch<T>(_at: *const T) {}

    #[inline(always)]
    pub fn splat(value: f32) -> Lanes {
        [value; LANES]
    }

    #[inline(always)]
    pub unsafe fn store(lanes: Lanes, to: *mut f32) {
        // SAFETY: the caller promises 16 elements; an array has the alignment of its elements.
        unsafe { *to.cast::<Lanes>() = lanes }
    }
}
