//! What the driver says of itself, and of what went wrong.

use cudarc::driver::DriverError;
use cudarc::driver::sys;

use crate::ops::OpError;

/// As the driver counts: 12030 is CUDA 12.3. 0 if it does not say.
pub(super) fn driver_version() -> i32 {
    let mut version = 0;
    // SAFETY: the driver writes one number there.
    #[allow(unsafe_code)]
    let done = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    done.result().map_or(0, |()| version)
}

pub(super) fn driver(op: &str, error: &DriverError) -> OpError {
    OpError::Driver {
        op: op.to_owned(),
        problem: said(error),
    }
}

/// What the driver calls an error, such as `out of memory (CUDA_ERROR_OUT_OF_MEMORY)`.
pub(super) fn said(error: &DriverError) -> String {
    match (error.error_string(), error.error_name()) {
        (Ok(text), Ok(name)) => format!("{} ({})", text.to_string_lossy(), name.to_string_lossy()),
        _ => format!("error {:?}", error.0),
    }
}
