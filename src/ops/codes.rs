//! Sixteen codes of a quantised block become sixteen f32 lanes, in the registers of each instruction set.
//!
//! Every product of a scale and a code is exact in f32, so that a weight has the same bits here as from
//! `quantised::*::dequantise`, in whatever order it is computed.
#![allow(unsafe_code)] // SIMD loads

use super::quantised::q4_k;

/// Lanes `16 * piece..` of a block in each format, from the operations around it.
macro_rules! formats {
    ($lanes:ty, $(#[$feature:meta])?) => {
        #[inline]
        $(#[$feature])?
        pub unsafe fn q8_0(block: *const u8, scale: &f32, piece: usize) -> $lanes {
            // SAFETY: the caller promises a whole block, with so many pieces.
            mul(unsafe { load_signed(block.add(2 + 16 * piece)) }, splat(*scale))
        }

        #[inline]
        $(#[$feature])?
        pub unsafe fn fp8(block: *const u8, scale: &f32, piece: usize) -> $lanes {
            // SAFETY: as above.
            mul(unsafe { load_e4m3(block.add(2 + 16 * piece)) }, splat(*scale))
        }

        #[inline]
        $(#[$feature])?
        pub unsafe fn w4a16(block: *const u8, scale: &f32, piece: usize) -> $lanes {
            // SAFETY: as above.
            let codes = unsafe { load_pairs(block.add(2 + 8 * piece)) };
            fma(codes, splat(*scale), splat(-8.0 * *scale))
        }

        #[inline]
        $(#[$feature])?
        pub unsafe fn q4_k(block: *const u8, header: &q4_k::Header, piece: usize) -> $lanes {
            let group = piece / 2;
            // SAFETY: as above.
            let codes = unsafe {
                let from = block.add(16 + group / 2 * 32 + piece % 2 * 16);
                if group % 2 == 0 { load_low(from) } else { load_high(from) }
            };
            fma(codes, splat(header.scales[group]), splat(-header.minima[group]))
        }
    };
}

/// Exponent and fraction of E4M3 in their places of an f32 are this fraction of the value.
const E4M3_BIAS: f32 = f32::from_bits((127 + 120) << 23);

/// Of a code that was extended with its sign and shifted to the fraction of an f32: the sign, the exponent, the fraction.
#[cfg(target_arch = "x86_64")]
const E4M3_BITS: i32 = (1 << 31) | 0x7f << 20;

#[cfg(target_arch = "x86_64")]
pub mod avx512 {
    use std::arch::x86_64::{
        __m128i, __m512, _mm_and_si128, _mm_cvtepu8_epi16, _mm_loadl_epi64, _mm_loadu_si128,
        _mm_or_si128, _mm_set1_epi8, _mm_slli_epi16, _mm_srli_epi16, _mm512_and_si512,
        _mm512_castsi512_ps, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32,
        _mm512_mul_ps, _mm512_set1_epi32, _mm512_slli_epi32,
    };

    use super::super::simd::avx512::{fma, splat};
    use super::*;

    formats!(__m512, #[target_feature(enable = "avx512f,avx512dq,avx512vl")]);

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    fn floats(bytes: __m128i) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))
    }

    /// 16 signed bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    unsafe fn load_signed(from: *const u8) -> __m512 {
        // SAFETY: the caller promises 16 bytes.
        let bytes = unsafe { _mm_loadu_si128(from.cast()) };
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
    }

    /// The halves of 8 bytes, the low half of each before its high half.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    unsafe fn load_pairs(from: *const u8) -> __m512 {
        // SAFETY: the caller promises 8 bytes.
        let wide = _mm_cvtepu8_epi16(unsafe { _mm_loadl_epi64(from.cast()) });
        let apart = _mm_or_si128(wide, _mm_slli_epi16::<4>(wide));
        floats(_mm_and_si128(apart, _mm_set1_epi8(15)))
    }

    /// The low halves of 16 bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    unsafe fn load_low(from: *const u8) -> __m512 {
        // SAFETY: the caller promises 16 bytes.
        let bytes = unsafe { _mm_loadu_si128(from.cast()) };
        floats(_mm_and_si128(bytes, _mm_set1_epi8(15)))
    }

    /// The high halves of 16 bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    unsafe fn load_high(from: *const u8) -> __m512 {
        // SAFETY: the caller promises 16 bytes.
        let bytes = unsafe { _mm_loadu_si128(from.cast()) };
        floats(_mm_and_si128(_mm_srli_epi16::<4>(bytes), _mm_set1_epi8(15)))
    }

    /// 16 numbers of E4M3.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    unsafe fn load_e4m3(from: *const u8) -> __m512 {
        // SAFETY: the caller promises 16 bytes.
        let codes = _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(from.cast()) });
        let bits = _mm512_and_si512(_mm512_slli_epi32::<20>(codes), _mm512_set1_epi32(E4M3_BITS));
        _mm512_mul_ps(_mm512_castsi512_ps(bits), splat(E4M3_BIAS))
    }
}

