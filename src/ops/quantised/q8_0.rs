//! 32 weights in 34 bytes, as GGML's `q8_0` has them: a scale and signed bytes.

use super::rows::{narrow, widen};
use crate::ops::lanes::widest;

/// Weights of a block.
pub const COLUMNS: usize = 32;
/// A block.
pub type Block = [u8; 34];
/// What is read once for a block: its scale.
pub type Header = f32;

widest! {
    /// The scale maps the largest magnitude to 127. Codes are chosen for the scale before it is rounded to f16: that
    /// is what GGML writes. `None` if the scale is too large.
    pub fn quantise(weights: &[f32; COLUMNS], block: &mut Block) -> Option<()> = quantise_plain;
}

#[inline(always)]
fn quantise_plain(weights: &[f32; COLUMNS], block: &mut Block) -> Option<()> {
    let largest = weights.iter().fold(0.0f32, |most, w| most.max(w.abs()));
    let scale = largest / 127.0;
    // Below 2^-126 the inverse would be infinite; f16 has no such scale, so all of the block is zero.
    let inverse = if scale < f32::MIN_POSITIVE {
        0.0
    } else {
        1.0 / scale
    };
    let (head, codes) = block.split_at_mut(2);
    head.copy_from_slice(&narrow(scale)?.0);
    for (code, weight) in codes.iter_mut().zip(weights) {
        *code = (weight * inverse).round() as i8 as u8;
    }
    Some(())
}

/// The block's weights.
pub fn dequantise(block: &Block, weights: &mut [f32; COLUMNS]) {
    let scale = header(block);
    for (weight, &code) in weights.iter_mut().zip(&block[2..]) {
        *weight = scale * f32::from(code as i8);
    }
}

/// The scale.
#[inline(always)]
pub fn header(block: &Block) -> Header {
    widen([block[0], block[1]])
}
