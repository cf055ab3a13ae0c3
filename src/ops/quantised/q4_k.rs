//! 256 weights in 144 bytes, as GGML's `q4_K` has them: eight groups of 32, each with a scale and a minimum of 6 bits.
//!
//! The 12 bytes of scales and minima: bytes 0 to 3 hold scales 0 to 3 in their low 6 bits, bytes 4 to 7 minima 0 to 3
//! likewise; bytes 8 to 11 hold the low 4 bits of scales 4 to 7 (low half) and of minima 4 to 7 (high half), whose upper
//! 2 bits are the upper bits of bytes 0 to 3 and 4 to 7. Byte `32 * i + j` of the codes holds column `64 * i + j` in its
//! low half and column `64 * i + 32 + j` in its high half.
//!
//! Candle has a quantiser too, but it stores a group of equal weights as zeros, and leaves a tenth more squared error on
//! normally distributed ones (`q4_k_leaves_less_error_than_candles_quantiser_which_loses_equal_weights`).

use super::rows::{narrow, widen};
use crate::ops::lanes::{LANES, tree, widest};

/// Weights of a block.
pub const COLUMNS: usize = 256;
/// A block.
pub type Block = [u8; 144];

/// What is read once for a block: of each group, a weight is `scale * code - minimum`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Header {
    /// `d * scale`, exact.
    pub scales: [f32; GROUPS],
    /// `dmin * min`, exact.
    pub minima: [f32; GROUPS],
}

const GROUP: usize = 32;
const GROUPS: usize = COLUMNS / GROUP;

widest! {
    /// Each group gets the scale and minimum of least squared error among a few tries, which are then rounded to 6
    /// bits; each code is the nearest to its weight. `None` if a scale is too large.
    pub fn quantise(weights: &[f32; COLUMNS], block: &mut Block) -> Option<()> = quantise_plain;
}

#[inline(always)]
fn quantise_plain(weights: &[f32; COLUMNS], block: &mut Block) -> Option<()> {
    let (mut scales, mut minima) = ([0.0; GROUPS], [0.0; GROUPS]);
    let groups = weights.as_chunks::<GROUP>().0;
    for (group, weights) in groups.iter().enumerate() {
        (scales[group], minima[group]) = fit(weights)?;
    }
    let (d, scales) = six_bits(scales)?;
    let (dmin, minima) = six_bits(minima)?;
    block[0..2].copy_from_slice(&d);
    block[2..4].copy_from_slice(&dmin);
    for group in 0..4 {
        block[4 + group] = scales[group] | scales[group + 4] >> 4 << 6;
        block[8 + group] = minima[group] | minima[group + 4] >> 4 << 6;
        block[12 + group] = scales[group + 4] & 15 | (minima[group + 4] & 15) << 4;
    }
    let header = header(block);
    for (group, weights) in groups.iter().enumerate() {
        let (scale, minimum) = (header.scales[group], header.minima[group]);
        let codes = &mut block[16 + group / 2 * GROUP..][..GROUP];
        for (code, weight) in codes.iter_mut().zip(weights) {
            let nearest = if scale == 0.0 {
                0
            } else {
                ((weight + minimum) / scale)
                    .round_ties_even()
                    .clamp(0.0, 15.0) as u8
            };
            *code = if group % 2 == 0 {
                nearest
            } else {
                *code | nearest << 4
            };
        }
    }
    Some(())
}

/// The common factor of eight numbers, as an f16, and what 6 bits make of each.
#[inline(always)]
fn six_bits(numbers: [f32; GROUPS]) -> Option<([u8; 2], [u8; GROUPS])> {
    let (bytes, factor) = narrow(numbers.iter().fold(0.0f32, |most, n| most.max(*n)) / 63.0)?;
    let bits = numbers.map(|number| {
        if factor == 0.0 {
            0
        } else {
            (number / factor).round_ties_even().min(63.0) as u8
        }
    });
    Some((bytes, bits))
}

