//! Weights that are made up: each follows from its tensor's seed and its place there, the same on a CPU and on a GPU.
//!
//! Weight `i` of a tensor, counted row by row, is `(bits / 2²³ − 1) · bound` in f32, where `bits` are 24 of splitmix64
//! (Steele, Lea and Flood 2014) at `i`; bf16 rounds that. A quantised form holds the code that is nearest to it, with the
//! same scales for each block: of 128 such weights the largest is within some percent of `bound` in any case. So no step
//! depends on more than one weight, and a kernel (`kernels/synthetic.cu`) writes any part of any form by itself.

use half::{bf16, f16};
use rayon::prelude::*;

use super::launch::{Address, Argument, Launch, threads_for};
use super::quantised::fp8;
use super::{Blocks, PackedFormat, QuantiseError, Storage};

/// How the weights of a tensor are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Of the tensor.
    pub seed: u64,
    /// Weights lie between minus this and this.
    pub bound: f32,
}

impl Draw {
    /// Writes the tensor's weights from number `first` on, on all threads.
    pub fn fill(self, first: u64, weights: &mut [bf16]) {
        weights
            .par_chunks_mut(CHUNK)
            .enumerate()
            .for_each(|(chunk, weights)| {
                let first = first + (chunk * CHUNK) as u64;
                for (weight, place) in weights.iter_mut().zip(first..) {
                    *weight = bf16::from_f32(unit(self.bits(place)) * self.bound);
                }
            });
    }

    /// Writes a row of blocks, whose weights begin with number `first`.
    fn fill_blocks(self, storage: Storage, first: u64, row: &mut [u8]) {
        let scales = self.scales(storage).map(f16::to_le_bytes);
        let columns = storage.block_columns();
        let blocks = row.chunks_exact_mut(storage.block_bytes());
        for (block, first) in blocks.zip((first..).step_by(columns)) {
            let code = |column: usize| code(storage, self.bits(first + column as u64));
            block[..2].copy_from_slice(&scales[0]);
            match storage {
                Storage::W4a16 => {
                    for (at, byte) in block[2..].iter_mut().enumerate() {
                        *byte = code(2 * at) | code(2 * at + 1) << 4;
                    }
                }
                Storage::Q4K => {
                    block[2..4].copy_from_slice(&scales[1]);
                    block[4..16].copy_from_slice(&LARGEST_SIX_BITS);
                    for (at, byte) in block[16..].iter_mut().enumerate() {
                        let column = at / 32 * 64 + at % 32;
                        *byte = code(column) | code(column + 32) << 4;
                    }
                }
                _ => {
                    let codes = block[2..].iter_mut().enumerate();
                    codes.for_each(|(column, byte)| *byte = code(column));
                }
            }
        }
    }

    /// A block's scale; of q4_k, the factors of scales and minima, each of which is 63 of them.
    fn scales(self, storage: Storage) -> [f16; 2] {
        let scale = |divisor: f32| f16::from_f32(self.bound / divisor);
        match storage {
            Storage::F32 | Storage::Bf16 => [f16::ZERO; 2],
            Storage::W4a16 => [scale(8.0), f16::ZERO],
            Storage::Q8_0 => [scale(127.0), f16::ZERO],
            Storage::Q4K => [scale(7.5 * 63.0), scale(63.0)],
            Storage::Fp8 => [scale(448.0), f16::ZERO],
        }
    }

