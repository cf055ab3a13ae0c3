//! Weights on a device: made ready part by part, each uploaded straight to its place.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use half::bf16;
use half::slice::HalfFloatSliceExt;

use super::uploads::Uploads;
use crate::model::ModelError;
use crate::model::weights::Checkpoint;
use crate::ops::{
    self, Address, Blocks, Device, Draw, GroupedLinear, GroupedSizes, Launch, Matrix, Memory,
    Multiplier, OpError, Packed, PackedFormat, Side, Storage,
};

/// Weights of one linear layer or of one side of all experts, and how they are stored.
#[derive(Debug)]
pub struct Weights<D: Device> {
    /// Shared where the output layer is the embedding table.
    memory: Arc<D::Memory>,
    /// `None`: bf16.
    packed: Option<PackedFormat>,
    /// Output width, of each expert.
    pub(super) rows: u32,
    /// Input width.
    pub(super) columns: u32,
}

/// Part of the rows of a layer: a tensor's name, and how many.
pub(super) type Part = (String, usize);

/// How the rows of a layer's parts are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartOrder {
    /// One part after the other.
    Stacked,
    /// One row of each part in turn. All have as many.
    InTurn,
}

/// What there is of a layer: experts, or 1; rows of each; columns.
pub(super) type Sizes = [usize; 3];

impl<D: Device> Weights<D> {
    /// Loads the parts of each expert, put together as `order` says. Host memory holds one expert's weights, and what is on its
    /// way of those before; those of a synthetic model are made on the device. The last copies may still be under way.
    ///
    /// # Errors
    /// What the checkpoint or the device refuses.
    pub(super) fn load(
        device: &D,
        uploads: &mut Uploads<D>,
        checkpoint: &Checkpoint,
        (storage, order): (Storage, PartOrder),
        sizes: Sizes,
        parts: impl Fn(usize) -> Vec<Part>,
    ) -> Result<Self, ModelError> {
        let [experts, rows, columns] = sizes;
        let packed = PackedFormat::of(storage);
        let bytes_of_each = bytes_of(packed, rows, columns);
        let memory = device.allocate(experts * bytes_of_each)?;
        let mut made: Option<D::Memory> = None;
        for expert in 0..experts {
            let to = memory.address().offset(expert * bytes_of_each);
            if let Some(draws) = draws(checkpoint, parts(expert), columns) {
                // Kernels read weights before they have waited for the kernel before them, as none writes them: weights
                // that one has made are copied, and what follows a copy has waited for it.
                let made = match &mut made {
                    Some(made) => made,
                    none => none.insert(device.allocate(bytes_of_each)?),
                };
                let in_turn = order == PartOrder::InTurn;
                let from = made.address();
                let launch = ops::synthetic_launch(packed, from, &draws, in_turn, columns);
                device.launch(&launch)?;
                device.copy(from, to, bytes_of_each)?;
                continue;
            }
            let bytes = match packed {
                None => bf16_bytes(checkpoint, order, parts(expert), columns)?,
                Some(_) => packed_bytes(checkpoint, (storage, order), parts(expert), columns)?,
            };
            debug_assert_eq!(bytes.len(), bytes_of_each);
            uploads.upload(device, &bytes, to)?;
        }
        Ok(Self {
            memory: Arc::new(memory),
            packed,
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

    pub(super) fn storage(&self) -> Storage {
        self.packed.map_or(Storage::Bf16, PackedFormat::storage)
    }

    /// `y = x · weightsᵀ` for `rows` rows.
    pub(super) fn multiply(
        &self,
        device: &D,
        x: Address,
        rows: u32,
        y: Address,
    ) -> Result<(), OpError> {
        let (at, sizes) = ([x, self.address(), y], [rows, self.rows, self.columns]);
        match self.packed {
            None => device.multiply(at, sizes),
            Some(format) => {
                let by = device.multiplier();
                device.launch(&ops::quantised_linear_launch(by, format, at, sizes))
            }
        }
    }

    /// Launches the experts' products.
    pub(super) fn grouped_linear(
        &self,
        by: Multiplier,
        at: GroupedLinear,
        side: Side,
        sizes: GroupedSizes,
    ) -> Launch {
        match self.packed {
            None => ops::grouped_linear_launch(by, at, side, sizes),
            Some(format) => ops::quantised_experts_launch(by, format, at, side, sizes),
        }
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

/// How the device draws an expert's parts, if they are made up.
fn draws(checkpoint: &Checkpoint, parts: Vec<Part>, columns: usize) -> Option<Vec<(Draw, usize)>> {
    let model = checkpoint.synthetic()?;
    let draw = |(name, rows): Part| Some((model.draw(&name, &[rows, columns])?, rows));
    parts.into_iter().map(draw).collect()
}

/// Bytes of one expert.
fn bytes_of(packed: Option<PackedFormat>, rows: usize, columns: usize) -> usize {
    match packed {
        None => rows * columns * size_of::<bf16>(),
        Some(format) => format.bytes(1, rows, columns),
    }
}

fn bf16_bytes(
    checkpoint: &Checkpoint,
    order: PartOrder,
    parts: Vec<Part>,
    columns: usize,
) -> Result<Vec<u8>, ModelError> {
    let bytes = |(name, rows): Part| -> Result<Vec<u8>, ModelError> {
        let tensor = checkpoint.tensor(&name, &[rows, columns])?;
        let values: Vec<bf16> = tensor.flatten_all()?.to_dtype(DType::BF16)?.to_vec1()?;
        Ok(bytemuck::cast_slice(values.reinterpret_cast()).to_vec())
    };
    let parts: Result<Vec<_>, _> = parts.into_iter().map(bytes).collect();
    Ok(joined(order, parts?, columns * size_of::<bf16>()))
}

fn packed_bytes(
    checkpoint: &Checkpoint,
    (storage, order): (Storage, PartOrder),
    parts: Vec<Part>,
    columns: usize,
) -> Result<Vec<u8>, ModelError> {
    let rows = parts.iter().map(|(_, rows)| rows).sum();
    let mut all = Vec::with_capacity(parts.len());
    for (name, rows) in parts {
        let shape = [rows, columns];
        if let Matrix::Quantised(blocks) =
            checkpoint.matrix(&[name], shape, &shape, Some(storage))?
        {
            all.push(blocks.bytes.to_vec());
        }
    }
    Ok(Packed::new(&Blocks {
        storage,
        experts: 1,
        rows,
        columns,
        bytes: joined(order, all, storage.row_bytes(columns)),
    })?
    .bytes)
}

/// Puts the rows of parts together.
fn joined(order: PartOrder, mut parts: Vec<Vec<u8>>, row_bytes: usize) -> Vec<u8> {
    match order {
        PartOrder::Stacked if parts.len() == 1 => parts.swap_remove(0),
        PartOrder::Stacked => parts.concat(),
        PartOrder::InTurn => {
            let mut all = Vec::with_capacity(parts.iter().map(Vec::len).sum());
            let rows = parts.first().map_or(0, |part| part.len() / row_bytes);
            for row in 0..rows {
                for part in &parts {
                    all.extend_from_slice(&part[row * row_bytes..][..row_bytes]);
                }
            }
            all
        }
    }
}
