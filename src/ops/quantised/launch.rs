//! Launches of products with packed weights (`kernels/quantised_gemm.cuh`, `kernels/warpgroup_quantised.cu`).

use super::packed::PackedFormat;
use crate::ops::launch::{Address, Launch};
use crate::ops::{GroupedLinear, GroupedSizes, Multiplier, Side};

/// Launches [`crate::ops::grouped_linear`] on tensor cores, with quantised weights.
///
/// As [`crate::ops::grouped_linear_launch`], but for `at.w`, which are [`super::Packed::bytes`], and `sizes.k`, which is a
/// multiple of [`PackedFormat::columns_multiple`]. Each output is the same sum whatever shares the step.
pub fn quantised_experts_launch(
    by: Multiplier,
    format: PackedFormat,
    at: GroupedLinear,
    side: Side,
    sizes: GroupedSizes,
) -> Launch {
    let tile = Tile::for_sizes((by, format), sizes.num_pairs, sizes.num_experts, sizes.n);
    quantised_experts_launch_with(tile, format, at, side, sizes)
}

/// The same, in blocks of `tile`.
pub(in crate::ops) fn quantised_experts_launch_with(
    tile: Tile,
    format: PackedFormat,
    at: GroupedLinear,
    side: Side,
    sizes: GroupedSizes,
) -> Launch {
    let GroupedSizes {
        num_pairs,
        n,
        k,
        num_experts,
        top_k,
    } = sizes;
    Launch {
        kernel: kernel(format, tile, side),
        grid: [
            n.div_ceil(tile.columns()),
            tile.most_row_blocks(num_pairs, num_experts),
            1,
        ],
        block: [tile.threads(), 1, 1],
        shared_bytes: tile.shared_bytes(format),
        arguments: vec![
            at.x.into(),
            at.w.into(),
            at.order.into(),
            at.offsets.into(),
            at.y.into(),
            num_pairs.into(),
            n.into(),
            k.into(),
            num_experts.into(),
            top_k.into(),
        ],
    }
}

/// Launches [`crate::ops::linear`] on tensor cores, with quantised weights.
///
/// - `x`: `[m, k]`, bf16
/// - `w`: [`super::Packed::bytes`] of one expert
/// - `y`: `[m, n]`, f32
///
/// `n` is a multiple of 8, `k` of [`PackedFormat::columns_multiple`].
pub fn quantised_linear_launch(
    by: Multiplier,
    format: PackedFormat,
    at: [Address; 3],
    sizes: [u32; 3],
) -> Launch {
    let tile = Tile::for_sizes((by, format), sizes[0], 1, sizes[1]);
    quantised_linear_launch_with(tile, format, at, sizes)
}

/// The same, in blocks of `tile`.
pub(in crate::ops) fn quantised_linear_launch_with(
    tile: Tile,
    format: PackedFormat,
    [x, w, y]: [Address; 3],
    [m, n, k]: [u32; 3],
) -> Launch {
    // No order is the order of rows.
    let (order, offsets) = (Address(0), Address(0));
    let at = GroupedLinear {
        x,
        w,
        order,
        offsets,
        y,
    };
    let sizes = GroupedSizes {
        num_pairs: m,
        n,
        k,
        num_experts: 1,
        top_k: 1,
    };
    let launch = quantised_experts_launch_with(tile, format, at, Side::Out, sizes);
    let grid = [launch.grid[0], m.div_ceil(tile.rows()), 1];
    Launch { grid, ..launch }
}

/// Which rows and columns a block multiplies. Each output is the same sum, bit for bit, in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Tile {
    Rows16Columns32,
    Rows16,
    Rows64,
    Rows128,
    /// 128 rows and columns, by warpgroups: of all formats but q4_k.
    Warpgroups,
}

impl Tile {
    #[cfg(test)]
    const ALL: [Self; 5] = [
        Self::Rows16Columns32,
        Self::Rows16,
        Self::Rows64,
        Self::Rows128,
        Self::Warpgroups,
    ];

    /// Those that a format has, on such a device.
    #[cfg(test)]
    pub fn all(by: Multiplier, format: PackedFormat) -> impl Iterator<Item = Self> {
        let has_warpgroups = by == Multiplier::Warpgroups && has_warpgroups(format);
        let has = move |tile: &Self| *tile != Self::Warpgroups || has_warpgroups;
        Self::ALL.into_iter().filter(has)
    }

