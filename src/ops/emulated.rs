//! The emulated device: what a GPU does, on the CPU, each access judged (`kernels/emulate`). For tests.

use std::sync::Mutex;

use mixgate_emulate::Buffer;

use super::OpError;
use super::device::{Device, Memory};
use super::launch::{Address, Argument, Launch};

/// A device that runs kernels as fibers. Memory begins poisoned: to read what nobody has written is a fault.
#[derive(Debug, Default)]
pub struct Emulated {
    recording: Mutex<Option<Vec<Launch>>>,
}

/// Memory of the emulated device.
pub struct EmulatedMemory(Buffer<u8>);

impl std::fmt::Debug for EmulatedMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl EmulatedMemory {
    /// Fails if there is a byte that nobody has written.
    pub fn assert_written(&self) {
        self.0.values();
    }
}

impl Memory for EmulatedMemory {
    fn address(&self) -> Address {
        match self.0.pointer() {
            mixgate_emulate::Argument::Pointer(address) => Address(address),
            other => unreachable!("{other:?} is no address. This is a bug."),
        }
    }
}

impl Device for Emulated {
    type Memory = EmulatedMemory;
    type Graph = Vec<Launch>;

    fn describe(&self) -> String {
        "emulated".to_owned()
    }

    fn allocate(&self, bytes: usize) -> Result<EmulatedMemory, OpError> {
        Ok(EmulatedMemory(Buffer::poisoned(bytes)))
    }

    fn upload(&self, bytes: &[u8], to: Address) -> Result<(), OpError> {
        self.outside_of_a_recording();
        mixgate_emulate::upload(bytes, to.0).map_err(|fault| failed("upload", &fault))
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), OpError> {
        self.outside_of_a_recording();
        mixgate_emulate::download(from.0, bytes).map_err(|fault| failed("download", &fault))
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), OpError> {
        let mut between = vec![0; bytes];
        self.download(from, &mut between)?;
        self.upload(&between, to)
    }

    fn launch(&self, launch: &Launch) -> Result<(), OpError> {
        if let Some(launches) = &mut *self.recording.lock().unwrap() {
            launches.push(launch.clone());
            return Ok(());
        }
        run(launch).map_err(|fault| failed(launch.kernel, &fault))
    }

    fn capture<E: From<OpError>>(
        &self,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<Vec<Launch>, E> {
        *self.recording.lock().unwrap() = Some(Vec::new());
        let done = work();
        let launches = self.recording.lock().unwrap().take().unwrap();
        done.map(|()| launches)
    }

    fn replay(&self, graph: &Vec<Launch>) -> Result<(), OpError> {
        graph.iter().try_for_each(|launch| self.launch(launch))
    }
}

impl Emulated {
    fn outside_of_a_recording(&self) {
        let recording = self.recording.lock().unwrap();
        assert!(recording.is_none(), "a recording holds launches only");
    }
}

/// Runs one launch to its end or its first fault. Any kernel of `kernels/` may begin before the one before has ended.
pub fn run(launch: &Launch) -> Result<(), mixgate_emulate::Fault> {
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
        arguments: launch.arguments.iter().map(argument).collect(),
    };
    emulated.run()
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
