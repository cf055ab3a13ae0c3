//! Weights of linear layers, stored otherwise than in the checkpoint.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

use super::{Checkpoint, Found};
use crate::model::ModelError;
use crate::ops::{Blocks, Draw, Matrix, QuantiseError, Storage};

impl Checkpoint {
    /// Tensors of one shape, one after the other, as one matrix of shape `stack`, stored as `storage`; without one, as
    /// they are.
    ///
    /// Rows go from the file into the result one by one, and weights that are made up are drawn in their place: a row for
    /// each thread, or of a synthetic model one tensor, is all that is held beside the result.
    ///
    /// # Errors
    /// As [`Checkpoint::stacked`]; [`ModelError::Quantise`] naming the tensor that cannot be stored so.
    pub fn matrix(
        &self,
        names: &[String],
        shape: [usize; 2],
        stack: &[usize],
        storage: Option<Storage>,
    ) -> Result<Matrix, ModelError> {
        match storage {
            None => Ok(self.stacked(names, &shape, stack)?.into()),
            Some(Storage::F32) => {
                let weights = self.numbers(names, shape, |weight| weight)?;
                Ok(Tensor::from_vec(weights, stack, &Device::Cpu)?.into())
            }
            Some(Storage::Bf16) => {
                let weights = self.numbers(names, shape, bf16::from_f32)?;
                Ok(Tensor::from_vec(weights, stack, &Device::Cpu)?.into())
            }
            Some(storage) => Ok(self.blocks(names, shape, stack, storage)?.into()),
        }
    }

    fn numbers<T>(
        &self,
        names: &[String],
        shape: [usize; 2],
        convert: impl Fn(f32) -> T,
    ) -> Result<Vec<T>, ModelError> {
        let each = shape.iter().product::<usize>();
        if let Some(model) = self.synthetic() {
            let mut weights = vec![bf16::ZERO; each];
            let mut numbers = Vec::with_capacity(each * names.len());
            for name in names {
                model.fill(name, &shape, &mut weights);
                numbers.extend(weights.iter().map(|weight| convert(weight.to_f32())));
            }
            return Ok(numbers);
        }
        let found = self.find_all(names, &shape)?;
        let mut numbers = Vec::with_capacity(each * names.len());
        for Found { dtype, bytes, .. } in found {
            each_weight(dtype, bytes, |weight| numbers.push(convert(weight)));
        }
        Ok(numbers)
    }

    fn blocks(
        &self,
        names: &[String],
        [rows, columns]: [usize; 2],
        stack: &[usize],
        storage: Storage,
    ) -> Result<Blocks, ModelError> {
        let experts = if let [experts, _, _] = *stack {
            experts
        } else {
            1
        };
        let rows_of_all = [experts, rows * names.len() / experts.max(1), columns];
        if let Some(model) = self.synthetic() {
            let draws: Option<Vec<Draw>> = (names.iter())
                .map(|name| model.draw(name, &[rows, columns]))
                .collect();
            let draws = draws.unwrap_or_default();
            return Blocks::drawn(storage, rows_of_all, &draws).map_err(|source| {
                ModelError::Quantise {
                    file: "synthetic".to_owned(),
                    tensor: names.first().cloned().unwrap_or_default(),
                    source,
                }
            });
        }
        let found = self.find_all(names, &[rows, columns])?;
        let read = |row: usize, weights: &mut [f32]| {
            let Found { dtype, bytes, .. } = &found[row / rows];
            let dtype = *dtype;
            let row_bytes = columns * dtype.size_in_bytes();
            let mut weights = weights.iter_mut();
            each_weight(dtype, &bytes[row % rows * row_bytes..][..row_bytes], |w| {
                if let Some(weight) = weights.next() {
                    *weight = w;
                }
            });
        };
        Blocks::quantise(storage, rows_of_all, read).map_err(|mut source| {
            // The error counts rows through all of the stack; its reader knows tensors.
            let mut tensor = 0;
            if let QuantiseError::NotFinite { row, .. } | QuantiseError::TooLarge { row, .. } =
                &mut source
            {
                tensor = *row / rows;
                *row %= rows;
            }
            ModelError::Quantise {
                file: found[tensor].file.to_owned(),
                tensor: names[tensor].clone(),
                source,
            }
        })
    }
}

/// Hands out little-endian numbers, widened.
fn each_weight(dtype: DType, bytes: &[u8], mut take: impl FnMut(f32)) {
    let halves = bytes.as_chunks::<2>().0.iter();
    match dtype {
        DType::BF16 => halves.for_each(|bytes| take(bf16::from_le_bytes(*bytes).to_f32())),
        DType::F16 => halves.for_each(|bytes| take(f16::from_le_bytes(*bytes).to_f32())),
        _ => {
            let words = bytes.as_chunks::<4>().0.iter();
            words.for_each(|bytes| take(f32::from_le_bytes(*bytes)));
        }
    }
}
