//! Whether a device's warpgroups multiply, and attend, as its warps do, to the last bit: asked before they are used.
//!
//! By what is published of Hopper they do (`kernels/emulate/runtime/arithmetic.h`). If a GPU or a driver does otherwise, a
//! row's bits would depend on how many share its step; then warpgroups are left alone.

use half::{bf16, f16};

use super::device::{Device, Memory};
use super::linear::linear_launch_with;
use super::paged_attention::launch::{Prefill, launches_with};
use super::quantised::launch::{self, quantised_linear_launch_with};
use super::tile::Tile;
use super::{
    Address, AttentionSizes, Blocks, Multiplier, OpError, Packed, PackedFormat, PagedAttention,
};

/// Rows, columns and width of the products that are compared: a block of each, but more of the width than is in shared memory
/// at a time.
const SIZES: [usize; 3] = [128, 128, 896];

/// Heads of attention, and of keys; rows that attend, and keys that are there before them; blocks of so many; a window. Two
/// tiles of rows, of which the second is not full, and a tile of keys at the edge of each row's sight at either end.
const HEADS: [usize; 2] = [2, 1];
const ROWS: [usize; 2] = [150, 43];
const BLOCK_SIZE: usize = 16;
const WINDOW: u32 = 101;

/// Multiplies random rows and weights of each stored form both ways, and attends over random keys and values.
///
/// # Errors
/// [`OpError::Driver`] if the device fails.
pub fn warpgroups_agree<D: Device>(device: &D) -> Result<bool, OpError> {
    let [rows, columns, width] = SIZES;
    let mut random = Random(1);
    let x: Vec<u8> = random.halves(rows * width);
    let x = uploaded(device, &x)?;
    let y = device.allocate(rows * columns * size_of::<f32>())?;
    let sizes = SIZES.map(|size| size as u32);
    let said = |launch: super::Launch| -> Result<Vec<u8>, OpError> {
        let mut bytes = vec![0; rows * columns * size_of::<f32>()];
        device.upload(&bytes, y.address())?;
        device.launch(&launch)?;
        device.download(y.address(), &mut bytes)?;
        Ok(bytes)
    };
    let w = uploaded(device, &random.halves(columns * width))?;
    let by = |tile| linear_launch_with(tile, [x.address(), w.address(), y.address()], sizes);
    if said(by(Tile::Rows128))? != said(by(Tile::Warpgroups))? {
        return Ok(false);
    }
    for format in PackedFormat::ALL {
        if !launch::has_warpgroups(format) {
            continue;
        }
        let w = uploaded(device, &random.packed(format, columns, width)?)?;
        let at: [Address; 3] = [x.address(), w.address(), y.address()];
        let by = |tile| quantised_linear_launch_with(tile, format, at, sizes);
        if said(by(launch::Tile::Rows128))? != said(by(launch::Tile::Warpgroups))? {
            return Ok(false);
        }
    }
    for head_dim in [64, 128] {
        for window in [0, WINDOW] {
            let said = attended(device, &mut random, head_dim, window)?;
            if said.iter().any(|it| *it != said[0]) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// What each kernel makes of the same random queries, keys and values.
fn attended<D: Device>(
    device: &D,
    random: &mut Random,
    head_dim: usize,
    window: u32,
) -> Result<Vec<Vec<u8>>, OpError> {
    let ([heads, kv_heads], [rows, cached]) = (HEADS, ROWS);
    let keys = rows + cached;
    let blocks = keys.div_ceil(BLOCK_SIZE);
    let cache = blocks * BLOCK_SIZE * kv_heads * head_dim;
    let words = |words: &[u32]| uploaded(device, bytemuck::cast_slice(words));
    let q = uploaded(device, &random.small_halves(rows * heads * head_dim))?;
    let k_cache = uploaded(device, &random.small_halves(cache))?;
    let v_cache = uploaded(device, &random.small_halves(cache))?;
    let tables = words(&Vec::from_iter((0..blocks as u32).rev()))?;
    let starts = words(&[0, rows as u32])?;
    let [zero, lens] = [words(&[0])?, words(&[keys as u32])?];
    let mut bytes = vec![0; rows * heads * head_dim * 2];
    let out = device.allocate(bytes.len())?;
    let at = PagedAttention {
        q: q.address(),
        k_cache: k_cache.address(),
        v_cache: v_cache.address(),
        block_tables: tables.address(),
        table_starts: zero.address(),
        cu_seqlens_q: starts.address(),
        context_lens: lens.address(),
        // No row is alone: nothing is decoded.
        scratch: out.address(),
        out: out.address(),
    };
    let sizes = AttentionSizes {
        num_tokens: rows as u32,
        num_seqs: 1,
        max_rows: rows as u32,
        max_context: keys as u32,
        block_size: BLOCK_SIZE as u32,
        window,
        heads: heads as u32,
        kv_heads: kv_heads as u32,
        head_dim: head_dim as u32,
    };
    let said = |prefill| {
        bytes.fill(0);
        device.upload(&bytes, out.address())?;
        for launch in launches_with(prefill, at, sizes) {
            device.launch(&launch)?;
        }
        device.download(out.address(), &mut bytes)?;
        Ok(bytes.clone())
    };
    Prefill::all(Multiplier::Warpgroups, head_dim as u32)
        .map(said)
        .collect()
}

fn uploaded<D: Device>(device: &D, bytes: &[u8]) -> Result<D::Memory, OpError> {
    let memory = device.allocate(bytes.len())?;
    device.upload(bytes, memory.address())?;
    Ok(memory)
}

/// Numbers in no particular order: a linear congruential generator (Knuth's MMIX), of which the upper bits are used.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = (self.0)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// bf16 of either sign and of 32 sizes, so that sums lose digits.
    fn halves(&mut self, count: usize) -> Vec<u8> {
        self.sized(count, [111, 32])
    }

    /// The same from 1/64 to 4, so that a softmax leaves many keys some weight.
    fn small_halves(&mut self, count: usize) -> Vec<u8> {
        self.sized(count, [121, 8])
    }

    /// So many exponents, a power of two, from the least on.
    fn sized(&mut self, count: usize, [least, exponents]: [u32; 2]) -> Vec<u8> {
        let half = |bits: u32| {
            let (sign, exponent, fraction) = (bits >> 31, bits >> 8 & (exponents - 1), bits & 0x7f);
            bf16::from_bits((sign << 15 | (least + exponent) << 7 | fraction) as u16)
        };
        (0..count)
            .flat_map(|_| half(self.next()).to_le_bytes())
            .collect()
    }

    /// Codes of any kind, and scales.
    fn packed(
        &mut self,
        format: PackedFormat,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<u8>, OpError> {
        let storage = format.storage();
        let mut bytes = Vec::with_capacity(rows * storage.row_bytes(columns));
        for _ in 0..rows * columns / storage.block_columns() {
            let scale = f16::from_f32((self.next() >> 8) as f32 / (1 << 24) as f32);
            bytes.extend(scale.to_le_bytes());
            // 0x7f and 0xff are no numbers in E4M3.
            bytes.extend((2..storage.block_bytes()).map(|_| self.next() as u8 & 0xbf));
        }
        let blocks = Blocks {
            storage,
            experts: 1,
            rows,
            columns,
            bytes,
        };
        Ok(Packed::new(&blocks)?.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Multiplier;
    use crate::ops::emulated::Emulated;

    #[test]
    fn warpgroups_say_what_warps_say() {
        let device = Emulated::default();
        assert_eq!(device.multiplier(), Multiplier::Warpgroups);
        assert!(warpgroups_agree(&device).unwrap());
    }

    #[test]
    fn one_kernel_that_says_something_else_is_enough() {
        for kernel in [
            "linear_bf16_warpgroups",
            "experts_out_w4a16_warpgroups",
            "experts_out_q8_0_warpgroups",
            "experts_out_fp8_warpgroups",
            "paged_prefill_d64_warpgroups",
            "paged_prefill_d128_warpgroups",
        ] {
            let device = Emulated::without(kernel);
            assert!(!warpgroups_agree(&device).unwrap(), "{kernel}");
        }
    }
}
