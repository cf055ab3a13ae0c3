//! From rows of numbers to rows of blocks, and back.

use half::{bf16, f16};
use rayon::prelude::*;

use super::{Blocks, Storage, fp8, q4_k, q8_0, w4a16};

/// Why weights cannot be stored in blocks. Reads on from the name of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum QuantiseError {
    /// A row is no whole number of blocks.
    #[error("has rows of {columns} weights, {storage} stores them in blocks of {}", storage.block_columns())]
    Columns {
        /// Weights of a row.
        columns: usize,
        /// What was asked for.
        storage: Storage,
    },
    /// A weight is infinite or not a number.
    #[error("holds {value} in row {row}, column {column}: {storage} stores finite weights only")]
    NotFinite {
        /// The weight.
        value: f32,
        /// Where it stands.
        row: usize,
        /// Where it stands.
        column: usize,
        /// What was asked for.
        storage: Storage,
    },
    /// A block's scale would be infinite in half precision.
    #[error("holds {value:e} in row {row}, column {column}: too large for the scales of {storage}")]
    TooLarge {
        /// The weight.
        value: f32,
        /// Where it stands.
        row: usize,
        /// Where it stands.
        column: usize,
        /// What was asked for.
        storage: Storage,
    },
}

impl QuantiseError {
    /// Storages whose blocks divide a row that was refused for its length, such as `q8_0, bf16`.
    pub fn divides(&self) -> Option<String> {
        let Self::Columns { columns, .. } = self else {
            return None;
        };
        let fits = |storage: &Storage| columns.is_multiple_of(storage.block_columns());
        let names = Storage::ALL.into_iter().filter(fits).map(Storage::name);
        Some(names.collect::<Vec<_>>().join(", "))
    }
}

