//! An NVIDIA GPU, through the driver. No CUDA library is linked: the driver is looked for when a device is opened.
//!
//! One context and one stream. Every call may come from any thread; the context is made current first.
//!
//! From Hopper on, a kernel that follows a kernel is launched so that it may begin before that one has ended (programmatic
//! dependent launch): all of ours wait inside, as `kernels/device.cuh` says. Recorded graphs keep these edges.

mod errors;
mod images;
mod kernel;
mod library;
mod memory;
mod staged;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cudarc::driver::sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
use cudarc::driver::sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
use cudarc::driver::sys::{self, CUgraphInstantiate_flags};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result};

use self::errors::{driver, driver_version, said};
use self::images::IMAGES;
use self::kernel::Kernel;
use self::library::Library;
use super::OpError;
use super::agreement::warpgroups_agree;
use super::device::{Device, Memory, Multiplier};
use super::launch::{Address, Launch};

pub use self::memory::{CudaMemory, RecordedGraph};
pub use self::staged::CudaStaged;

/// An NVIDIA GPU.
pub struct Cuda {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    kernels: HashMap<&'static str, Kernel>,
    described: String,
    /// What its driver was made for, as CUDA counts: 12030 is CUDA 12.3.
    driver_version: i32,
    /// Whether kernels may begin before the kernel before has ended.
    programmatic: bool,
    /// Whether it is a Hopper, which has kernels of its own.
    is_hopper: bool,
    multiplier: Multiplier,
    /// Whether a kernel of ours is the last that was asked of the stream.
    after_kernel: AtomicBool,
    /// Dropped before the memory that it works in.
    library: Option<(Library, CudaMemory)>,
}

/// What the binary's kernels were compiled with and for, such as `CUDA 13.0, sm_80 sm_90`.
pub(crate) const BUILT_FOR: &str = concat!("CUDA ", env!("MIXGATE_CUDA_VERSION"), ", sm_80 sm_90");

impl Cuda {
    /// Opens GPU number `ordinal` and loads the kernels.
    ///
    /// # Errors
    /// [`OpError::Driver`]: no driver, no such GPU, or one that the kernels were not compiled for.
    pub fn open(ordinal: usize) -> Result<Self, OpError> {
        let refuse = |problem: String| OpError::Driver {
            op: format!("cuda:{ordinal}"),
            problem,
        };
        // SAFETY: looks for the library by name and closes it again.
        #[allow(unsafe_code)]
        let has_driver = unsafe { sys::is_culib_present() };
        if !has_driver {
            return Err(refuse(
                "this machine has no NVIDIA driver (libcuda.so.1 was not found)".to_owned(),
            ));
        }
        let count = result::init()
            .and_then(|()| CudaContext::device_count())
            .map_err(|error| {
                refuse(format!(
                    "the NVIDIA driver does not start: {}",
                    said(&error)
                ))
            })?;
        if ordinal >= count as usize {
            return Err(refuse(format!(
                "there is no such GPU: the driver knows {count}, counted from 0"
            )));
        }
        let failed = |error: DriverError| refuse(said(&error));
        let context = CudaContext::new(ordinal).map_err(failed)?;
        let (major, minor) = context.compute_capability().map_err(failed)?;
        let name = context.name().map_err(failed)?;
        if major < 8 {
            return Err(refuse(format!(
                "{name} is of compute capability {major}.{minor}; kernels need 8.0 (A100) or newer"
            )));
        }
        let most = CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let shared_bytes = context.attribute(most).map_err(failed)?;
        if shared_bytes < SHARED_BYTES {
            return Err(refuse(format!(
                "{name} gives a block {} KiB of shared memory; kernels need {} (A100, H100)",
                shared_bytes >> 10,
                SHARED_BYTES >> 10
            )));
        }
        let driver_version = driver_version();
        let programmatic = major >= 9 && driver_version >= PROGRAMMATIC_SINCE;
        let mut kernels = HashMap::new();
        let is_hopper = (major, minor) == (9, 0);
        for image in IMAGES
            .iter()
            .filter(|image| is_hopper || !image.is_for_hopper)
        {
            let module = load(&context, image.fatbin).map_err(|error| {
                refuse(format!(
                    "{name} refuses the kernels, made with {BUILT_FOR}: {}; its driver is of CUDA {}.{}, \
                     it may have to be newer",
                    said(&error),
                    driver_version / 1000,
                    driver_version % 1000 / 10
                ))
            })?;
            for &kernel in image.kernels {
                let function = module.load_function(kernel).map_err(failed)?;
                let loaded = Kernel::new(function, programmatic).map_err(failed)?;
                kernels.insert(kernel, loaded);
            }
        }
        Ok(Self {
            stream: context.new_stream().map_err(failed)?,
            described: format!("cuda:{ordinal}, {name}"),
            context,
            kernels,
            driver_version,
            programmatic,
            is_hopper,
            multiplier: Multiplier::Warps,
            after_kernel: AtomicBool::new(false),
            library: None,
        })
    }

