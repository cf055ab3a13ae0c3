//! How a CUDA kernel is launched: its name, its grid and its arguments, as plain numbers.
//!
//! Each op works out its launch from its sizes alone, without a device, so that the emulation and a GPU run the same one.

/// A launch of one kernel, in the form of `cuLaunchKernel`.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// The kernel's name in `kernels/`.
    pub kernel: &'static str,
    /// Blocks, in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of each block.
    pub shared_bytes: u32,
    /// In the order of the kernel's parameters.
    pub arguments: Vec<Argument>,
}

/// One argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument {
    /// Where a tensor lies on the device.
    Address(Address),
    /// An unsigned number of 32 bits.
    U32(u32),
    /// A float.
    F32(f32),
}

impl Argument {
    /// Its bytes at the front of eight, as a little-endian machine reads them.
    #[cfg(feature = "cuda")]
    pub(super) fn to_bits(self) -> u64 {
        match self {
            Self::Address(Address(address)) => address,
            Self::U32(number) => u64::from(number),
            Self::F32(number) => u64::from(number.to_bits()),
        }
    }
}

/// An address in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub u64);

impl From<Address> for Argument {
    fn from(address: Address) -> Self {
        Self::Address(address)
    }
}

impl From<u32> for Argument {
    fn from(number: u32) -> Self {
        Self::U32(number)
    }
}

impl From<f32> for Argument {
    fn from(number: f32) -> Self {
        Self::F32(number)
    }
}

impl Launch {
    /// Blocks and threads in one dimension. No blocks at all stand for a launch that does nothing.
    pub(super) fn linear(
        kernel: &'static str,
        blocks: u32,
        threads: u32,
        arguments: Vec<Argument>,
    ) -> Self {
        Self {
            kernel,
            grid: [blocks, 1, 1],
            block: [threads, 1, 1],
            shared_bytes: 0,
            arguments,
        }
    }
}

/// Threads, whole warps of them, so that each has an item while there are enough, at most `most`.
pub(super) fn threads_for(items: u32, most: u32) -> u32 {
    items.next_multiple_of(WARP).clamp(WARP, most)
}

/// Lanes of a warp.
pub(super) const WARP: u32 = 32;
