//! Quantised weights: how a row of a linear layer is cut into blocks, and the bytes of each block.
//!
//! A block is a run of consecutive columns of one row with its scale before its codes. Rows follow each other, and so do
//! blocks within a row, so that byte 0 of row `r` lies at `r * storage.row_bytes(columns)`.

use std::fmt;

pub(super) mod fp8;
pub(super) mod launch;
mod packed;
pub(super) mod q4_k;
pub(super) mod q8_0;
mod rows;
pub(super) mod w4a16;

pub use launch::{quantised_experts_launch, quantised_linear_launch};
pub use packed::{Packed, PackedFormat};
pub use rows::QuantiseError;

/// How the weights of a linear layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// 4 bytes per weight.
    F32,
    /// 2 bytes per weight.
    Bf16,
    /// 128 weights in 66 bytes: an f16 `scale`, then 64 bytes of 4-bit codes. Byte `j` holds column `2j` in its low half
    /// and `2j + 1` in its high half; a weight is `scale * (code - 8)`.
    W4a16,
    /// 32 weights in 34 bytes, as GGML has them: an f16 `scale`, then 32 signed bytes; a weight is `scale * code`.
    Q8_0,
    /// 256 weights in 144 bytes, as GGML has them (`block_q4_K`): f16 `d` and `dmin`, 12 bytes of eight 6-bit scales and
    /// minima, 128 bytes of 4-bit codes; a weight is `d * scale * code - dmin * min`, with a scale and a minimum for each
    /// 32 columns.
    Q4K,
    /// 128 weights in 130 bytes: an f16 `scale`, then 128 codes in E4M3 (OCP 8-bit floating point, 2023: no infinities,
    /// 448 is the largest); a weight is `scale * code`.
    Fp8,
}

impl Storage {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::F32,
        Self::Bf16,
        Self::W4a16,
        Self::Q8_0,
        Self::Q4K,
        Self::Fp8,
    ];

    /// Its name in configuration and messages, such as `w4a16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::W4a16 => "w4a16",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
            Self::Fp8 => "fp8",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|storage| storage.name() == name)
    }

    /// Columns of a block. A row must be a whole number of blocks.
    pub fn block_columns(self) -> usize {
        match self {
            Self::F32 | Self::Bf16 => 1,
            Self::Q8_0 => 32,
            Self::W4a16 | Self::Fp8 => 128,
            Self::Q4K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Q8_0 => 2 + 32,
            Self::W4a16 => 2 + 64,
            Self::Fp8 => 2 + 128,
            Self::Q4K => 2 + 2 + 12 + 128,
        }
    }

    /// Bytes of a row of `columns`, a whole number of blocks.
    pub fn row_bytes(self, columns: usize) -> usize {
        columns / self.block_columns() * self.block_bytes()
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The quantised weights of one linear layer, or of one side of all experts of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// What the bytes mean.
    pub storage: Storage,
    /// 1, or how many experts there are.
    pub experts: usize,
    /// Output width of each expert.
    pub rows: usize,
    /// Input width: a whole number of blocks.
    pub columns: usize,
    /// `[experts, rows, columns / block_columns, block_bytes]`
    pub bytes: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_sizes_are_bits_per_weight() {
        let bits = Storage::ALL.map(|storage| {
            assert_eq!(Storage::named(storage.name()), Some(storage));
            storage.row_bytes(4096) as f64 * 8.0 / 4096.0
        });
        assert_eq!(bits, [32.0, 16.0, 4.125, 8.5, 4.5, 8.125]);
        assert_eq!(Storage::named("int3"), None);
    }
}
