//! A kernel that was loaded, and how it is launched.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::sys::CUfunction_attribute_enum::{
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
    CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
};
use cudarc::driver::sys::CUlaunchAttributeID_enum::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
use cudarc::driver::sys::{self, CUlaunchAttribute, CUlaunchAttributeValue, CUlaunchConfig};
use cudarc::driver::{CudaFunction, DriverError};

use crate::ops::launch::Launch;

pub(super) struct Kernel {
    function: CudaFunction,
    /// The most dynamic shared memory that it has been allowed so far.
    shared_bytes: AtomicU32,
}

impl Kernel {
    /// `programmatic`: its blocks are to come up beside those of other kernels.
    pub fn new(function: CudaFunction, programmatic: bool) -> Result<Self, DriverError> {
        if programmatic {
            let share = CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
            function.set_attribute(share, ALL_SHARED)?;
        }
        Ok(Self {
            function,
            shared_bytes: AtomicU32::new(WITHOUT_ASKING),
        })
    }

    /// Asks for it on a stream. `begins_early`: it may begin before the kernel before has ended, for which it waits itself.
    pub fn launch(
        &self,
        launch: &Launch,
        stream: sys::CUstream,
        begins_early: bool,
    ) -> Result<(), DriverError> {
        self.allow(launch.shared_bytes)?;
        // Each argument in eight bytes of its own; the driver reads as many as the kernel's parameter has.
        let mut values: Vec<u64> = launch.arguments.iter().map(|it| it.to_bits()).collect();
        let mut pointers: Vec<*mut c_void> = values
            .iter_mut()
            .map(|value| std::ptr::from_mut(value).cast())
            .collect();
        let mut programmatic = CUlaunchAttribute {
            id: CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: CUlaunchAttributeValue {
                programmaticStreamSerializationAllowed: 1,
            },
        };
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        let config = CUlaunchConfig {
            gridDimX: gx,
            gridDimY: gy,
            gridDimZ: gz,
            blockDimX: bx,
            blockDimY: by,
            blockDimZ: bz,
            sharedMemBytes: launch.shared_bytes,
            hStream: stream,
            attrs: &raw mut programmatic,
            numAttrs: u32::from(begins_early),
        };
        // SAFETY: the launch was worked out by the op whose kernel it names, and the same launches are run under
        // emulation, which judges number of arguments, every access, and whether it waits for the kernel before.
        #[allow(unsafe_code)]
        let done = unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                self.function.cu_function(),
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        done.result()
    }

    /// More than 48 KiB must be asked for, once.
    fn allow(&self, shared_bytes: u32) -> Result<(), DriverError> {
        if shared_bytes <= self.shared_bytes.load(Ordering::Relaxed) {
            return Ok(());
        }
        let most = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        self.function.set_attribute(most, shared_bytes as i32)?;
        self.shared_bytes.store(shared_bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// Dynamic shared memory that every kernel may have.
const WITHOUT_ASKING: u32 = 48 << 10;

/// In percent. A multiprocessor is expected to change how its memory is shared out only when it is empty: if all kernels want
/// the same, the next one's blocks can come up beside those of the one before.
const ALL_SHARED: i32 = 100;