impl Blocks {
    /// Stores `[experts, rows, columns]` weights. `read` fills in the row of an index below `experts * rows`; it is
    /// called from several threads, once for each row, and no more than a row per thread is held beside the result.
    ///
    /// # Errors
    /// [`QuantiseError`] for the first row that cannot be stored.
    pub fn quantise(
        storage: Storage,
        [experts, rows, columns]: [usize; 3],
        read: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Self, QuantiseError> {
        if !columns.is_multiple_of(storage.block_columns()) {
            return Err(QuantiseError::Columns { columns, storage });
        }
        let row_bytes = storage.row_bytes(columns);
        let mut bytes = vec![0; experts * rows * row_bytes];
        let failed = bytes
            .par_chunks_exact_mut(row_bytes.max(1))
            .enumerate()
            .map_init(
                || vec![0.0; columns],
                |weights, (row, bytes)| {
                    read(row, weights);
                    storage.quantise_row(row, weights, bytes)
                },
            )
            .find_first(Result::is_err);
        match failed {
            Some(Err(error)) => Err(error),
            _ => Ok(Self {
                storage,
                experts,
                rows,
                columns,
                bytes,
            }),
        }
    }

    /// Row `row` of all experts' rows, as numbers.
    ///
    /// # Panics
    /// If there is no such row, or `weights` is not as long as one.
    pub fn dequantise_row(&self, row: usize, weights: &mut [f32]) {
        assert_eq!(weights.len(), self.columns, "a row has so many weights");
        let row_bytes = self.storage.row_bytes(self.columns);
        let bytes = &self.bytes[row * row_bytes..][..row_bytes];
        match self.storage {
            Storage::F32 => {
                let numbers = bytes.as_chunks::<4>().0.iter();
                let numbers = numbers.map(|bytes| f32::from_le_bytes(*bytes));
                weights.iter_mut().zip(numbers).for_each(|(to, w)| *to = w);
            }
            Storage::Bf16 => {
                let numbers = bytes.as_chunks::<2>().0.iter();
                let numbers = numbers.map(|bytes| bf16::from_le_bytes(*bytes).to_f32());
                weights.iter_mut().zip(numbers).for_each(|(to, w)| *to = w);
            }
            Storage::W4a16 => blocks(bytes, weights, w4a16::dequantise),
            Storage::Q8_0 => blocks(bytes, weights, q8_0::dequantise),
            Storage::Q4K => blocks(bytes, weights, q4_k::dequantise),
            Storage::Fp8 => blocks(bytes, weights, fp8::dequantise),
        }
    }
}

impl Storage {
    /// Stores a row, which is a whole number of blocks; `row` is for the error.
    fn quantise_row(
        self,
        row: usize,
        weights: &[f32],
        bytes: &mut [u8],
    ) -> Result<(), QuantiseError> {
        let storage = self;
        if let Some(column) = weights.iter().position(|weight| !weight.is_finite()) {
            return Err(QuantiseError::NotFinite {
                value: weights[column],
                row,
                column,
                storage,
            });
        }
        let failed = match self {
            Self::F32 => {
                for (bytes, weight) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(weights) {
                    *bytes = weight.to_le_bytes();
                }
                None
            }
            Self::Bf16 => {
                for (bytes, &weight) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(weights) {
                    *bytes = bf16::from_f32(weight).to_le_bytes();
                }
                None
            }
            Self::W4a16 => each_block(weights, bytes, w4a16::quantise),
            Self::Q8_0 => each_block(weights, bytes, q8_0::quantise),
            Self::Q4K => each_block(weights, bytes, q4_k::quantise),
            Self::Fp8 => each_block(weights, bytes, fp8::quantise),
        };
        match failed {
            None => Ok(()),
            Some(first) => {
                let block = &weights[first..][..self.block_columns()];
                let largest = (0..block.len())
                    .max_by(|&a, &b| block[a].abs().total_cmp(&block[b].abs()))
                    .unwrap_or(0);
                Err(QuantiseError::TooLarge {
                    value: block[largest],
                    row,
                    column: first + largest,
                    storage,
                })
            }
        }
    }
}

/// Quantises a row block by block; the first column of the block that failed.
fn each_block<const COLUMNS: usize, const BYTES: usize>(
    weights: &[f32],
    bytes: &mut [u8],
    quantise: impl Fn(&[f32; COLUMNS], &mut [u8; BYTES]) -> Option<()>,
) -> Option<usize> {
    let (weights, bytes) = (weights.as_chunks().0, bytes.as_chunks_mut().0);
    let mut blocks = weights.iter().zip(bytes);
    let failed = blocks.position(|(weights, bytes)| quantise(weights, bytes).is_none());
    failed.map(|block| block * COLUMNS)
}

fn blocks<const COLUMNS: usize, const BYTES: usize>(
    bytes: &[u8],
    weights: &mut [f32],
    dequantise: impl Fn(&[u8; BYTES], &mut [f32; COLUMNS]),
) {
    let (bytes, weights) = (bytes.as_chunks().0, weights.as_chunks_mut().0);
    for (bytes, weights) in bytes.iter().zip(weights) {
        dequantise(bytes, weights);
    }
}

/// The f16 in two bytes, which is finite. Without a call or a branch, as `half` needs them: a scale is read for every
/// 32 weights.
#[inline(always)]
pub fn widen(bytes: [u8; 2]) -> f32 {
    let half = u32::from(u16::from_le_bytes(bytes));
    // The f16's exponent and fraction in their places of an f32 are 2^-112 of the value, subnormal or not.
    let magnitude = f32::from_bits((half & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(magnitude.to_bits() | (half & 0x8000) << 16)
}

/// The nearest f16, in two bytes and as it reads back; `None` if that is infinite.
pub fn narrow(scale: f32) -> Option<([u8; 2], f32)> {
    let half = f16::from_f32(scale);
    half.is_finite()
        .then(|| (half.to_le_bytes(), half.to_f32()))
}

#[cfg(test)]
mod tests;