    /// Lets warpgroups multiply steps of many rows, if it is a Hopper and they say what its warps say.
    ///
    /// # Errors
    /// [`OpError::Driver`] if the GPU fails.
    pub fn with_warpgroups(mut self) -> Result<Self, OpError> {
        if !self.is_hopper {
            return Ok(self);
        }
        if warpgroups_agree(&self)? {
            self.multiplier = Multiplier::Warpgroups;
        } else {
            tracing::warn!(
                device = self.described,
                "warpgroups (wgmma) multiply with other bits than warps here; they are left alone, prompts take longer"
            );
        }
        Ok(self)
    }

    /// Leaves dense products of many rows to cuBLASLt.
    ///
    /// # Errors
    /// [`OpError::Driver`] if it is not installed, or there is no room for it to work in.
    pub fn with_library(mut self) -> Result<Self, OpError> {
        let workspace = self.allocate(Library::WORKSPACE_BYTES)?;
        let library = Library::open(workspace.address())?;
        self.described.push_str(", cuBLASLt");
        self.library = Some((library, workspace));
        Ok(self)
    }

    /// Bytes of its memory that are free now, and all of them.
    ///
    /// # Errors
    /// [`OpError::Driver`] if the driver fails.
    pub fn memory_bytes(&self) -> Result<(u64, u64), OpError> {
        let (free, all) = self
            .context
            .mem_get_info()
            .map_err(|error| driver("memory", &error))?;
        Ok((free as u64, all as u64))
    }

    /// Waits for all that was asked.
    ///
    /// # Errors
    /// [`OpError::Driver`] with what a kernel did wrong, if one did.
    pub fn synchronize(&self) -> Result<(), OpError> {
        self.stream
            .synchronize()
            .map_err(|error| driver("synchronize", &error))
    }

    /// The stream, for something that is no kernel of ours.
    fn bind(&self, op: &str) -> Result<sys::CUstream, OpError> {
        self.after_kernel.store(false, Ordering::Relaxed);
        self.context
            .bind_to_thread()
            .map_err(|error| driver(op, &error))?;
        Ok(self.stream.cu_stream())
    }
}

impl Device for Cuda {
    type Memory = CudaMemory;
    type Staged = CudaStaged;
    type Graph = RecordedGraph;

    fn describe(&self) -> String {
        self.described.clone()
    }

    fn allocate(&self, bytes: usize) -> Result<CudaMemory, OpError> {
        self.bind("allocate")?;
        // SAFETY: the context is current; the memory is freed once, by `CudaMemory`.
        #[allow(unsafe_code)]
        let address = unsafe { result::malloc_sync(bytes.max(1)) };
        let address = address.map_err(|error| OpError::Driver {
            op: format!("allocating {:.1} MiB", bytes as f64 / (1 << 20) as f64),
            problem: said(&error),
        })?;
        Ok(CudaMemory {
            address,
            stream: Arc::clone(&self.stream),
        })
    }

