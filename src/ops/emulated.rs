//! The emulated device: what a GPU does, on the CPU, each access judged (`kernels/emulate`). For tests.
//!
//! It does at once what it is asked, or, to show what a GPU may do, as late as possible: when somebody waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use mixgate_emulate::{Architecture, Buffer, Traffic};

use super::OpError;
use super::device::{Device, Memory, Multiplier, Staged};
use super::launch::{Address, Argument, Launch};

/// A device that runs kernels as fibers. Memory begins poisoned: to read what nobody has written is a fault.
#[derive(Debug, Default)]
pub struct Emulated {
    is_late: bool,
    architecture: Architecture,
    has_no_staging: bool,
    /// How many steps may still be recorded, if that is limited.
    room_for_graphs: Option<AtomicUsize>,
    /// How often memory was asked for, on the device and page-locked on the host.
    allocations: AtomicUsize,
    /// A kernel that does nothing.
    idle: Option<&'static str>,
    /// What kernels move, if that is counted.
    counts: Option<Counts>,
    stream: Stream,
    recording: Mutex<Option<Vec<Launch>>>,
}

/// By kernel.
type Counts = Arc<Mutex<BTreeMap<&'static str, Traffic>>>;

/// Memory of the emulated device.
pub struct EmulatedMemory {
    buffer: Buffer<u8>,
    stream: Stream,
}

/// A place on the host.
#[derive(Debug)]
pub struct EmulatedStaged {
    bytes: Arc<Mutex<Vec<u8>>>,
    stream: Stream,
}

/// What is still to be done, in order.
#[derive(Debug, Default, Clone)]
struct Stream(Arc<Mutex<VecDeque<Work>>>);

#[derive(Debug)]
enum Work {
    Launch(Launch, Architecture, Option<Counts>),
    Upload(Vec<u8>, Address),
    Copy(Address, Address, usize),
    Send(Arc<Mutex<Vec<u8>>>, usize, Address),
    Fetch(Address, usize, Arc<Mutex<Vec<u8>>>),
    /// Something went wrong when nobody could be told.
    Fail(OpError),
}

impl Stream {
    fn ask(&self, work: Work) {
        self.waiting().push_back(work);
    }

    /// Does all that is still to be done, up to the first fault.
    fn flush(&self) -> Result<(), OpError> {
        let mut waiting = self.waiting();
        while let Some(work) = waiting.pop_front() {
            if let Err(fault) = work.run() {
                waiting.clear();
                return Err(fault);
            }
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Work>> {
        self.0.lock().unwrap()
    }
}

impl Work {
    fn run(self) -> Result<(), OpError> {
        let upload = |bytes: &[u8], to: Address| {
            mixgate_emulate::upload(bytes, to.0).map_err(|fault| failed("upload", &fault))
        };
        let download = |from: Address, bytes: &mut [u8]| {
            mixgate_emulate::download(from.0, bytes).map_err(|fault| failed("download", &fault))
        };
        match self {
            Self::Launch(launch, architecture, counts) => {
                run(&launch, architecture, counts).map_err(|fault| failed(launch.kernel, &fault))
            }
            Self::Upload(bytes, to) => upload(&bytes, to),
            Self::Copy(from, to, bytes) => {
                let mut between = vec![0; bytes];
                download(from, &mut between)?;
                upload(&between, to)
            }
            Self::Send(from, bytes, to) => upload(&from.lock().unwrap()[..bytes], to),
            Self::Fetch(from, bytes, to) => download(from, &mut to.lock().unwrap()[..bytes]),
            Self::Fail(fault) => Err(fault),
        }
    }
}

impl std::fmt::Debug for EmulatedMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.buffer.len())
    }
}

impl EmulatedMemory {
    /// Fails if there is a byte that nobody has written.
    pub fn assert_written(&self) {
        self.stream.flush().unwrap();
        self.buffer.values();
    }
}

