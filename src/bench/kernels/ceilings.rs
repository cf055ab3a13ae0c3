//! What a device does at best: measured in the same run, and as its datasheet says.

use serde::Serialize;

use super::pool::Pool;
use super::timer::{copy_time, launch_time};
use super::{Effort, KernelBenchError, cases};
use crate::bench::datasheet::Datasheet;
use crate::ops::Device;

/// What the device does at best.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ceilings {
    /// Of a copy within the device, in GB/s: bytes read and bytes written.
    pub copy_gb_per_s: f64,
    /// Of our own bf16 product of square matrices, in TFLOP/s.
    pub bf16_tflop_per_s: f64,
    /// Of the same product by the library (cuBLASLt), in TFLOP/s; `None` where it was not measured.
    pub library_tflop_per_s: Option<f64>,
    /// Why it was not.
    pub library_missing: Option<String>,
    /// Whose product is the ceiling: the faster one.
    pub compute_ceiling: By,
    /// What the card's maker says; `None` of a card that is not known here.
    pub datasheet: Option<Datasheet>,
}

/// Whose product it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Our kernel's.
    Own,
    /// The library's.
    Library,
}

impl Ceilings {
    pub(super) fn new(
        copy_gb_per_s: f64,
        bf16_tflop_per_s: f64,
        library: Result<f64, String>,
        datasheet: Option<Datasheet>,
    ) -> Self {
        let is_faster = library.as_ref().is_ok_and(|&rate| rate > bf16_tflop_per_s);
        Self {
            copy_gb_per_s,
            bf16_tflop_per_s,
            library_tflop_per_s: library.as_ref().ok().copied(),
            library_missing: library.err(),
            compute_ceiling: if is_faster { By::Library } else { By::Own },
            datasheet,
        }
    }

    /// Measures them. `library` is the same device with a library for products, or why there is none.
    pub(super) fn measure<D: Device>(
        device: &D,
        library: Result<&D, String>,
        effort: &Effort,
    ) -> Result<Self, KernelBenchError> {
        let copied = 2.0 * effort.copy_bytes as f64;
        let copy = copy_time(&mut Pool::new(device, effort), effort)?;
        let own = product_rate(device, effort, false)?;
        // A library that is there and fails is no reason to measure nothing.
        let library = library.and_then(|library| {
            product_rate(library, effort, true).map_err(|error| error.to_string())
        });
        let datasheet = Datasheet::of(&device.describe());
        Ok(Self::new(
            copied / 1e9 / copy.as_secs_f64(),
            own,
            library,
            datasheet,
        ))
    }

    /// What products are held against, in TFLOP/s.
    pub fn tflop_per_s(&self) -> f64 {
        let library = self.library_tflop_per_s.unwrap_or(0.0);
        self.bf16_tflop_per_s.max(library)
    }
}

/// TFLOP/s of a bf16 product of square matrices.
fn product_rate<D: Device>(
    device: &D,
    effort: &Effort,
    by_library: bool,
) -> Result<f64, KernelBenchError> {
    let width = effort.matrix_width;
    let mut pool = Pool::new(device, effort);
    let case = match by_library {
        false => cases::bf16_product(&mut pool, [width; 3])?,
        true => cases::library_product(&mut pool, [width; 3])?,
    };
    let time = launch_time(&pool, &case.sets, effort)?;
    Ok(case.cost.flops as f64 / 1e12 / time.as_secs_f64())
}