    /// For so many rows in all, and so many columns.
    fn for_sizes(
        (by, format): (Multiplier, PackedFormat),
        rows: u32,
        experts: u32,
        n: u32,
    ) -> Self {
        match rows.div_ceil(experts) {
            0..=12 => {
                let wide = Self::Rows16;
                let blocks = n.div_ceil(wide.columns()) * wide.most_row_blocks(rows, experts);
                if blocks < FEW_BLOCKS {
                    Self::Rows16Columns32
                } else {
                    wide
                }
            }
            13..=96 => Self::Rows64,
            _ if by == Multiplier::Warpgroups && has_warpgroups(format) => Self::Warpgroups,
            _ => Self::Rows128,
        }
    }

    pub fn rows(self) -> u32 {
        match self {
            Self::Rows16Columns32 | Self::Rows16 => 16,
            Self::Rows64 => 64,
            Self::Rows128 | Self::Warpgroups => 128,
        }
    }

    pub fn columns(self) -> u32 {
        match self {
            Self::Rows16Columns32 => 32,
            _ => 128,
        }
    }

    fn threads(self) -> u32 {
        match self {
            Self::Rows16Columns32 | Self::Rows16 => 128,
            Self::Rows64 | Self::Rows128 | Self::Warpgroups => 256,
        }
    }

    /// Steps of `k` that are in shared memory at a time.
    fn stages(self, format: PackedFormat) -> u32 {
        let bytes = matches!(format, PackedFormat::Q8_0 | PackedFormat::Fp8);
        match self {
            Self::Rows16Columns32 if bytes => 6,
            Self::Rows16Columns32 => 8,
            Self::Rows16 if !bytes => 4,
            Self::Warpgroups if !bytes => 5,
            Self::Warpgroups => 4,
            Self::Rows16 | Self::Rows64 | Self::Rows128 => 3,
        }
    }

    /// Enough for any distribution of rows over experts.
    fn most_row_blocks(self, rows: u32, experts: u32) -> u32 {
        rows.min(experts) + rows / self.rows()
    }

    /// Of each step, 128 bf16 of each row and the strips of weights.
    fn shared_bytes(self, format: PackedFormat) -> u32 {
        let step = self.rows() * 256 + self.columns() / 32 * format.shared_bytes();
        self.stages(format) * step
    }
}

/// The minima of q4_k would cost a second product of x.
pub(in crate::ops) fn has_warpgroups(format: PackedFormat) -> bool {
    format != PackedFormat::Q4K
}

/// Fewer blocks of 128 columns than these leave a GPU's multiprocessors idle: an H100 has 132, and each takes two and more.
const FEW_BLOCKS: u32 = 264;

fn kernel(format: PackedFormat, tile: Tile, side: Side) -> &'static str {
    macro_rules! names {
        ($($format:ident $name:literal)*) => {
            match (format, tile, side) {$(
                (PackedFormat::$format, Tile::Rows16Columns32, Side::In) => concat!("experts_in_", $name, "_m16n32"),
                (PackedFormat::$format, Tile::Rows16, Side::In) => concat!("experts_in_", $name, "_m16"),
                (PackedFormat::$format, Tile::Rows64, Side::In) => concat!("experts_in_", $name, "_m64"),
                (PackedFormat::$format, Tile::Rows128, Side::In) => concat!("experts_in_", $name, "_m128"),
                (PackedFormat::$format, Tile::Rows16Columns32, Side::Out) => concat!("experts_out_", $name, "_m16n32"),
                (PackedFormat::$format, Tile::Rows16, Side::Out) => concat!("experts_out_", $name, "_m16"),
                (PackedFormat::$format, Tile::Rows64, Side::Out) => concat!("experts_out_", $name, "_m64"),
                (PackedFormat::$format, Tile::Rows128, Side::Out) => concat!("experts_out_", $name, "_m128"),
                (PackedFormat::$format, Tile::Warpgroups, Side::In) => concat!("experts_in_", $name, "_warpgroups"),
                (PackedFormat::$format, Tile::Warpgroups, Side::Out) => concat!("experts_out_", $name, "_warpgroups"),
            )*}
        };
    }
    names!(W4a16 "w4a16" Q8_0 "q8_0" Q4K "q4_k" Fp8 "fp8")
}

#[cfg(test)]
mod tests;
