//! What runs kernels: memory, copies, launches. A GPU does, and in tests its emulation.

use std::fmt::Debug;

use super::OpError;
use super::launch::{Address, Launch};

/// A device with one stream: what is asked of it happens in order.
///
/// # Errors
/// [`OpError::Driver`] if the device fails or has no room.
pub trait Device: Debug + Send + Sync {
    /// A stretch of its memory, given back when dropped.
    type Memory: Memory;
    /// Work that was recorded to be done again.
    type Graph: Debug + Send + Sync;

    /// What to call it, such as `cuda:0, NVIDIA H100 PCIe`.
    fn describe(&self) -> String;

    /// Allocates memory with nothing in it.
    fn allocate(&self, bytes: usize) -> Result<Self::Memory, OpError>;

    /// Copies from the host. The bytes may be changed once this returns.
    fn upload(&self, bytes: &[u8], to: Address) -> Result<(), OpError>;

    /// Waits for all that was asked, then copies to the host.
    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), OpError>;

    /// Copies within the device.
    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), OpError>;

    /// Runs a kernel.
    fn launch(&self, launch: &Launch) -> Result<(), OpError>;

    /// `y = x · wᵀ` of bf16 rows and weights, as [`super::linear_launch`]; by a library, where the device has one and such
    /// a product is worth it.
    fn multiply(&self, at: [Address; 3], sizes: [u32; 3]) -> Result<(), OpError> {
        self.launch(&super::linear_launch(at, sizes))
    }

    /// Records what `work` asks for, without doing it. `work` neither allocates, uploads nor downloads.
    fn capture<E: From<OpError>>(
        &self,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<Self::Graph, E>;

    /// Does what was recorded.
    fn replay(&self, graph: &Self::Graph) -> Result<(), OpError>;
}

/// Memory of a device.
pub trait Memory: Debug + Send + Sync {
    /// Where it begins; a multiple of 256.
    fn address(&self) -> Address;
}

impl Address {
    /// The address `bytes` further on.
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}