#[cfg(target_arch = "x86_64")]
pub mod avx2 {
    use std::arch::x86_64::{
        __m128i, __m256, __m256i, _mm_and_si128, _mm_cvtepu8_epi16, _mm_loadl_epi64,
        _mm_loadu_si128, _mm_or_si128, _mm_set1_epi8, _mm_slli_epi16, _mm_srli_epi16,
        _mm_unpackhi_epi64, _mm256_and_si256, _mm256_castsi256_ps, _mm256_cvtepi8_epi32,
        _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_mul_ps, _mm256_set1_epi32,
        _mm256_slli_epi32,
    };

    use super::super::simd::avx2::{Lanes, fma, splat};
    use super::*;

    formats!(Lanes, #[target_feature(enable = "avx2,fma")]);

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn mul(a: Lanes, b: Lanes) -> Lanes {
        Lanes(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn floats(bytes: __m128i) -> Lanes {
        let upper = _mm_unpackhi_epi64(bytes, bytes);
        Lanes(
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(upper)),
        )
    }

    /// 16 signed bytes.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load_signed(from: *const u8) -> Lanes {
        // SAFETY: the caller promises 16 bytes.
        let bytes = unsafe { _mm_loadu_si128(from.cast()) };
        let upper = _mm_unpackhi_epi64(bytes, bytes);
        Lanes(
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(upper)),
        )
    }

    /// The halves of 8 bytes, the low half of each before its high half.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load_pairs(from: *const u8) -> Lanes {
        // SAFETY: the caller promises 8 bytes.
        let wide = _mm_cvtepu8_epi16(unsafe { _mm_loadl_epi64(from.cast()) });
        let apart = _mm_or_si128(wide, _mm_slli_epi16::<4>(wide));
        floats(_mm_and_si128(apart, _mm_set1_epi8(15)))
    }

    /// The low halves of 16 bytes.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load_low(from: *const u8) -> Lanes {
        // SAFETY: the caller promises 16 bytes.
        let bytes = unsafe { _mm_loadu_si128(from.cast()) };
        floats(_mm_and_si128(bytes, _mm_set1_epi8(15)))
    }

    /// The high halves of 16 bytes.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load_high(from: *const u8) -> Lanes {
        // SAFETY: the caller promises 16 bytes.
        let bytes = unsafe { _mm_loadu_si128(from.cast()) };
        floats(_mm_and_si128(_mm_srli_epi16::<4>(bytes), _mm_set1_epi8(15)))
    }

    /// 16 numbers of E4M3.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load_e4m3(from: *const u8) -> Lanes {
        // SAFETY: the caller promises 16 bytes.
        let bytes = unsafe { _mm_loadu_si128(from.cast()) };
        let upper = _mm_unpackhi_epi64(bytes, bytes);
        let shifted = Lanes(
            eight_e4m3(_mm256_cvtepi8_epi32(bytes)),
            eight_e4m3(_mm256_cvtepi8_epi32(upper)),
        );
        mul(shifted, splat(E4M3_BIAS))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn eight_e4m3(codes: __m256i) -> __m256 {
        let shifted = _mm256_slli_epi32::<20>(codes);
        _mm256_castsi256_ps(_mm256_and_si256(shifted, _mm256_set1_epi32(E4M3_BITS)))
    }
}

pub mod portable {
    use super::super::lanes::LANES;
    use super::super::quantised::fp8;
    use super::super::simd::portable::{Lanes, fma, splat};
    use super::*;

    formats!(Lanes,);

    #[inline(always)]
    fn mul(a: Lanes, b: Lanes) -> Lanes {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }

    /// 16 signed bytes.
    #[inline(always)]
    unsafe fn load_signed(from: *const u8) -> Lanes {
        // SAFETY: the caller promises 16 bytes.
        unsafe { *from.cast::<[i8; LANES]>() }.map(f32::from)
    }

    /// The halves of 8 bytes, the low half of each before its high half.
    #[inline(always)]
    unsafe fn load_pairs(from: *const u8) -> Lanes {
        // SAFETY: the caller promises 8 bytes.
        let bytes = unsafe { *from.cast::<[u8; LANES / 2]>() };
        std::array::from_fn(|lane| f32::from(bytes[lane / 2] >> (4 * (lane % 2)) & 15))
    }

    /// The low halves of 16 bytes.
    #[inline(always)]
    unsafe fn load_low(from: *const u8) -> Lanes {
        // SAFETY: the caller promises 16 bytes.
        unsafe { *from.cast::<[u8; LANES]>() }.map(|byte| f32::from(byte & 15))
    }

    /// The high halves of 16 bytes.
    #[inline(always)]
    unsafe fn load_high(from: *const u8) -> Lanes {
        // SAFETY: the caller promises 16 bytes.
        unsafe { *from.cast::<[u8; LANES]>() }.map(|byte| f32::from(byte >> 4))
    }

    /// 16 numbers of E4M3.
    #[inline(always)]
    unsafe fn load_e4m3(from: *const u8) -> Lanes {
        // SAFETY: the caller promises 16 bytes.
        unsafe { *from.cast::<[u8; LANES]>() }.map(fp8::decode)
    }
}
