//! The tiles that tensor-core products are cut into (`kernels/grouped_gemm.cu`).

use super::Side;

/// How many rows a block multiplies with 128 columns of weights. Each output is the same sum in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tile {
    Rows16,
    Rows64,
    Rows128,
}

impl Tile {
    pub const COLUMNS: u32 = 128;
    const STAGES: u32 = 4;

    /// For so many rows, of one expert on average. Some experts have more: then their weights are read again, from L2.
    pub fn for_rows(rows: u32) -> Self {
        match rows {
            0..=12 => Self::Rows16,
            13..=96 => Self::Rows64,
            _ => Self::Rows128,
        }
    }

    pub fn rows(self) -> u32 {
        match self {
            Self::Rows16 => 16,
            Self::Rows64 => 64,
            Self::Rows128 => 128,
        }
    }

    pub fn threads(self) -> u32 {
        match self {
            Self::Rows16 | Self::Rows64 => 128,
            Self::Rows128 => 256,
        }
    }

    /// Dynamic shared memory: tiles of 64 bf16 of each row and column, a few under way at a time.
    pub fn shared_bytes(self) -> u32 {
        Self::STAGES * (self.rows() + Self::COLUMNS) * 128
    }

    pub fn experts_kernel(self, side: Side) -> &'static str {
        match (side, self) {
            (Side::In, Self::Rows16) => "experts_in_bf16_m16",
            (Side::In, Self::Rows64) => "experts_in_bf16_m64",
            (Side::In, Self::Rows128) => "experts_in_bf16_m128",
            (Side::Out, Self::Rows16) => "experts_out_bf16_m16",
            (Side::Out, Self::Rows64) => "experts_out_bf16_m64",
            (Side::Out, Self::Rows128) => "experts_out_bf16_m128",
        }
    }

    pub fn linear_kernel(self) -> &'static str {
        match self {
            Self::Rows16 => "linear_bf16_m16",
            Self::Rows64 => "linear_bf16_m64",
            Self::Rows128 => "linear_bf16_m128",
        }
    }
}
