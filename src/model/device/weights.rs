//! Weights on a device: uploaded part by part, each straight to its place.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use half::bf16;
use half::slice::HalfFloatSliceExt;

use crate::model::ModelError;
use crate::ops::{Address, Device, Memory};

/// Weights of one linear layer or of one side of all experts, and how they are stored.
#[derive(Debug)]
pub struct Weights<D: Device> {
    /// Shared where the output layer is the embedding table.
    memory: Arc<D::Memory>,
    /// Output width, of each expert.
    pub(super) rows: u32,
    /// Input width.
    pub(super) columns: u32,
}

impl<D: Device> Weights<D> {
    /// `[count * rows, columns]` in bf16, from tensors that follow each other in that order.
    ///
    /// # Errors
    /// What the tensors' source or the device refuses.
    pub(super) fn upload(
        device: &D,
        [count, rows, columns]: [usize; 3],
        parts: impl IntoIterator<Item = Result<Tensor, ModelError>>,
    ) -> Result<Self, ModelError> {
        let memory = device.allocate(count * rows * columns * size_of::<bf16>())?;
        let mut at = memory.address();
        for part in parts {
            let values = bf16_of(&part?)?;
            let bytes: &[u8] = bytemuck::cast_slice(values.reinterpret_cast());
            device.upload(bytes, at)?;
            at = at.offset(bytes.len());
        }
        debug_assert_eq!(at, memory.address().offset(count * rows * columns * 2));
        Ok(Self {
            memory: Arc::new(memory),
            rows: rows as u32,
            columns: columns as u32,
        })
    }

    pub(super) fn shared(&self) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            ..*self
        }
    }

    pub(super) fn address(&self) -> Address {
        self.memory.address()
    }
}

/// Numbers in f32, as norms and angles are.
pub(super) fn upload_floats<D: Device>(
    device: &D,
    tensor: &Tensor,
) -> Result<D::Memory, ModelError> {
    let values: Vec<f32> = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
    let memory = device.allocate(size_of_val(&values[..]))?;
    device.upload(bytemuck::cast_slice(&values), memory.address())?;
    Ok(memory)
}

fn bf16_of(tensor: &Tensor) -> Result<Vec<bf16>, ModelError> {
    Ok(tensor.flatten_all()?.to_dtype(DType::BF16)?.to_vec1()?)
}
