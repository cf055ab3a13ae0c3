//! The weights of a linear layer, as numbers or in blocks.

use candle_core::Tensor;

use super::OpError;
use super::access::{check_dims, shape};
use super::quantised::{Blocks, Storage};

/// Weights of one linear layer, `[rows, columns]`, or of one side of all experts, `[experts, rows, columns]`.
#[derive(Debug)]
pub enum Matrix {
    /// f32 or bf16.
    Dense(Tensor),
    /// Decoded as they are multiplied.
    Quantised(Blocks),
}

impl Matrix {
    /// How the weights are stored, such as `bf16`.
    pub fn storage(&self) -> &'static str {
        match self {
            Self::Dense(tensor) => tensor.dtype().as_str(),
            Self::Quantised(blocks) => blocks.storage.name(),
        }
    }

    /// Its shape: `[rows, columns]` of a tensor of two dimensions, `[experts, rows, columns]` otherwise.
    pub(super) fn dims(&self) -> Vec<usize> {
        match self {
            Self::Dense(tensor) => tensor.dims().to_vec(),
            Self::Quantised(blocks) => vec![blocks.experts, blocks.rows, blocks.columns],
        }
    }

    /// Refuses a shape that is not `expected`, and blocks that are not as many as their shape says.
    pub(super) fn check(&self, op: &'static str, expected: &[usize]) -> Result<(), OpError> {
        let blocks = match self {
            Self::Dense(tensor) => return check_dims(op, "w", tensor, expected),
            Self::Quantised(blocks) => blocks,
        };
        let dims = [blocks.experts, blocks.rows, blocks.columns];
        let fits = match *expected {
            [rows, columns] => dims == [1, rows, columns],
            _ => dims == *expected,
        };
        let Blocks { storage, .. } = *blocks;
        if !fits || !blocks.columns.is_multiple_of(storage.block_columns()) {
            let given = format!("{storage} of shape {dims:?}");
            return Err(shape(op, "w", format!("{expected:?}"), given));
        }
        let bytes = blocks.experts * blocks.rows * storage.row_bytes(blocks.columns);
        if blocks.bytes.len() != bytes {
            let given = format!("{} bytes", blocks.bytes.len());
            return Err(shape(op, "w", format!("{bytes} bytes of {storage}"), given));
        }
        if matches!(storage, Storage::F32 | Storage::Bf16) {
            return Err(shape(op, "w", "a tensor", format!("{storage} in blocks")));
        }
        Ok(())
    }

    /// The tensor, if it is one.
    pub(super) fn tensor(&self) -> Option<&Tensor> {
        match self {
            Self::Dense(tensor) => Some(tensor),
            Self::Quantised(_) => None,
        }
    }
}

impl From<Tensor> for Matrix {
    fn from(tensor: Tensor) -> Self {
        Self::Dense(tensor)
    }
}

impl From<Blocks> for Matrix {
    fn from(blocks: Blocks) -> Self {
        Self::Quantised(blocks)
    }
}

/// Runs an expression with `$weights` as the elements of a matrix, whatever their type: each is a [`super::dot::Weight`].
/// The matrix has passed [`Matrix::check`].
macro_rules! with_weights {
    ($op:expr, $matrix:expr, |$weights:ident| $body:expr) => {{
        use candle_core::DType;
        use $crate::ops::Storage;
        use $crate::ops::access::{check_dtype, read};
        use $crate::ops::quantised::{fp8, q4_k, q8_0, w4a16};

        match $matrix {
            $crate::ops::Matrix::Dense(tensor) if tensor.dtype() == DType::F32 => {
                let $weights = &*read::<f32>($op, "w", tensor)?;
                $body
            }
            $crate::ops::Matrix::Dense(tensor) => {
                check_dtype($op, "w", tensor, &[DType::F32, DType::BF16])?;
                let $weights = &*read::<half::bf16>($op, "w", tensor)?;
                $body
            }
            $crate::ops::Matrix::Quantised(blocks) => match blocks.storage {
                Storage::W4a16 => {
                    let $weights: &[w4a16::Block] = blocks.bytes.as_chunks().0;
                    $body
                }
                Storage::Q8_0 => {
                    let $weights: &[q8_0::Block] = blocks.bytes.as_chunks().0;
                    $body
                }
                Storage::Q4K => {
                    let $weights: &[q4_k::Block] = blocks.bytes.as_chunks().0;
                    $body
                }
                Storage::Fp8 => {
                    let $weights: &[fp8::Block] = blocks.bytes.as_chunks().0;
                    $body
                }
                Storage::F32 | Storage::Bf16 => {
                    unreachable!("Matrix::check refuses numbers in blocks. This is a bug.")
                }
            },
        }
    }};
}
pub(super) use with_weights;
