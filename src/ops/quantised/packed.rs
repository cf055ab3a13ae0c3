//! Quantised weights in the order in which the kernels read them (`kernels/quantised_gemm.cuh`), packed once, when they
//! are loaded.
//!
//! 32 rows of weights (columns of the product) are a strip. 128 columns (of the product's `k`) of a strip are a step,
//! which holds scales and codes together:
//!
//! | scales | codes |
//! |---|---|
//! | by group of columns, then by `row % 8 / 2`, `row / 8`, `row % 2` | by tile of 8 rows, run, lane: 4 to 16 bytes |
//!
//! A run is as much as the kernel adds up before it multiplies with a scale. Of it lane `l` of a warp has row `l / 4` of the
//! tile, and columns `2 (l % 4)`, the next one, and the two that are 8 further, in each 16. Strips that are not full end
//! in zeros.

use rayon::prelude::*;

use super::{Blocks, Storage};
use crate::ops::OpError;
use crate::ops::access::shape;

/// A storage that kernels read in packed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PackedFormat {
    /// [`Storage::W4a16`]: 4.125 bits per weight.
    W4a16,
    /// [`Storage::Q8_0`]: 8.5 bits per weight.
    Q8_0,
    /// [`Storage::Q4K`]: 4.625 bits per weight. Its scales and minima take 8 bits each, instead of 6.
    Q4K,
    /// [`Storage::Fp8`]: 8.125 bits per weight.
    Fp8,
}

impl PackedFormat {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::W4a16, Self::Q8_0, Self::Q4K, Self::Fp8];

    /// How weights of this storage are packed. `None` if they are not quantised.
    pub fn of(storage: Storage) -> Option<Self> {
        match storage {
            Storage::F32 | Storage::Bf16 => None,
            Storage::W4a16 => Some(Self::W4a16),
            Storage::Q8_0 => Some(Self::Q8_0),
            Storage::Q4K => Some(Self::Q4K),
            Storage::Fp8 => Some(Self::Fp8),
        }
    }

    /// What is packed.
    pub fn storage(self) -> Storage {
        match self {
            Self::W4a16 => Storage::W4a16,
            Self::Q8_0 => Storage::Q8_0,
            Self::Q4K => Storage::Q4K,
            Self::Fp8 => Storage::Fp8,
        }
    }

    /// A row must be a whole number of so many columns.
    pub fn columns_multiple(self) -> usize {
        self.storage().block_columns().max(STEP)
    }

    /// Bytes of packed weights, of which each expert has `rows` and `columns`.
    pub fn bytes(self, experts: usize, rows: usize, columns: usize) -> usize {
        experts * rows.div_ceil(STRIP) * self.strip_bytes(columns)
    }

    /// Bytes that a step takes in a block's shared memory.
    pub(super) fn shared_bytes(self) -> u32 {
        let bytes = match self {
            Self::Q4K => Q4_K_FACTORS + Q4_K_STEP,
            _ => self.strip_bytes(STEP),
        };
        bytes as u32
    }

    fn strip_bytes(self, columns: usize) -> usize {
        match self {
            Self::W4a16 => columns / STEP * (64 + 2048),
            Self::Q8_0 => columns / STEP * (4 * 64 + 4096),
            Self::Q4K => columns / 256 * (Q4_K_FACTORS + 2 * Q4_K_STEP),
            Self::Fp8 => columns / STEP * (64 + 4096),
        }
    }
}

/// Packed weights of one linear layer, or of one side of all experts of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// What was packed.
    pub format: PackedFormat,
    /// 1, or how many experts there are.
    pub experts: usize,
    /// Output width of each expert.
    pub rows: usize,
    /// Input width.
    pub columns: usize,
    /// `[experts, ceil(rows / 32), columns / 128]` steps
    pub bytes: Vec<u8>,
}

