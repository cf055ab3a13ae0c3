//! Decoders in plain Rust.

use crate::ops::lanes::LANES;
use crate::ops::quantised::fp8::decode;
use crate::ops::simd::portable::{Lanes, fma, splat};

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
    unsafe { *from.cast::<[u8; LANES]>() }.map(decode)
}