/// A group's scale and minimum, neither negative. `None` if they are far beyond f16.
#[inline(always)]
fn fit(weights: &[f32; GROUP]) -> Option<(f32, f32)> {
    let low = weights.iter().fold(0.0f32, |least, w| least.min(*w));
    let high = weights
        .iter()
        .fold(f32::NEG_INFINITY, |most, w| most.max(*w));
    let range = high - low;
    if range > LARGEST_RANGE {
        return None;
    }
    if range < SMALLEST_RANGE {
        return Some((0.0, -low));
    }
    let mut best = (range / 15.0, -low);
    let mut least = loss(weights, &codes(weights, 15.0 / range, low), best);
    for steps in STEPS {
        let codes = codes(weights, steps / range, low);
        let tried = regress(weights, &codes);
        let lost = loss(weights, &codes, tried);
        if lost < least {
            (best, least) = (tried, lost);
        }
    }
    Some(best)
}

/// Numbers of steps that the range of a group is tried with; above 15 it is clipped.
const STEPS: [f32; 9] = [14.0, 14.4, 14.7, 15.0, 15.3, 15.6, 16.0, 16.5, 17.0];
/// Far below what f16 factors tell from zero, far above where inverses overflow.
const SMALLEST_RANGE: f32 = 1e-30;
/// Far beyond what f16 factors reach, far below where squares overflow.
const LARGEST_RANGE: f32 = 1e12;

#[inline(always)]
fn codes(weights: &[f32; GROUP], inverse: f32, low: f32) -> [f32; GROUP] {
    let mut codes = [0.0; GROUP];
    for (code, weight) in codes.iter_mut().zip(weights) {
        *code = ((weight - low) * inverse)
            .round_ties_even()
            .clamp(0.0, 15.0);
    }
    codes
}

/// The scale and the minimum of least squared error for these codes.
#[inline(always)]
fn regress(weights: &[f32; GROUP], codes: &[f32; GROUP]) -> (f32, f32) {
    let count = GROUP as f32;
    let code = sum(|i| codes[i]);
    let code_code = sum(|i| codes[i] * codes[i]);
    let weight = sum(|i| weights[i]);
    let weight_code = sum(|i| weights[i] * codes[i]);
    let spread = count * code_code - code * code;
    let scale = (count * weight_code - weight * code) / spread;
    let offset = (weight - scale * code) / count;
    if offset <= 0.0 {
        (scale.max(0.0), -offset)
    } else {
        // A minimum cannot be positive: the line goes through zero.
        ((weight_code / code_code).max(0.0), 0.0)
    }
}

#[inline(always)]
fn loss(weights: &[f32; GROUP], codes: &[f32; GROUP], (scale, minimum): (f32, f32)) -> f32 {
    sum(|i| {
        let error = scale * codes[i] - minimum - weights[i];
        error * error
    })
}

#[inline(always)]
fn sum(term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for first in (0..GROUP).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(first + lane);
        }
    }
    tree(lanes)
}

/// The block's weights.
pub fn dequantise(block: &Block, weights: &mut [f32; COLUMNS]) {
    let header = header(block);
    for (group, weights) in weights.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        let (scale, minimum) = (header.scales[group], header.minima[group]);
        let codes = &block[16 + group / 2 * GROUP..][..GROUP];
        for (weight, code) in weights.iter_mut().zip(codes) {
            *weight = scale * f32::from(code >> (4 * (group % 2)) & 15) - minimum;
        }
    }
}

/// Scales and minima.
#[inline(always)]
pub fn header(block: &Block) -> Header {
    let (d, dmin) = (widen([block[0], block[1]]), widen([block[2], block[3]]));
    let word = |at| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    // Four numbers of 6 bits at a time, each in a byte of its own.
    let six = |first: u32, low: u32| {
        let later = low & 0x0f0f_0f0f | (first >> 2) & 0x3030_3030;
        (u64::from(first & 0x3f3f_3f3f) | u64::from(later) << 32).to_le_bytes()
    };
    let (scales, minima) = (six(word(4), word(12)), six(word(8), word(12) >> 4));
    Header {
        scales: scales.map(|scale| d * f32::from(scale)),
        minima: minima.map(|minimum| dmin * f32::from(minimum)),
    }
}
