//! 128 weights in 130 bytes: a scale and codes in E4M3, 8-bit floating point.
//!
//! E4M3: sign, 4 bits of exponent with bias 7, 3 bits of fraction; subnormals below 2^-6, 448 the largest, no
//! infinities (OCP 8-bit Floating Point Specification, revision 1.0, 2023).

use super::rows::{narrow, widen};
use crate::ops::lanes::widest;

/// Weights of a block.
pub const COLUMNS: usize = 128;
/// A block.
pub type Block = [u8; 130];
/// What is read once for a block: its scale.
pub type Header = f32;

/// The largest number of E4M3.
const LARGEST: f32 = 448.0;
/// Its code.
const LARGEST_CODE: u32 = 0x7e;

widest! {
    /// The scale maps the largest magnitude to 448; each code is the nearest to its weight. `None` if the scale is too
    /// large.
    pub fn quantise(weights: &[f32; COLUMNS], block: &mut Block) -> Option<()> = quantise_plain;
}

#[inline(always)]
fn quantise_plain(weights: &[f32; COLUMNS], block: &mut Block) -> Option<()> {
    let largest = weights.iter().fold(0.0f32, |most, w| most.max(w.abs()));
    let (bytes, scale) = narrow(largest / LARGEST)?;
    let (head, codes) = block.split_at_mut(2);
    head.copy_from_slice(&bytes);
    for (code, weight) in codes.iter_mut().zip(weights) {
        *code = if scale == 0.0 {
            0
        } else {
            encode(weight / scale)
        };
    }
    Some(())
}

/// The block's weights.
pub fn dequantise(block: &Block, weights: &mut [f32; COLUMNS]) {
    let scale = header(block);
    for (weight, &code) in weights.iter_mut().zip(&block[2..]) {
        *weight = scale * decode(code);
    }
}

/// The scale.
#[inline(always)]
pub fn header(block: &Block) -> Header {
    widen([block[0], block[1]])
}

/// The nearest number of E4M3, ties to even, and at most 448.
#[inline(always)]
pub fn encode(x: f32) -> u8 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Adding just under half of the last place kept, and its lowest bit, rounds to even by carry.
    let rounded = (magnitude + 0x7_ffff + (magnitude >> 20 & 1)) >> 20;
    let normal = rounded.saturating_sub((127 - 7) << 3).min(LARGEST_CODE);
    // In steps of 2^-9. Eight steps are the code of the smallest normal number, as they should be.
    let subnormal = (f32::from_bits(magnitude) * 512.0).round_ties_even() as u32;
    let is_normal = magnitude >= (127 - 6) << 23;
    (bits >> 24 & 0x80) as u8 | (if is_normal { normal } else { subnormal }) as u8
}

/// The number of a code, which is not one of the two that mean no number.
#[inline(always)]
pub fn decode(code: u8) -> f32 {
    let code = u32::from(code);
    // Exponent and fraction in their places of an f32 are 2^-120 of the value, subnormal or not.
    let magnitude = f32::from_bits((code & 0x7f) << 20) * f32::from_bits((127 + 120) << 23);
    f32::from_bits(magnitude.to_bits() | (code & 0x80) << 24)
}
