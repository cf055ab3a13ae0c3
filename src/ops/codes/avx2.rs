//! Decoders in registers of eight lanes, two for sixteen.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_and_si128, _mm_cvtepu8_epi16, _mm_loadl_epi64, _mm_loadu_si128,
    _mm_or_si128, _mm_set1_epi8, _mm_slli_epi16, _mm_srli_epi16, _mm_unpackhi_epi64,
    _mm256_and_si256, _mm256_castsi256_ps, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi32, _mm256_mul_ps, _mm256_set1_epi32, _mm256_slli_epi32,
};

use crate::ops::simd::avx2::{Lanes, fma, splat};
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

/// Exponent and fraction of E4M3 in their places of an f32 are this fraction of the value.
const E4M3_BIAS: f32 = f32::from_bits((127 + 120) << 23);

/// Of a code that was extended with its sign and shifted to the fraction of an f32: the sign, the exponent, the fraction.
const E4M3_BITS: i32 = (1 << 31) | 0x7f << 20;
