//! The device that tests run kernels on: the emulation, or the GPU that `MIXGATE_TEST_DEVICE=cuda:0` names.
//!
//! On a GPU, run tests one at a time (`--test-threads=1`): they share its one stream.

#[cfg(feature = "cuda")]
use std::sync::OnceLock;
use std::time::Duration;

use mixgate_emulate::Architecture;

use super::OpError;
#[cfg(feature = "cuda")]
use super::cuda::{Cuda, CudaMemory, CudaStaged, RecordedGraph};
use super::device::{Device, Memory, Multiplier, Staged};
use super::emulated::{Emulated, EmulatedMemory, EmulatedStaged};
use super::launch::{Address, Launch};

/// See above.
#[derive(Debug)]
pub enum TestDevice {
    Emulated(Emulated),
    #[cfg(feature = "cuda")]
    Gpu(&'static Cuda),
}

#[derive(Debug)]
pub enum TestMemory {
    Emulated(EmulatedMemory),
    #[cfg(feature = "cuda")]
    Gpu(CudaMemory),
}

#[derive(Debug)]
pub enum TestStaged {
    Emulated(EmulatedStaged),
    #[cfg(feature = "cuda")]
    Gpu(CudaStaged),
}

#[derive(Debug)]
pub enum TestGraph {
    Emulated(Vec<Launch>),
    #[cfg(feature = "cuda")]
    Gpu(RecordedGraph),
}

impl Default for TestDevice {
    fn default() -> Self {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = gpu() {
            return Self::Gpu(gpu);
        }
        Self::Emulated(Emulated::default())
    }
}

#[cfg(feature = "cuda")]
fn gpu() -> Option<&'static Cuda> {
    static GPU: OnceLock<Option<Cuda>> = OnceLock::new();
    GPU.get_or_init(open).as_ref()
}

/// Opens the GPU that is to be tested.
#[cfg(feature = "cuda")]
fn open() -> Option<Cuda> {
    let name = std::env::var("MIXGATE_TEST_DEVICE").ok()?;
    let ordinal = name.strip_prefix("cuda:").and_then(|it| it.parse().ok());
    let ordinal = ordinal.unwrap_or_else(|| panic!("MIXGATE_TEST_DEVICE is {name}, wanted cuda:N"));
    let gpu = Cuda::open(ordinal).and_then(Cuda::with_warpgroups);
    Some(gpu.unwrap_or_else(|error| panic!("{error}")))
}

impl TestDevice {
    /// With cuBLASLt; `None` without a GPU, or where the library is not installed.
    pub fn with_library() -> Option<Self> {
        #[cfg(feature = "cuda")]
        {
            static GPU: OnceLock<Option<Cuda>> = OnceLock::new();
            let gpu = GPU.get_or_init(|| open()?.with_library().ok());
            gpu.as_ref().map(Self::Gpu)
        }
        #[cfg(not(feature = "cuda"))]
        None
    }

    /// One with room for so many recorded graphs; `None` for a GPU, which has room.
    pub fn with_room_for_graphs(count: usize) -> Option<Self> {
        match Self::default() {
            Self::Emulated(_) => Some(Self::Emulated(Emulated::with_room_for_graphs(count))),
            #[cfg(feature = "cuda")]
            Self::Gpu(_) => None,
        }
    }

    /// One whose tensor cores add as this architecture's do; a GPU's add as its own do.
    pub fn adding_as(architecture: Architecture) -> Self {
        match Self::default() {
            Self::Emulated(_) => Self::Emulated(Emulated::adding_as(architecture)),
            #[cfg(feature = "cuda")]
            gpu @ Self::Gpu(_) => gpu,
        }
    }

    /// As late as a device may be.
    pub fn late() -> Self {
        match Self::default() {
            Self::Emulated(_) => Self::Emulated(Emulated::late()),
            #[cfg(feature = "cuda")]
            gpu @ Self::Gpu(_) => gpu,
        }
    }

    /// How often memory was asked for; `None` for a GPU, which does not count.
    pub fn allocations(&self) -> Option<usize> {
        match self {
            Self::Emulated(device) => Some(device.allocations()),
            #[cfg(feature = "cuda")]
            Self::Gpu(_) => None,
        }
    }

    /// Whether accesses are judged.
    pub fn is_emulated(&self) -> bool {
        matches!(self, Self::Emulated(_))
    }
}

impl TestMemory {
    /// In the emulation, fails if there is a byte that nobody has written.
    pub fn assert_written(&self) {
        match self {
            Self::Emulated(memory) => memory.assert_written(),
            #[cfg(feature = "cuda")]
            Self::Gpu(_) => {}
        }
    }
}

impl Memory for TestMemory {
    fn address(&self) -> Address {
        match self {
            Self::Emulated(memory) => memory.address(),
            #[cfg(feature = "cuda")]
            Self::Gpu(memory) => memory.address(),
        }
    }
}

impl Staged for TestStaged {
    fn bytes(&self) -> usize {
        match self {
            Self::Emulated(staged) => staged.bytes(),
            #[cfg(feature = "cuda")]
            Self::Gpu(staged) => staged.bytes(),
        }
    }

