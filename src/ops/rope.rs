//! Rotary position embedding, in Hugging Face's layout: element `i` turns with element `i + head_dim / 2`.

use candle_core::{Device, Tensor};

use super::OpError;
use super::access::{check_dims, check_index, dims, read, shape, write};
use super::launch::{Address, Launch, threads_for};

const OP: &str = "rope";

/// Cosines and sines of every position's angles.
///
/// `max_positions × head_dim × 4` bytes: 16 MiB for 32,768 positions of 128.
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// `[max_positions, head_dim / 2]`, f32
    cos: Tensor,
    /// as `cos`
    sin: Tensor,
}

impl RopeTable {
    /// Angles `position · theta^(−2i / head_dim)` (Su et al. 2021, eq. 34).
    ///
    /// Frequency and angle are rounded to f32 where transformers rounds them: at position 2,000 an exact angle would
    /// differ from its by up to 1e-4. Cosine and sine of that angle are exact to the last bit.
    ///
    /// # Errors
    /// [`OpError::Shape`] if `head_dim` is odd, [`OpError::Device`] if memory runs out.
    pub fn new(
        max_positions: usize,
        head_dim: usize,
        theta: f64,
        device: &Device,
    ) -> Result<Self, OpError> {
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(shape(OP, "head_dim", "even", head_dim));
        }
        let half = head_dim / 2;
        let frequency: Vec<f32> = (0..half)
            .map(|i| 1.0 / theta.powf(((2 * i) as f32 / head_dim as f32) as f64) as f32)
            .collect();
        let (mut cos, mut sin) = (
            Vec::with_capacity(max_positions * half),
            Vec::with_capacity(max_positions * half),
        );
        for position in 0..max_positions {
            for frequency in &frequency {
                let angle = (position as f32 * frequency) as f64;
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        let device = |values| {
            Tensor::from_vec(values, (max_positions, half), device)
                .map_err(|source| OpError::Device { op: OP, source })
        };
        Ok(Self {
            cos: device(cos)?,
            sin: device(sin)?,
        })
    }

    /// Cosines and sines: each `[max_positions, head_dim / 2]`, f32, contiguous.
    pub fn angles(&self) -> (&Tensor, &Tensor) {
        (&self.cos, &self.sin)
    }
}

/// Turns each head by its token's position.
///
/// - `x`: `[num_tokens, heads, head_dim]`, f32, contiguous, read and written
/// - `positions`: `[num_tokens]`, u32
///
/// # Errors
/// [`OpError::Shape`] naming the argument; [`OpError::Index`] for a position beyond the table.
pub fn rope(x: &Tensor, positions: &Tensor, table: &RopeTable) -> Result<(), OpError> {
    let [num_tokens, heads, head_dim] = dims(OP, "x", x)?;
    let [max_positions, half] = dims(OP, "table", &table.cos)?;
    check_dims(OP, "x", x, &[num_tokens, heads, 2 * half])?;
    check_dims(OP, "positions", positions, &[num_tokens])?;
    let positions = &*read::<u32>(OP, "positions", positions)?;
    for &position in positions {
        check_index(OP, "positions", position as usize, max_positions)?;
    }
    let (cos, sin) = (
        &*read::<f32>(OP, "table", &table.cos)?,
        &*read::<f32>(OP, "table", &table.sin)?,
    );
    write(OP, "x", x, &[&table.cos, &table.sin], |x: &mut [f32]| {
        for (token, &position) in x.chunks_exact_mut(heads * head_dim).zip(positions) {
            let angles = position as usize * half..(position as usize + 1) * half;
            for head in token.chunks_exact_mut(head_dim) {
                let (first, second) = head.split_at_mut(half);
                let turned = first
                    .iter_mut()
                    .zip(second)
                    .zip(cos[angles.clone()].iter().zip(&sin[angles.clone()]));
                for ((a, b), (cos, sin)) in turned {
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        }
    })
}

/// Where the tensors of [`rope_store_kv_launch`] lie.
#[derive(Debug, Clone, Copy)]
pub struct RopeStoreKv {
    /// `[num_tokens, (heads + 2 * kv_heads) * head_dim]`, f32: queries, keys, values
    pub qkv: Address,
    /// `[num_tokens]`, u32
    pub positions: Address,
    /// `[num_tokens]`, u32; [`u32::MAX`] for a token that only fills a batch
    pub slots: Address,
    /// `[max_positions, head_dim / 2]`, f32
    pub cos: Address,
    /// as `cos`
    pub sin: Address,
    /// `[num_tokens, heads * head_dim]`, bf16, written
    pub q: Address,
    /// `[num_blocks * block_size, kv_heads * head_dim]`, bf16, written
    pub k_cache: Address,
    /// as `k_cache`
    pub v_cache: Address,
}

/// Launches [`rope`] on queries and keys, and [`super::store_kv`], in one kernel (`kernels/rope_store_kv.cu`).
///
/// `head_dim` is a multiple of 8; positions and slots are in range.
pub fn rope_store_kv_launch(
    at: RopeStoreKv,
    num_tokens: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
) -> Launch {
    let arguments = vec![
        at.qkv.into(),
        at.positions.into(),
        at.slots.into(),
        at.cos.into(),
        at.sin.into(),
        at.q.into(),
        at.k_cache.into(),
        at.v_cache.into(),
        heads.into(),
        kv_heads.into(),
        head_dim.into(),
    ];
    let threads = threads_for((heads + kv_heads) * head_dim / 8, 256);
    Launch::linear("rope_store_kv", num_tokens, threads, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{floats, indices, tensor, values};

    #[test]
    fn heads_turn_as_complex_numbers_of_their_halves() {
        let (heads, dim, theta) = (3, 6, 10_000.0f64);
        let table = RopeTable::new(64, dim, theta, &Device::Cpu).unwrap();
        let before = floats(10, 2 * heads * dim);
        let x = tensor(&before, &[2, heads, dim]);
        rope(&x, &indices(&[0, 63]), &table).unwrap();
        let after = values(&x);
        assert_eq!(
            after[..heads * dim],
            before[..heads * dim],
            "position 0 turns nothing"
        );
        for head in heads..2 * heads {
            for i in 0..dim / 2 {
                let angle = 63.0 * theta.powf(-2.0 * i as f64 / dim as f64);
                let (a, b) = (
                    before[head * dim + i] as f64,
                    before[head * dim + dim / 2 + i] as f64,
                );
                // The angle is below 64 and rounded to f32: an error of 64 × eps / 2.
                let tolerance = 40.0 * f32::EPSILON as f64;
                let exact = (
                    a * angle.cos() - b * angle.sin(),
                    b * angle.cos() + a * angle.sin(),
                );
                assert!((after[head * dim + i] as f64 - exact.0).abs() < tolerance);
                assert!((after[head * dim + dim / 2 + i] as f64 - exact.1).abs() < tolerance);
            }
        }
    }

    #[test]
    fn a_position_beyond_the_context_is_refused() {
        let table = RopeTable::new(8, 4, 1e4, &Device::Cpu).unwrap();
        let error = rope(&tensor(&floats(1, 4), &[1, 1, 4]), &indices(&[8]), &table).unwrap_err();
        assert_eq!(
            error.to_string(),
            "rope: `positions` holds 8, which is not below 8"
        );
    }
}
