//! Decoders in registers of sixteen lanes. Codes of 4 bits choose from a table of the 16 weights that they can mean, which
//! is a register too: that takes one instruction where arithmetic takes three.

use std::arch::x86_64::{
    __m128i, __m256i, __m512, __m512i, _mm_loadu_si128, _mm_setr_epi8, _mm_shuffle_epi8,
    _mm256_and_si256, _mm256_cvtepi8_epi16, _mm256_set1_epi16, _mm256_slli_epi16,
    _mm256_zextsi128_si256, _mm512_and_si512, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps,
    _mm512_cvtepu8_epi32, _mm512_cvtph_ps, _mm512_fmsub_ps, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_or_si512, _mm512_permutexvar_epi32, _mm512_permutexvar_ps, _mm512_set1_epi32,
    _mm512_setr_epi32, _mm512_setr_ps, _mm512_srli_epi32, _mm512_srlv_epi32,
};

use crate::ops::simd::avx512::{splat, store};

/// The f16 in a block's first two bytes, in all lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
fn scale(low: u8, high: u8) -> __m512 {
    _mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes([low, high])))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
fn sixteen(bytes: &[u8]) -> __m128i {
    // SAFETY: slicing checks that there are 16 bytes.
    unsafe { _mm_loadu_si128(bytes[..16].as_ptr().cast()) }
}

pub mod q8_0 {
    use super::*;
    use crate::ops::quantised::q8_0::Block;

    /// The scale.
    pub type Open = __m512;

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub fn open(block: &Block) -> Open {
        scale(block[0], block[1])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub fn piece(block: &Block, scale: &Open, piece: usize) -> __m512 {
        let codes = _mm512_cvtepi8_epi32(sixteen(&block[2 + 16 * piece..]));
        _mm512_mul_ps(_mm512_cvtepi32_ps(codes), *scale)
    }
}

pub mod fp8 {
    use super::*;
    use crate::ops::quantised::fp8::Block;

    /// 256 times the scale.
    pub type Open = __m512;

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub fn open(block: &Block) -> Open {
        _mm512_mul_ps(scale(block[0], block[1]), splat(256.0))
    }

    /// Sign, exponent and fraction of E4M3 in their places of an f16 are 2^-8 of the value, subnormal or not.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub fn piece(block: &Block, scale: &Open, piece: usize) -> __m512 {
        let codes = _mm256_cvtepi8_epi16(sixteen(&block[2 + 16 * piece..]));
        let halves: __m256i =
            _mm256_and_si256(_mm256_slli_epi16::<7>(codes), _mm256_set1_epi16(!(1 << 14)));
        _mm512_mul_ps(_mm512_cvtph_ps(halves), *scale)
    }
}

pub mod w4a16 {
    use super::*;
    use crate::ops::quantised::w4a16::Block;

    /// The weights of the 16 codes, and all codes.
    pub type Open = (__m512, __m512i);

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub fn open(block: &Block) -> Open {
        let multiples = _mm512_setr_ps(
            -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0,
        );
        // SAFETY: slicing checks that there are 64 bytes.
        let codes = unsafe { _mm512_loadu_si512(block[2..][..64].as_ptr().cast()) };
        (_mm512_mul_ps(scale(block[0], block[1]), multiples), codes)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub fn piece(_block: &Block, (weights, codes): &Open, piece: usize) -> __m512 {
        // Eight codes are 32 bits: each lane gets the one of the two words that holds its code, and moves it down. What
        // is above the lowest four bits makes no difference to the choice.
        let (low, high) = (2 * piece as i32, 2 * piece as i32 + 1);
        let word = _mm512_setr_epi32(
            low, low, low, low, low, low, low, low, high, high, high, high, high, high, high, high,
        );
        let shift = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
        let codes = _mm512_srlv_epi32(_mm512_permutexvar_epi32(word, *codes), shift);
        _mm512_permutexvar_ps(codes, *weights)
    }
}

pub mod q4_k {
    use super::*;
    use crate::ops::quantised::q4_k::Block;

    /// Eight scales, eight minima.
    pub type Open = [f32; 16];

    /// As [`crate::ops::quantised::q4_k::header`], with a lane for each number.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub fn open(block: &Block) -> Open {
        let head = sixteen(block);
        // Where the lowest bits of a number are, how far up, and how many; then where its upper two bits are, if apart.
        let low = _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
        let shift = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4);
        let mask = _mm512_setr_epi32(
            63, 63, 63, 63, 15, 15, 15, 15, 63, 63, 63, 63, 15, 15, 15, 15,
        );
        let high = _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11);
        let low = _mm512_cvtepu8_epi32(_mm_shuffle_epi8(head, low));
        let low = _mm512_and_si512(_mm512_srlv_epi32(low, shift), mask);
        let high = _mm512_cvtepu8_epi32(_mm_shuffle_epi8(head, high));
        let high = _mm512_and_si512(_mm512_srli_epi32::<2>(high), _mm512_set1_epi32(0x30));
        let numbers = _mm512_cvtepi32_ps(_mm512_or_si512(low, high));
        let factors = _mm512_cvtph_ps(_mm256_zextsi128_si256(head));
        let which = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
        let mut open = [0.0; 16];
        let all = _mm512_mul_ps(numbers, _mm512_permutexvar_ps(which, factors));
        // SAFETY: `open` has 16 elements.
        unsafe { store(all, open.as_mut_ptr()) };
        open
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub fn piece(block: &Block, open: &Open, piece: usize) -> __m512 {
        let group = piece / 2;
        let multiples = _mm512_setr_ps(
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
        );
        let weights = _mm512_fmsub_ps(multiples, splat(open[group]), splat(open[8 + group]));
        let codes = _mm512_cvtepu8_epi32(sixteen(&block[16 + group / 2 * 32 + piece % 2 * 16..]));
        // What is above the lowest four bits makes no difference to the choice.
        let codes = if group.is_multiple_of(2) {
            codes
        } else {
            _mm512_srli_epi32::<4>(codes)
        };
        _mm512_permutexvar_ps(codes, weights)
    }
}