    fn bits(self, place: u64) -> u32 {
        let mut z = (place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = z.wrapping_add(self.seed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as u32
    }
}

/// From −1 to 1: exact.
fn unit(bits: u32) -> f32 {
    bits as f32 / (1u32 << 23) as f32 - 1.0
}

/// The code that is nearest to a weight of these bits.
fn code(storage: Storage, bits: u32) -> u8 {
    match storage {
        Storage::W4a16 => u32::min((bits + (1 << 19)) >> 20, 15) as u8,
        Storage::Q8_0 => ((127 * (bits as i32 - (1 << 23)) + (1 << 22)) >> 23) as u8,
        Storage::Q4K => ((15 * bits + (1 << 23)) >> 24) as u8,
        Storage::Fp8 => fp8::encode(unit(bits) * 448.0),
        Storage::F32 | Storage::Bf16 => 0,
    }
}

impl Blocks {
    /// Quantised weights of `[rows, columns]` each, one tensor after the other, drawn straight in their form.
    ///
    /// # Errors
    /// [`QuantiseError::Columns`] if a row is no whole number of blocks.
    pub fn drawn(
        storage: Storage,
        [experts, rows, columns]: [usize; 3],
        draws: &[Draw],
    ) -> Result<Self, QuantiseError> {
        if !columns.is_multiple_of(storage.block_columns()) {
            return Err(QuantiseError::Columns { columns, storage });
        }
        let row_bytes = storage.row_bytes(columns);
        let mut bytes = vec![0; experts * rows * row_bytes];
        let rows_of_each = experts * rows / draws.len().max(1);
        bytes
            .par_chunks_exact_mut(row_bytes.max(1))
            .enumerate()
            .for_each(|(row, bytes)| {
                let first = (row % rows_of_each * columns) as u64;
                draws[row / rows_of_each].fill_blocks(storage, first, bytes);
            });
        Ok(Self {
            storage,
            experts,
            rows,
            columns,
            bytes,
        })
    }
}

/// Launches the writing of a layer's weights, or of one expert's, on a device (`kernels/synthetic.cu`).
///
/// - `to`: `[rows, columns]`, bf16, or as [`super::Packed`] has them; written
/// - `parts`: the one to three tensors that its rows are of, all with the same bound, and how many rows each has
/// - `in_turn`: whether rows are of two tensors in turn, else of one after the other
///
/// `columns` is a multiple of 8, or of the format's.
pub fn synthetic_launch(
    format: Option<PackedFormat>,
    to: Address,
    parts: &[(Draw, usize)],
    in_turn: bool,
    columns: usize,
) -> Launch {
    let rows: usize = parts.iter().map(|(_, rows)| rows).sum();
    let ends = [1, 2].map(|count| match parts.len() > count {
        true => parts[..count].iter().map(|(_, rows)| *rows as u32).sum(),
        false => u32::MAX,
    });
    let turns = if in_turn { parts.len() as u32 } else { 1 };
    let mut arguments: Vec<Argument> = vec![to.into()];
    if format.is_some() {
        arguments.push((rows as u32).into());
    }
    arguments.extend([columns as u32, turns, ends[0], ends[1]].map(Argument::from));
    for part in 0..3 {
        let seed = parts.get(part).map_or(0, |(draw, _)| draw.seed);
        arguments.extend([seed as u32, (seed >> 32) as u32].map(Argument::from));
    }
    let draw = parts.first().map_or(
        Draw {
            seed: 0,
            bound: 0.0,
        },
        |(draw, _)| *draw,
    );
    let Some(format) = format else {
        arguments.push(draw.bound.into());
        let threads = threads_for(columns as u32 / 8, 256);
        return Launch::linear("synthetic_bf16", rows as u32, threads, arguments);
    };
    let [scale, other] = draw
        .scales(format.storage())
        .map(|scale| u32::from(scale.to_bits()));
    arguments.push((scale | other << 16).into());
    let (kernel, unit) = match format {
        PackedFormat::W4a16 => ("synthetic_w4a16", 128),
        PackedFormat::Q8_0 => ("synthetic_q8_0", 128),
        PackedFormat::Q4K => ("synthetic_q4_k", 256),
        PackedFormat::Fp8 => ("synthetic_fp8", 128),
    };
    let blocks = rows.div_ceil(32) * (columns / unit);
    Launch::linear(kernel, blocks as u32, 128, arguments)
}

/// Eight scales and eight minima of 63 in 12 bytes (`quantised/q4_k.rs`).
const LARGEST_SIX_BITS: [u8; 12] = [0xff; 12];

/// Weights that one thread makes at a time.
const CHUNK: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    const DRAW: Draw = Draw {
        seed: 42,
        bound: 0.05,
    };

    fn numbers(storage: Storage, rows: usize, columns: usize) -> Vec<f32> {
        let blocks = Blocks::drawn(storage, [1, rows, columns], &[DRAW]).unwrap();
        let mut numbers = vec![0.0; rows * columns];
        for (row, numbers) in numbers.chunks_exact_mut(columns).enumerate() {
            blocks.dequantise_row(row, numbers);
        }
        numbers
    }

    #[test]
    fn each_form_holds_the_nearest_that_it_has_to_the_same_weights() {
        let (rows, columns) = (33, 512);
        let exact = |place: usize| f64::from(unit(DRAW.bits(place as u64))) * f64::from(DRAW.bound);
        // Half a step of the codes, and what rounding a scale to f16 (2^-11, or 2^-25 where it is subnormal) does to the
        // largest; w4a16's largest codes are a step less than `bound`.
        for (storage, most) in [
            (Storage::W4a16, 1.0 / 8.0),
            (Storage::Q8_0, 0.5 / 127.0),
            (Storage::Q4K, 1.0 / 15.0),
            (Storage::Fp8, 1.0 / 16.0),
        ] {
            let bound = f64::from(DRAW.bound);
            let scaled = 63.0 * 15.0 * 2f64.powi(-25) + bound * 2f64.powi(-10);
            let mut largest = 0.0f64;
            for (place, number) in numbers(storage, rows, columns).into_iter().enumerate() {
                largest = largest.max((f64::from(number) - exact(place)).abs());
            }
            let (least, most) = (0.4 * most * bound, most * bound + scaled);
            assert!((least..=most).contains(&largest), "{storage}: {largest}");
        }
    }

    #[test]
    fn weights_of_each_form_have_no_mean_and_the_size_of_evenly_spread_ones() {
        for storage in [Storage::W4a16, Storage::Q8_0, Storage::Q4K, Storage::Fp8] {
            let numbers = numbers(storage, 64, 4096);
            let count = numbers.len() as f64;
            let mean = numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
            let square = numbers
                .iter()
                .map(|&x| f64::from(x) * f64::from(x))
                .sum::<f64>()
                / count;
            let bound = f64::from(DRAW.bound);
            // Of 262,144 weights the mean errs by 0.0011 of the bound. What w4a16 clips costs a thirty-second of a step of
            // an eighth, 0.004 of it.
            assert!(mean.abs() < 0.009 * bound, "{storage}: {mean}");
            let ratio = square * 3.0 / (bound * bound);
            assert!((0.97..1.03).contains(&ratio), "{storage}: {ratio}");
        }
    }

    #[test]
    fn tensors_of_a_stack_are_drawn_each_by_itself() {
        let draws = [7, 8, 9].map(|seed| Draw { seed, bound: 1.0 });
        let all = Blocks::drawn(Storage::Q8_0, [3, 5, 64], &draws).unwrap();
        let each = draws.map(|draw| {
            Blocks::drawn(Storage::Q8_0, [1, 5, 64], &[draw])
                .unwrap()
                .bytes
        });
        assert_eq!(all.bytes, each.concat());
        assert!(each[0] != each[1] && each[1] != each[2]);
        assert_eq!(
            Blocks::drawn(Storage::Q4K, [1, 2, 128], &draws[..1]).unwrap_err(),
            QuantiseError::Columns {
                columns: 128,
                storage: Storage::Q4K
            }
        );
    }
}