impl Memory for EmulatedMemory {
    fn address(&self) -> Address {
        match self.buffer.pointer() {
            mixgate_emulate::Argument::Pointer(address) => Address(address),
            other => unreachable!("{other:?} is no address. This is a bug."),
        }
    }
}

impl Drop for EmulatedMemory {
    /// As a driver, waits for work that uses it.
    fn drop(&mut self) {
        if let Err(fault) = self.stream.flush() {
            self.stream.ask(Work::Fail(fault));
        }
    }
}

impl Staged for EmulatedStaged {
    fn bytes(&self) -> usize {
        self.bytes.lock().unwrap().len()
    }

    fn settled(&mut self) -> Result<&mut [u8], OpError> {
        self.stream.flush()?;
        let bytes = Arc::get_mut(&mut self.bytes).expect("nothing is left to be copied");
        Ok(bytes.get_mut().unwrap())
    }
}

impl Device for Emulated {
    type Memory = EmulatedMemory;
    type Staged = EmulatedStaged;
    type Graph = Vec<Launch>;

    fn describe(&self) -> String {
        "emulated".to_owned()
    }

    fn multiplier(&self) -> Multiplier {
        match self.architecture {
            Architecture::Ampere => Multiplier::Warps,
            Architecture::Hopper => Multiplier::Warpgroups,
        }
    }

    fn allocate(&self, bytes: usize) -> Result<EmulatedMemory, OpError> {
        self.allocations.fetch_add(1, Relaxed);
        Ok(EmulatedMemory {
            buffer: Buffer::poisoned(bytes),
            stream: self.stream.clone(),
        })
    }

    fn upload(&self, bytes: &[u8], to: Address) -> Result<(), OpError> {
        self.ask(Work::Upload(bytes.to_vec(), to))
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), OpError> {
        self.outside_of_a_recording();
        self.stream.flush()?;
        mixgate_emulate::download(from.0, bytes).map_err(|fault| failed("download", &fault))
    }

    fn stage(&self, bytes: usize) -> Result<EmulatedStaged, OpError> {
        if self.has_no_staging {
            return Err(OpError::Driver {
                op: "page-locked memory".to_owned(),
                problem: "out of memory".to_owned(),
            });
        }
        self.allocations.fetch_add(1, Relaxed);
        Ok(EmulatedStaged {
            bytes: Arc::new(Mutex::new(vec![0; bytes])),
            stream: self.stream.clone(),
        })
    }

    fn send(&self, from: &mut EmulatedStaged, bytes: usize, to: Address) -> Result<(), OpError> {
        self.ask(Work::Send(Arc::clone(&from.bytes), bytes, to))
    }

    fn fetch(&self, from: Address, bytes: usize, to: &mut EmulatedStaged) -> Result<(), OpError> {
        self.ask(Work::Fetch(from, bytes, Arc::clone(&to.bytes)))
    }

    fn between(
        &self,
        _earlier: &EmulatedStaged,
        _later: &EmulatedStaged,
    ) -> Result<Option<Duration>, OpError> {
        Ok(None)
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), OpError> {
        self.ask(Work::Copy(from, to, bytes))
    }

    fn launch(&self, launch: &Launch) -> Result<(), OpError> {
        if self.idle == Some(launch.kernel) {
            return Ok(());
        }
        if let Some(launches) = &mut *self.recording.lock().unwrap() {
            launches.push(launch.clone());
            return Ok(());
        }
        self.ask(Work::Launch(
            launch.clone(),
            self.architecture,
            self.counts.clone(),
        ))
    }