impl Packed {
    /// Packs, on all threads. Nothing is rounded.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `blocks` are not quantised, if their rows are not a whole number of steps, or if their bytes
    /// are not as many as they should be.
    pub fn new(blocks: &Blocks) -> Result<Self, OpError> {
        let &Blocks {
            storage,
            experts,
            rows,
            columns,
            ref bytes,
        } = blocks;
        let refuse = |argument, expected: String, given: String| {
            Err(shape("pack", argument, expected, given))
        };
        let Some(format) = PackedFormat::of(storage) else {
            return refuse("storage", "quantised".into(), storage.name().into());
        };
        let multiple = format.columns_multiple();
        if columns % multiple != 0 {
            let expected = format!("a multiple of {multiple} for {storage}");
            return refuse("columns", expected, columns.to_string());
        }
        let row_bytes = storage.row_bytes(columns);
        if bytes.len() != experts * rows * row_bytes {
            let expected = format!("{} bytes", experts * rows * row_bytes);
            return refuse("bytes", expected, format!("{} bytes", bytes.len()));
        }
        let mut packed = vec![0; format.bytes(experts, rows, columns)];
        if !packed.is_empty() {
            let strips = rows.div_ceil(STRIP);
            let pack = |(index, to): (usize, &mut [u8])| {
                let (expert, first) = (index / strips, index % strips * STRIP);
                for row in first..rows.min(first + STRIP) {
                    let from = &bytes[(expert * rows + row) * row_bytes..][..row_bytes];
                    pack_row(format, from, row - first, to);
                }
            };
            packed
                .par_chunks_mut(format.strip_bytes(columns))
                .enumerate()
                .for_each(pack);
        }
        Ok(Self {
            format,
            experts,
            rows,
            columns,
            bytes: packed,
        })
    }
}

/// Packs row `row` of a strip.
fn pack_row(format: PackedFormat, from: &[u8], row: usize, strip: &mut [u8]) {
    match format {
        PackedFormat::W4a16 => {
            for (block, step) in from.chunks_exact(66).zip(strip.chunks_exact_mut(2112)) {
                step[scale_at(row)..][..2].copy_from_slice(&block[..2]);
                let code = |column: usize| block[2 + column / 2] >> (4 * (column % 2)) & 15;
                pack_nibbles(code, 2, row, &mut step[64..]);
            }
        }
        PackedFormat::Q8_0 => {
            for (blocks, step) in from.chunks_exact(136).zip(strip.chunks_exact_mut(4352)) {
                for (group, block) in blocks.chunks_exact(34).enumerate() {
                    step[64 * group + scale_at(row)..][..2].copy_from_slice(&block[..2]);
                }
                let code = |column: usize| blocks[34 * (column / 32) + 2 + column % 32];
                pack_bytes(code, 2, row, &mut step[256..]);
            }
        }
        PackedFormat::Q4K => {
            let two_steps = Q4_K_FACTORS + 2 * Q4_K_STEP;
            for (block, both) in from
                .chunks_exact(144)
                .zip(strip.chunks_exact_mut(two_steps))
            {
                let (factors, steps) = both.split_at_mut(Q4_K_FACTORS);
                factors[scale_at(row)..][..2].copy_from_slice(&block[..2]);
                factors[64 + scale_at(row)..][..2].copy_from_slice(&block[2..4]);
                for (half, step) in steps.chunks_exact_mut(Q4_K_STEP).enumerate() {
                    for group in 0..4 {
                        let pair = six_bits(&block[4..16], 4 * half + group);
                        step[64 * group + scale_at(row)..][..2].copy_from_slice(&pair);
                    }
                    let code = |column: usize| {
                        let byte = 64 * half + column / 64 * 32 + column % 32;
                        block[16 + byte] >> (4 * (column / 32 % 2)) & 15
                    };
                    pack_nibbles(code, 1, row, &mut step[256..]);
                }
            }
        }
        PackedFormat::Fp8 => {
            for (block, step) in from.chunks_exact(130).zip(strip.chunks_exact_mut(4160)) {
                step[scale_at(row)..][..2].copy_from_slice(&block[..2]);
                pack_bytes(|column| block[2 + column], 4, row, &mut step[64..]);
            }
        }
    }
}