    fn upload(&self, bytes: &[u8], to: Address) -> Result<(), OpError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let stream = self.bind("upload")?;
        // SAFETY: from pageable memory, the driver has copied the bytes when this returns. That `to` has room for them is
        // the caller's business, as it is for every launch; the driver refuses addresses that are not its own.
        #[allow(unsafe_code)]
        let done = unsafe { result::memcpy_htod_async(to.0, bytes, stream) };
        done.map_err(|error| driver("upload", &error))
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), OpError> {
        if bytes.is_empty() {
            return self.synchronize();
        }
        let stream = self.bind("download")?;
        // SAFETY: `bytes` outlives the copy, which is waited for.
        #[allow(unsafe_code)]
        let asked = unsafe { result::memcpy_dtoh_async(bytes, from.0, stream) };
        let done = asked.and_then(|()| self.stream.synchronize());
        done.map_err(|error| driver("download", &error))
    }

    fn stage(&self, bytes: usize) -> Result<CudaStaged, OpError> {
        CudaStaged::new(&self.context, bytes)
    }

    fn send(&self, from: &mut CudaStaged, bytes: usize, to: Address) -> Result<(), OpError> {
        from.send(self.bind("send")?, bytes, to)
    }

    fn fetch(&self, from: Address, bytes: usize, to: &mut CudaStaged) -> Result<(), OpError> {
        to.fetch(self.bind("fetch")?, bytes, from)
    }

    fn between(
        &self,
        earlier: &CudaStaged,
        later: &CudaStaged,
    ) -> Result<Option<Duration>, OpError> {
        if self.driver_version < TIMES_SINCE {
            return Ok(None);
        }
        self.bind("time")?;
        earlier.until(later).map(Some)
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), OpError> {
        if bytes == 0 {
            return Ok(());
        }
        let stream = self.bind("copy")?;
        // SAFETY: as in `upload`.
        #[allow(unsafe_code)]
        let done = unsafe { result::memcpy_dtod_async(to.0, from.0, bytes, stream) };
        done.map_err(|error| driver("copy", &error))
    }

    fn launch(&self, launch: &Launch) -> Result<(), OpError> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        let after_kernel = self.after_kernel.load(Ordering::Relaxed);
        let stream = self.bind(launch.kernel)?;
        let kernel = self
            .kernels
            .get(launch.kernel)
            .ok_or_else(|| OpError::Driver {
                op: launch.kernel.to_owned(),
                problem: "there is no such kernel. This is a bug.".to_owned(),
            })?;
        kernel
            .launch(launch, stream, self.programmatic && after_kernel)
            .map_err(|error| driver(launch.kernel, &error))?;
        self.after_kernel.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn multiplier(&self) -> Multiplier {
        self.multiplier
    }

    fn multiply(&self, at: [Address; 3], sizes: [u32; 3]) -> Result<(), OpError> {
        match &self.library {
            Some((library, _)) if sizes[0] >= LIBRARY_ROWS => {
                library.multiply(at, sizes, self.bind("cublaslt")?)
            }
            _ => self.launch(&super::linear_launch(self.multiplier, at, sizes)),
        }
    }

    fn capture<E: From<OpError>>(
        &self,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<RecordedGraph, E> {
        let failed = |error: DriverError| driver("record", &error);
        self.bind("record")?;
        self.stream
            .begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .map_err(failed)?;
        let done = work();
        // Ended in any case: a stream that still records does nothing else.
        let graph = self.stream.end_capture(NO_FLAGS);
        self.bind("record")?;
        done?;
        let graph = graph.map_err(failed)?.ok_or_else(|| OpError::Driver {
            op: "record".to_owned(),
            problem: "nothing was recorded".to_owned(),
        })?;
        Ok(RecordedGraph(graph))
    }

    fn replay(&self, graph: &RecordedGraph) -> Result<(), OpError> {
        self.bind("replay")?;
        graph.0.launch().map_err(|error| driver("replay", &error))
    }
}

impl Drop for Cuda {
    /// A step that was begun uses kernels and memory that go next.
    fn drop(&mut self) {
        let _ = self.synchronize();
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.described)
    }
}

fn load(
    context: &Arc<CudaContext>,
    fatbin: &'static [u8],
) -> Result<Arc<cudarc::driver::CudaModule>, DriverError> {
    context.load_module(cudarc::nvrtc::Ptx::from_binary(fatbin.to_vec()))
}

/// Fewer rows are bound by the weights' memory traffic, where our kernels have nothing to lose.
const LIBRARY_ROWS: u32 = 64;

/// Shared memory that the largest tile takes, rounded up to what an A100 has.
const SHARED_BYTES: i32 = 163 << 10;

/// The first driver that has the function by which cudarc asks for a time between events.
const TIMES_SINCE: i32 = 12_080;

/// The first driver whose recorded graphs keep programmatic edges.
const PROGRAMMATIC_SINCE: i32 = 12_030;

const NO_FLAGS: CUgraphInstantiate_flags = CUgraphInstantiate_flags(0);
