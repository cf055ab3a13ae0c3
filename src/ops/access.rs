//! How an op reaches the elements of its tensors: sources are lent for reading, destinations for writing.
//!
//! Candle lends a tensor's storage for writing to in-place ops only, so [`write`] is one.

use std::cell::RefCell;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Storage, Tensor, WithDType};

use super::OpError;

/// Read access to the elements of a contiguous tensor, for as long as it lives.
pub struct Lent<G, T> {
    guard: G,
    range: Range<usize>,
    elements: PhantomData<T>,
}

impl<G: Deref<Target = Storage>, T: WithDType> Deref for Lent<G, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let Storage::Cpu(storage) = &*self.guard else {
            unreachable!("read() lends CPU storage only. This is a bug.");
        };
        let elements = storage
            .as_slice::<T>()
            .expect("read() has checked the type. This is a bug.");
        &elements[self.range.clone()]
    }
}

/// Lends the elements of `tensor`, which must be contiguous, on the CPU and of type `T`.
pub fn read<'a, T: WithDType>(
    op: &'static str,
    argument: &'static str,
    tensor: &'a Tensor,
) -> Result<Lent<impl Deref<Target = Storage> + 'a, T>, OpError> {
    check_dtype(op, argument, tensor, &[T::DTYPE])?;
    let range = elements(op, argument, tensor)?;
    let (guard, _) = tensor.storage_and_layout();
    if !matches!(&*guard, Storage::Cpu(_)) {
        return Err(shape(
            op,
            argument,
            "on the CPU",
            tensor.device().location(),
        ));
    }
    Ok(Lent {
        guard,
        range,
        elements: PhantomData,
    })
}

/// Runs `fill` on the elements of `target`, which must be contiguous and of type `T`. None of `sources` may share
/// its storage: their elements are lent while `fill` runs.
pub fn write<T: Writable, R>(
    op: &'static str,
    argument: &'static str,
    target: &Tensor,
    sources: &[&Tensor],
    fill: impl FnOnce(&mut [T]) -> R,
) -> Result<R, OpError> {
    check_dtype(op, argument, target, &[T::DTYPE])?;
    elements(op, argument, target)?;
    let home = address(target);
    if sources.iter().any(|source| address(source) == home) {
        return Err(shape(
            op,
            argument,
            "apart from every source",
            "in the same storage as one",
        ));
    }
    let fill = Fill {
        op,
        fill: RefCell::new(Some(fill)),
        result: RefCell::new(None),
        elements: PhantomData,
    };
    target
        .inplace_op1(&fill)
        .map_err(|source| OpError::Device { op, source })?;
    Ok(fill
        .result
        .into_inner()
        .expect("candle has run the op. This is a bug."))
}

/// An element type that ops write.
pub trait Writable: WithDType {
    /// The storage's elements, if they are of this type.
    fn elements(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

impl Writable for f32 {
    fn elements(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        if let CpuStorage::F32(elements) = storage {
            Some(elements)
        } else {
            None
        }
    }
}

impl Writable for u32 {
    fn elements(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        if let CpuStorage::U32(elements) = storage {
            Some(elements)
        } else {
            None
        }
    }
}

struct Fill<F, T, R> {
    op: &'static str,
    fill: RefCell<Option<F>>,
    result: RefCell<Option<R>>,
    elements: PhantomData<T>,
}

impl<T: Writable, R, F: FnOnce(&mut [T]) -> R> InplaceOp1 for Fill<F, T, R> {
    fn name(&self) -> &'static str {
        self.op
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (from, to) = layout
            .contiguous_offsets()
            .expect("write() has checked the layout. This is a bug.");
        let elements = T::elements(storage).expect("write() has checked the type. This is a bug.");
        let fill = self
            .fill
            .take()
            .expect("candle runs an op once. This is a bug.");
        self.result.replace(Some(fill(&mut elements[from..to])));
        Ok(())
    }
}

/// The tensor's dimensions, which must be `N`.
pub fn dims<const N: usize>(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
) -> Result<[usize; N], OpError> {
    tensor.dims().try_into().map_err(|_| {
        shape(
            op,
            argument,
            format!("{N}-dimensional"),
            format!("of shape {:?}", tensor.dims()),
        )
    })
}

/// Refuses a tensor whose shape is not `expected`.
pub fn check_dims(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    expected: &[usize],
) -> Result<(), OpError> {
    if tensor.dims() == expected {
        return Ok(());
    }
    Err(shape(
        op,
        argument,
        format!("{expected:?}"),
        format!("of shape {:?}", tensor.dims()),
    ))
}

/// Refuses a tensor whose type is none of `expected`.
pub fn check_dtype(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    expected: &[DType],
) -> Result<(), OpError> {
    if expected.contains(&tensor.dtype()) {
        return Ok(());
    }
    Err(shape(
        op,
        argument,
        format!("{expected:?}"),
        format!("{:?}", tensor.dtype()),
    ))
}

/// An [`OpError::Shape`].
pub fn shape(
    op: &'static str,
    argument: &'static str,
    expected: impl Debug,
    given: impl Debug,
) -> OpError {
    let plain = |value: &dyn Debug| format!("{value:?}").trim_matches('"').to_string();
    OpError::Shape {
        op,
        argument,
        expected: plain(&expected),
        given: plain(&given),
    }
}

/// Refuses an index that is not below `limit`.
pub fn check_index(
    op: &'static str,
    argument: &'static str,
    given: usize,
    limit: usize,
) -> Result<(), OpError> {
    if given < limit {
        Ok(())
    } else {
        Err(OpError::Index {
            op,
            argument,
            given,
            limit,
        })
    }
}

fn elements(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
) -> Result<Range<usize>, OpError> {
    match tensor.layout().contiguous_offsets() {
        Some((from, to)) => Ok(from..to),
        None => Err(shape(
            op,
            argument,
            "contiguous",
            format!("strided by {:?}", tensor.stride()),
        )),
    }
}

/// Where a tensor's storage lives: equal for views of one storage.
fn address(tensor: &Tensor) -> usize {
    let (guard, _) = tensor.storage_and_layout();
    std::ptr::from_ref::<Storage>(&guard).addr()
}
