//! What a GPU keeps for us: memory, and recorded launches.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::{CudaGraph, CudaStream, result};

use crate::ops::device::Memory;
use crate::ops::launch::Address;

/// Memory of a GPU. It keeps the context alive that it belongs to.
pub struct CudaMemory {
    pub(super) address: u64,
    /// That of its device: what uses the memory is asked there.
    pub(super) stream: Arc<CudaStream>,
}

/// A recorded graph of launches.
pub struct RecordedGraph(pub(super) CudaGraph);

impl Memory for CudaMemory {
    fn address(&self) -> Address {
        Address(self.address)
    }
}

impl Drop for CudaMemory {
    fn drop(&mut self) {
        // Nothing is left to do about a failure here.
        let _ = self.stream.context().bind_to_thread();
        let _ = self.stream.synchronize();
        // SAFETY: allocated by `Cuda::allocate`, freed once; work that uses it has ended.
        #[allow(unsafe_code)]
        let _ = unsafe { result::free_sync(self.address) };
    }
}

// SAFETY: the driver's graph may be used from any thread, by one at a time; all use goes through the device's stream,
// under the lock of whoever keeps the graphs.
#[allow(unsafe_code)]
unsafe impl Send for RecordedGraph {}
// SAFETY: as above; `replay` is called under that lock.
#[allow(unsafe_code)]
unsafe impl Sync for RecordedGraph {}

impl fmt::Debug for CudaMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)
    }
}

impl fmt::Debug for RecordedGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("recorded")
    }
}