/// Where the two bytes for a row lie in the 64 of a group.
fn scale_at(row: usize) -> usize {
    row % 8 / 2 * 16 + row / 8 * 4 + row % 2 * 2
}

/// Scale and minimum of one of the eight groups of a q4_k block, from the 12 bytes that hold all of them.
fn six_bits(bytes: &[u8], group: usize) -> [u8; 2] {
    if group < 4 {
        [bytes[group] & 63, bytes[group + 4] & 63]
    } else {
        let (upper, low) = (&bytes[group - 4..], bytes[group + 4]);
        [low & 15 | upper[0] >> 6 << 4, low >> 4 | upper[4] >> 6 << 4]
    }
}

/// Packs the 128 codes of a row's step, a word for each 32 of them and `words` of a run together.
fn pack_nibbles(code: impl Fn(usize) -> u8, words: usize, row: usize, codes: &mut [u8]) {
    for quarter in 0..4 {
        for index in 0..STEP / 32 {
            let word = (0..4).fold(0, |word, eight| {
                let column = 32 * index + 8 * eight + 2 * quarter;
                let (even, odd) = (u32::from(code(column)), u32::from(code(column + 1)));
                word | even << (4 * eight) | odd << (16 + 4 * eight)
            });
            let at = word_at(index, STEP / 32, words, row, quarter);
            codes[at..][..4].copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// Packs the 128 codes of a row's step, a word for each 16 of them and `words` of a run together.
fn pack_bytes(code: impl Fn(usize) -> u8, words: usize, row: usize, codes: &mut [u8]) {
    for quarter in 0..4 {
        for index in 0..STEP / 16 {
            let column = 16 * index + 2 * quarter;
            let word = [column, column + 8, column + 1, column + 9].map(&code);
            let at = word_at(index, STEP / 16, words, row, quarter);
            codes[at..][..4].copy_from_slice(&word);
        }
    }
}

/// Where a row's word `index`, of so many in a step, lies for a lane. `words` of them are a run.
fn word_at(index: usize, in_step: usize, words: usize, row: usize, quarter: usize) -> usize {
    let (run, lane) = (index / words, row % 8 * 4 + quarter);
    4 * (((row / 8 * (in_step / words) + run) * 32 + lane) * words + index % words)
}

/// Columns that the kernels multiply at a time.
const STEP: usize = 128;
/// Rows that are packed together.
const STRIP: usize = 32;
/// Of 256 columns of a q4_k strip, `d` and `dmin`.
const Q4_K_FACTORS: usize = 2 * 64;
/// What else each of their two steps has: a byte for each scale and minimum, and the codes.
const Q4_K_STEP: usize = 4 * 64 + 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_packed_is_refused_by_name() {
        let refused = |storage, columns, bytes| {
            let blocks = Blocks {
                storage,
                experts: 2,
                rows: 3,
                columns,
                bytes: vec![0; bytes],
            };
            Packed::new(&blocks).unwrap_err().to_string()
        };
        assert_eq!(
            refused(Storage::Bf16, 128, 1536),
            "pack: `storage` is bf16, expected quantised"
        );
        assert_eq!(
            refused(Storage::Q8_0, 160, 2 * 3 * 170),
            "pack: `columns` is 160, expected a multiple of 128 for q8_0"
        );
        assert_eq!(
            refused(Storage::W4a16, 256, 791),
            "pack: `bytes` is 791 bytes, expected 792 bytes"
        );
    }

    #[test]
    fn packed_sizes_are_bits_per_weight() {
        let bits = PackedFormat::ALL.map(|format| {
            assert_eq!(PackedFormat::of(format.storage()), Some(format));
            format.bytes(8, 4096, 14_336) as f64 * 8.0 / (8.0 * 4096.0 * 14_336.0)
        });
        assert_eq!(bits, [4.125, 8.5, 4.625, 8.125]);
    }
}
