//! What runs kernels: memory, copies, launches. A GPU does, and in tests its emulation.

use std::fmt::Debug;
use std::time::Duration;

use super::OpError;
use super::launch::{Address, Launch};

/// What multiplies steps of many rows, in products and in attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Multiplier {
    /// Single warps, by `mma.sync`: any GPU's.
    #[default]
    Warps,
    /// Warpgroups, by `wgmma`: Hopper's. The bits are the same.
    Warpgroups,
}

/// A device with one stream: what is asked of it happens in order.
///
/// # Errors
/// [`OpError::Driver`] if the device fails or has no room.
pub trait Device: Debug + Send + Sync {
    /// A stretch of its memory, given back when dropped.
    type Memory: Memory;
    /// A place on the host that it copies from and to by itself.
    type Staged: Staged;
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

    /// Makes a place on the host of so many bytes.
    fn stage(&self, bytes: usize) -> Result<Self::Staged, OpError>;

    /// Copies the first `bytes` of a place to the device when their turn comes; the host goes on. Until then they stay as
    /// they are: [`Staged::settled`] waits for that.
    fn send(&self, from: &mut Self::Staged, bytes: usize, to: Address) -> Result<(), OpError>;

    /// Copies from the device to the front of a place when its turn comes; the host goes on. [`Staged::settled`] waits for
    /// it.
    fn fetch(&self, from: Address, bytes: usize, to: &mut Self::Staged) -> Result<(), OpError>;

    /// The device's time from the end of one place's last copy to the beginning of another's. Both are done. `None`: it has
    /// no clock.
    fn between(
        &self,
        earlier: &Self::Staged,
        later: &Self::Staged,
    ) -> Result<Option<Duration>, OpError>;

    /// Copies within the device.
    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), OpError>;

    /// Runs a kernel.
    fn launch(&self, launch: &Launch) -> Result<(), OpError>;

    /// What its products and attention of many rows are to be multiplied by.
    fn multiplier(&self) -> Multiplier {
        Multiplier::Warps
    }

    /// `y = x · wᵀ` of bf16 rows and weights, as [`super::linear_launch`]; by a library, where the device has one and such
    /// a product is worth it.
    fn multiply(&self, at: [Address; 3], sizes: [u32; 3]) -> Result<(), OpError> {
        self.launch(&super::linear_launch(self.multiplier(), at, sizes))
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

/// A place on the host that a device copies from and to by itself.
pub trait Staged: Debug + Send + Sync {
    /// How large it is.
    fn bytes(&self) -> usize;

    /// Waits until the device has done with it, and lends its bytes.
    ///
    /// # Errors
    /// [`OpError::Driver`] if the device failed.
    fn settled(&mut self) -> Result<&mut [u8], OpError>;
}

impl Address {
    /// The address `bytes` further on.
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}
