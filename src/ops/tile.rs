//! The tiles that tensor-core products are cut into (`kernels/grouped_gemm.cu`, `kernels/warpgroup_bf16.cu`).

use super::{Multiplier, Side};

/// How many rows a block multiplies with 128 columns of weights, or with 256. Each output is the same sum in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tile {
    Rows16,
    Rows64,
    Rows128,
    /// 128 rows and 256 columns.
    Warpgroups,
}

impl Tile {
    const STAGES: u32 = 4;

    /// Those of such a device.
    #[cfg(test)]
    pub fn all(by: Multiplier) -> impl Iterator<Item = Self> {
        let all = [Self::Rows16, Self::Rows64, Self::Rows128, Self::Warpgroups];
        let has = move |tile: &Self| *tile != Self::Warpgroups || by == Multiplier::Warpgroups;
        all.into_iter().filter(has)
    }

    /// For so many rows, of one expert on average. Some experts have more: then their weights are read again, from L2.
    pub fn for_rows(by: Multiplier, rows: u32) -> Self {
        match (rows, by) {
            (0..=12, _) => Self::Rows16,
            (13..=96, _) => Self::Rows64,
            (_, Multiplier::Warps) => Self::Rows128,
            (_, Multiplier::Warpgroups) => Self::Warpgroups,
        }
    }

    pub fn rows(self) -> u32 {
        match self {
            Self::Rows16 => 16,
            Self::Rows64 => 64,
            Self::Rows128 | Self::Warpgroups => 128,
        }
    }

    pub fn columns(self) -> u32 {
        match self {
            Self::Warpgroups => 256,
            _ => 128,
        }
    }

    pub fn threads(self) -> u32 {
        match self {
            Self::Rows16 | Self::Rows64 => 128,
            Self::Rows128 | Self::Warpgroups => 256,
        }
    }

    /// Dynamic shared memory: tiles of 64 bf16 of each row and column, a few under way at a time.
    pub fn shared_bytes(self) -> u32 {
        Self::STAGES * (self.rows() + self.columns()) * 128
    }

    pub fn experts_kernel(self, side: Side) -> &'static str {
        match (side, self) {
            (Side::In, Self::Rows16) => "experts_in_bf16_m16",
            (Side::In, Self::Rows64) => "experts_in_bf16_m64",
            (Side::In, Self::Rows128) => "experts_in_bf16_m128",
            (Side::In, Self::Warpgroups) => "experts_in_bf16_warpgroups",
            (Side::Out, Self::Rows16) => "experts_out_bf16_m16",
            (Side::Out, Self::Rows64) => "experts_out_bf16_m64",
            (Side::Out, Self::Rows128) => "experts_out_bf16_m128",
            (Side::Out, Self::Warpgroups) => "experts_out_bf16_warpgroups",
        }
    }

    pub fn linear_kernel(self) -> &'static str {
        match self {
            Self::Rows16 => "linear_bf16_m16",
            Self::Rows64 => "linear_bf16_m64",
            Self::Rows128 => "linear_bf16_m128",
            Self::Warpgroups => "linear_bf16_warpgroups",
        }
    }
}
