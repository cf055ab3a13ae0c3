//! Copies a step's host arrays into the buffers that ops read, and lends results to the host.

use std::ops::Deref;

use candle_core::Tensor;

use super::OpError;
use super::access::{Writable, check_dims, read, write};

/// Copies `values` into `target`.
///
/// - `target`: `[values.len()]`, `f32` or `u32` as `values`, contiguous, written
///
/// # Errors
/// [`OpError::Shape`] if length or type differ.
pub fn upload<T: Writable>(values: &[T], target: &Tensor) -> Result<(), OpError> {
    check_dims("upload", "target", target, &[values.len()])?;
    write("upload", "target", target, &[], |elements: &mut [T]| {
        elements.copy_from_slice(values)
    })
}

/// Sets every element of `target` to zero.
///
/// - `target`: any shape, f32, contiguous, written
///
/// # Errors
/// [`OpError::Shape`] if it is of another type or not contiguous.
pub fn zero(target: &Tensor) -> Result<(), OpError> {
    write("zero", "target", target, &[], |elements: &mut [f32]| {
        elements.fill(0.0)
    })
}

/// Lends the elements of a contiguous f32 tensor to the host. Ops that write the tensor wait while it is lent.
///
/// # Errors
/// [`OpError::Shape`] if it is of another type or not contiguous.
pub fn lend(tensor: &Tensor) -> Result<Box<dyn Deref<Target = [f32]> + '_>, OpError> {
    Ok(Box::new(read::<f32>("lend", "tensor", tensor)?))
}