    fn capture<E: From<OpError>>(
        &self,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<Vec<Launch>, E> {
        *self.recording.lock().unwrap() = Some(Vec::new());
        let done = work();
        let launches = self.recording.lock().unwrap().take().unwrap();
        done?;
        let left = self.room_for_graphs.as_ref();
        let has_room = left.is_none_or(|left| {
            let took = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
            took.is_ok()
        });
        match has_room {
            true => Ok(launches),
            false => Err(E::from(OpError::Driver {
                op: "record".to_owned(),
                problem: "out of memory".to_owned(),
            })),
        }
    }

    fn replay(&self, graph: &Vec<Launch>) -> Result<(), OpError> {
        graph.iter().try_for_each(|launch| self.launch(launch))
    }
}

impl Emulated {
    /// One that does nothing before somebody waits for it.
    pub fn late() -> Self {
        Self {
            is_late: true,
            ..Self::default()
        }
    }

    /// One whose tensor cores add as this architecture's do.
    pub fn adding_as(architecture: Architecture) -> Self {
        Self {
            architecture,
            ..Self::default()
        }
    }

    /// One whose host has no page-locked memory to give.
    pub fn refusing_to_stage() -> Self {
        Self {
            has_no_staging: true,
            ..Self::default()
        }
    }

    /// One on which this kernel does nothing, so that what it should write stays as it was.
    pub fn without(kernel: &'static str) -> Self {
        Self {
            idle: Some(kernel),
            ..Self::default()
        }
    }

    /// One that counts what kernels move. It takes several times as long.
    pub fn counting(architecture: Architecture) -> Self {
        Self {
            architecture,
            counts: Some(Counts::default()),
            ..Self::default()
        }
    }

    /// What each kernel has moved, if that is counted.
    pub fn traffic(&self) -> BTreeMap<&'static str, Traffic> {
        let counts = self.counts.as_ref();
        counts.map_or_else(BTreeMap::new, |counts| counts.lock().unwrap().clone())
    }

    /// How often memory was asked for, on the device and page-locked on the host.
    pub fn allocations(&self) -> usize {
        self.allocations.load(Relaxed)
    }

    /// One that is late, with room for so many recorded graphs.
    pub fn with_room_for_graphs(count: usize) -> Self {
        Self {
            room_for_graphs: Some(AtomicUsize::new(count)),
            ..Self::late()
        }
    }

    fn ask(&self, work: Work) -> Result<(), OpError> {
        self.outside_of_a_recording();
        self.stream.ask(work);
        match self.is_late {
            true => Ok(()),
            false => self.stream.flush(),
        }
    }

    fn outside_of_a_recording(&self) {
        let recording = self.recording.lock().unwrap();
        assert!(recording.is_none(), "a recording holds launches only");
    }
}

/// Runs one launch to its end or its first fault. Any kernel of `kernels/` may begin before the one before has ended.
fn run(
    launch: &Launch,
    architecture: Architecture,
    counts: Option<Counts>,
) -> Result<(), mixgate_emulate::Fault> {
    let argument = |argument: &Argument| match *argument {
        Argument::Address(Address(at)) => mixgate_emulate::Argument::Pointer(at),
        Argument::U32(number) => mixgate_emulate::Argument::U32(number),
        Argument::F32(number) => mixgate_emulate::Argument::F32(number),
    };
    let emulated = mixgate_emulate::Launch {
        kernel: launch.kernel,
        grid: launch.grid,
        block: launch.block,
        shared_bytes: launch.shared_bytes,
        programmatic: true,
        architecture,
        arguments: launch.arguments.iter().map(argument).collect(),
    };
    let Some(counts) = counts else {
        return emulated.run();
    };
    let traffic = emulated.run_counted()?;
    *(counts.lock().unwrap().entry(launch.kernel)).or_default() += traffic;
    Ok(())
}

/// A fault names its kernel first, as the error does.
fn failed(op: &str, fault: &mixgate_emulate::Fault) -> OpError {
    let said = fault.to_string();
    let problem = said.strip_prefix(&format!("{op}: ")).unwrap_or(&said);
    OpError::Driver {
        op: op.to_owned(),
        problem: problem.to_owned(),
    }
}
