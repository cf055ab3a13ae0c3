//! Whether a device's warpgroups multiply as its warps do, to the last bit: asked before they are used.
//!
//! By what is published of Hopper they do (`kernels/emulate/runtime/arithmetic.h`). If a GPU or a driver does otherwise, a
//! row's bits would depend on how many share its step; then warpgroups are left alone.

use half::{bf16, f16};

use super::device::{Device, Memory};
use super::linear::linear_launch_with;
use super::quantised::launch::{self, quantised_linear_launch_with};
use super::tile::Tile;
use super::{Address, Blocks, OpError, Packed, PackedFormat};

/// Rows, columns and width of the products that are compared: a block of each, but more of the width than is in shared memory
/// at a time.
const SIZES: [usize; 3] = [128, 128, 896];

/// Multiplies random rows and weights of each stored form both ways.
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
    Ok(true)
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
        let half = |bits: u32| {
            let (sign, exponent, fraction) = (bits >> 31, bits >> 8 & 31, bits & 0x7f);
            bf16::from_bits((sign << 15 | (111 + exponent) << 7 | fraction) as u16)
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
}