    fn settled(&mut self) -> Result<&mut [u8], OpError> {
        match self {
            Self::Emulated(staged) => staged.settled(),
            #[cfg(feature = "cuda")]
            Self::Gpu(staged) => staged.settled(),
        }
    }
}

impl Device for TestDevice {
    type Memory = TestMemory;
    type Staged = TestStaged;
    type Graph = TestGraph;

    fn describe(&self) -> String {
        match self {
            Self::Emulated(device) => device.describe(),
            #[cfg(feature = "cuda")]
            Self::Gpu(device) => device.describe(),
        }
    }

    fn allocate(&self, bytes: usize) -> Result<TestMemory, OpError> {
        match self {
            Self::Emulated(device) => device.allocate(bytes).map(TestMemory::Emulated),
            #[cfg(feature = "cuda")]
            Self::Gpu(device) => device.allocate(bytes).map(TestMemory::Gpu),
        }
    }

    fn upload(&self, bytes: &[u8], to: Address) -> Result<(), OpError> {
        match self {
            Self::Emulated(device) => device.upload(bytes, to),
            #[cfg(feature = "cuda")]
            Self::Gpu(device) => device.upload(bytes, to),
        }
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), OpError> {
        match self {
            Self::Emulated(device) => device.download(from, bytes),
            #[cfg(feature = "cuda")]
            Self::Gpu(device) => device.download(from, bytes),
        }
    }

    fn stage(&self, bytes: usize) -> Result<TestStaged, OpError> {
        match self {
            Self::Emulated(device) => device.stage(bytes).map(TestStaged::Emulated),
            #[cfg(feature = "cuda")]
            Self::Gpu(device) => device.stage(bytes).map(TestStaged::Gpu),
        }
    }

    fn send(&self, from: &mut TestStaged, bytes: usize, to: Address) -> Result<(), OpError> {
        match (self, from) {
            (Self::Emulated(device), TestStaged::Emulated(from)) => device.send(from, bytes, to),
            #[cfg(feature = "cuda")]
            (Self::Gpu(device), TestStaged::Gpu(from)) => device.send(from, bytes, to),
            #[cfg(feature = "cuda")]
            _ => unreachable!("{ELSEWHERE}"),
        }
    }

    fn fetch(&self, from: Address, bytes: usize, to: &mut TestStaged) -> Result<(), OpError> {
        match (self, to) {
            (Self::Emulated(device), TestStaged::Emulated(to)) => device.fetch(from, bytes, to),
            #[cfg(feature = "cuda")]
            (Self::Gpu(device), TestStaged::Gpu(to)) => device.fetch(from, bytes, to),
            #[cfg(feature = "cuda")]
            _ => unreachable!("{ELSEWHERE}"),
        }
    }

    fn between(
        &self,
        earlier: &TestStaged,
        later: &TestStaged,
    ) -> Result<Option<Duration>, OpError> {
        match (self, earlier, later) {
            (Self::Emulated(device), TestStaged::Emulated(a), TestStaged::Emulated(b)) => {
                device.between(a, b)
            }
            #[cfg(feature = "cuda")]
            (Self::Gpu(device), TestStaged::Gpu(a), TestStaged::Gpu(b)) => device.between(a, b),
            #[cfg(feature = "cuda")]
            _ => unreachable!("{ELSEWHERE}"),
        }
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), OpError> {
        match self {
            Self::Emulated(device) => device.copy(from, to, bytes),
            #[cfg(feature = "cuda")]
            Self::Gpu(device) => device.copy(from, to, bytes),
        }
    }

    fn launch(&self, launch: &Launch) -> Result<(), OpError> {
        match self {
            Self::Emulated(device) => device.launch(launch),
            #[cfg(feature = "cuda")]
            Self::Gpu(device) => device.launch(launch),
        }
    }

    fn multiplier(&self) -> Multiplier {
        match self {
            Self::Emulated(device) => device.multiplier(),
            #[cfg(feature = "cuda")]
            Self::Gpu(device) => device.multiplier(),
        }
    }

    fn multiply(&self, at: [Address; 3], sizes: [u32; 3]) -> Result<(), OpError> {
        match self {
            Self::Emulated(device) => device.multiply(at, sizes),
            #[cfg(feature = "cuda")]
            Self::Gpu(device) => device.multiply(at, sizes),
        }
    }

    fn capture<E: From<OpError>>(
        &self,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<TestGraph, E> {
        match self {
            Self::Emulated(device) => device.capture(work).map(TestGraph::Emulated),
            #[cfg(feature = "cuda")]
            Self::Gpu(device) => device.capture(work).map(TestGraph::Gpu),
        }
    }

    fn replay(&self, graph: &TestGraph) -> Result<(), OpError> {
        match (self, graph) {
            (Self::Emulated(device), TestGraph::Emulated(graph)) => device.replay(graph),
            #[cfg(feature = "cuda")]
            (Self::Gpu(device), TestGraph::Gpu(graph)) => device.replay(graph),
            #[cfg(feature = "cuda")]
            _ => unreachable!("{ELSEWHERE}"),
        }
    }
}

#[cfg(feature = "cuda")]
const ELSEWHERE: &str = "what a device made is used there. This is a bug.";
