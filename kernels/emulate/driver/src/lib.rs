//! A CUDA driver whose one GPU is the emulation: as much of `libcuda.so` as Mixgate calls.
//!
//! With its folder in `LD_LIBRARY_PATH`, a binary with the `cuda` feature runs its kernels as fibers, every access judged, and
//! what it says to the driver is tested without a GPU: names, arguments, grids, copies, recorded graphs. Modules are not
//! looked into: kernels are those that the emulation was built with. What a kernel does wrong is printed, and is an error.

#![allow(non_snake_case, reason = "the driver's names")]
#![allow(unsafe_code, reason = "the driver's interface")]
#![allow(clippy::missing_safety_doc, reason = "as NVIDIA documents them")]

mod stream;

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mixgate_emulate::{Buffer, download};

use stream::{Recorded, Stream, Work};

type Status = c_int;

const SUCCESS: Status = 0;
const INVALID_VALUE: Status = 1;
const OUT_OF_MEMORY: Status = 2;
const NOT_FOUND: Status = 500;
const ILLEGAL_ADDRESS: Status = 700;

/// What the driver knows.
#[derive(Default)]
struct Driver {
    memory: HashMap<u64, Buffer<u8>>,
    allocated: usize,
    stream: Stream,
    /// Launches of the stream that records, if one does.
    recording: Option<Vec<Recorded>>,
    events: usize,
}

/// `CUlaunchConfig`.
#[repr(C)]
pub struct Config {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    _stream: *mut c_void,
    attributes: *const Attribute,
    count: c_uint,
}

/// `CUlaunchAttribute`; of the values, a number is all that is looked at.
#[repr(C)]
pub struct Attribute {
    id: c_uint,
    _pad: [u8; 4],
    value: c_int,
    _rest: [u8; 60],
}

/// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`
const PROGRAMMATIC_STREAM_SERIALIZATION: c_uint = 6;

/// What a block of an H100 can have.
const MOST_SHARED_BYTES: c_int = 227 << 10;

/// What is known of each byte takes 24.
const LARGEST: usize = 128 << 20;

/// As if a card had 2 GiB.
const ALL: usize = 2 << 30;

fn driver() -> MutexGuard<'static, Driver> {
    shared().lock().unwrap_or_else(PoisonError::into_inner)
}

fn shared() -> &'static Mutex<Driver> {
    static DRIVER: std::sync::OnceLock<Mutex<Driver>> = std::sync::OnceLock::new();
    DRIVER.get_or_init(Mutex::default)
}

fn failed(problem: impl std::fmt::Display) -> Status {
    eprintln!("emulated driver: {problem}");
    ILLEGAL_ADDRESS
}

/// Writes `value` where the caller wants it.
unsafe fn put<T>(to: *mut T, value: T) -> Status {
    if to.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the driver's interface: a place for one value.
    unsafe { to.write(value) };
    SUCCESS
}

/// A handle that stands for the only one of its kind.
fn only() -> *mut c_void {
    static ONLY: u64 = 0;
    ptr::from_ref(&ONLY).cast_mut().cast()
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: c_uint) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> Status {
    unsafe { put(version, 13_000) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> Status {
    unsafe { put(count, 1) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> Status {
    if ordinal != 0 {
        return INVALID_VALUE;
    }
    unsafe { put(device, 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, room: c_int, _device: c_int) -> Status {
    let text = c"emulated GPU".to_bytes_with_nul();
    if room < text.len() as c_int {
        return INVALID_VALUE;
    }
    unsafe { ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len()) };
    SUCCESS
}

/// Compute capability 9.0, and the shared memory that a block can have; nothing else is asked for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut c_int,
    attribute: c_int,
    _device: c_int,
) -> Status {
    let number = match attribute {
        75 => 9,
        97 => MOST_SHARED_BYTES,
        _ => 0,
    };
    unsafe { put(value, number) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(
    context: *mut *mut c_void,
    _device: c_int,
) -> Status {
    unsafe { put(context, only()) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(_context: *mut c_void) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut *mut c_void) -> Status {
    unsafe { put(context, only()) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> Status {
    driver().stream.finish().map_or_else(failed, |()| SUCCESS)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, all: *mut usize) -> Status {
    let allocated = driver().allocated;
    unsafe {
        put(free, ALL - allocated);
        put(all, ALL)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(
    module: *mut *mut c_void,
    _image: *const c_void,
) -> Status {
    unsafe { put(module, only()) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(_module: *mut c_void) -> Status {
    SUCCESS
}

/// A function is its name, kept for good.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut *mut c_void,
    _module: *mut c_void,
    name: *const c_char,
) -> Status {
    let name = unsafe { CStr::from_ptr(name) };
    if mixgate_emulate::parameters(name).is_none() {
        return NOT_FOUND;
    }
    let kept: &'static CStr = Box::leak(name.to_owned().into_boxed_c_str());
    unsafe { put(function, kept.as_ptr().cast_mut().cast()) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetAttribute(
    _function: *mut c_void,
    _attribute: c_int,
    value: c_int,
) -> Status {
    if value > MOST_SHARED_BYTES {
        INVALID_VALUE
    } else {
        SUCCESS
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut *mut c_void, _flags: c_uint) -> Status {
    unsafe { put(stream, only()) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(_stream: *mut c_void) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(_stream: *mut c_void) -> Status {
    driver().stream.finish().map_or_else(failed, |()| SUCCESS)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> Status {
    let mut driver = driver();
    if bytes == 0 {
        return INVALID_VALUE;
    }
    if bytes > LARGEST || driver.allocated + bytes > ALL {
        return OUT_OF_MEMORY;
    }
    let buffer = Buffer::<u8>::poisoned(bytes);
    let mixgate_emulate::Argument::Pointer(at) = buffer.pointer() else {
        return INVALID_VALUE;
    };
    driver.allocated += bytes;
    driver.memory.insert(at, buffer);
    unsafe { put(address, at) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> Status {
    let mut driver = driver();
    if !driver.stream.is_idle() {
        return failed("memory is freed while there is work that may use it");
    }
    match driver.memory.remove(&address) {
        None => INVALID_VALUE,
        Some(buffer) => {
            driver.allocated -= buffer.len();
            SUCCESS
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const u8,
    bytes: usize,
    _stream: *mut c_void,
) -> Status {
    if driver().recording.is_some() {
        return failed("a copy from the host while a graph is recorded");
    }
    let stream = &mut driver().stream;
    if stream.is_locked(from as usize, bytes) {
        let from = from as usize;
        stream.ask(Work::Send { from, bytes, to });
    } else {
        let bytes = unsafe { std::slice::from_raw_parts(from, bytes) };
        stream.ask(Work::Upload(bytes.to_vec(), to));
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut u8,
    from: u64,
    bytes: usize,
    _stream: *mut c_void,
) -> Status {
    if driver().recording.is_some() {
        return failed("a copy to the host while a graph is recorded");
    }
    let stream = &mut driver().stream;
    if stream.is_locked(to as usize, bytes) {
        let to = to as usize;
        stream.ask(Work::Fetch { from, bytes, to });
        return SUCCESS;
    }
    let done = stream.finish().and_then(|()| {
        let bytes = unsafe { std::slice::from_raw_parts_mut(to, bytes) };
        download(from, bytes).map_err(|fault| fault.to_string())
    });
    done.map_or_else(failed, |()| SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(
    to: u64,
    from: u64,
    bytes: usize,
    _stream: *mut c_void,
) -> Status {
    driver().stream.ask(Work::Copy { from, bytes, to });
    SUCCESS
}

/// Memory of the host, which it is anyway.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(
    memory: *mut *mut c_void,
    bytes: usize,
    _flags: c_uint,
) -> Status {
    let pages = vec![0u128; bytes.div_ceil(size_of::<u128>()).max(1)].into_boxed_slice();
    let bytes = size_of_val(&*pages);
    let pages = Box::into_raw(pages).cast::<u128>();
    driver().stream.lock(pages as usize, bytes);
    unsafe { put(memory, pages.cast()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(memory: *mut c_void) -> Status {
    match driver().stream.unlock(memory as usize) {
        Err(problem) => failed(problem),
        Ok(None) => INVALID_VALUE,
        Ok(Some(bytes)) => {
            let words = bytes / size_of::<u128>();
            let pages = ptr::slice_from_raw_parts_mut(memory.cast::<u128>(), words);
            // SAFETY: as much as was allocated there, which the driver has just forgotten.
            drop(unsafe { Box::from_raw(pages) });
            SUCCESS
        }
    }
}

/// An event is its number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut *mut c_void, _flags: c_uint) -> Status {
    let mut driver = driver();
    driver.events += 1;
    unsafe { put(event, ptr::without_provenance_mut(driver.events)) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: *mut c_void, _stream: *mut c_void) -> Status {
    let mut driver = driver();
    if driver.recording.is_some() {
        return failed("an event while a graph is recorded");
    }
    driver.stream.ask(Work::Mark(event.addr()));
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: *mut c_void) -> Status {
    let done = driver().stream.finish_until(event.addr());
    done.map_or_else(failed, |()| SUCCESS)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime_v2(
    milliseconds: *mut f32,
    _earlier: *mut c_void,
    _later: *mut c_void,
) -> Status {
    unsafe { put(milliseconds, 0.0) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(_event: *mut c_void) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernelEx(
    config: *const Config,
    function: *mut c_void,
    parameters: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> Status {
    let config = unsafe { &*config };
    let attributes = match config.count {
        0 => &[],
        count => unsafe { std::slice::from_raw_parts(config.attributes, count as usize) },
    };
    if let Some(other) = (attributes.iter()).find(|it| it.id != PROGRAMMATIC_STREAM_SERIALIZATION) {
        return failed(format!("launch attribute {} is unknown here", other.id));
    }
    let kernel: &'static CStr = unsafe { CStr::from_ptr(function.cast()) };
    let count = mixgate_emulate::parameters(kernel).unwrap_or(0);
    // Eight bytes of each are read, as the caller gives them.
    let values =
        (0..count).map(|i| unsafe { parameters.add(i).read().cast::<u64>().read_unaligned() });
    let recorded = Recorded {
        kernel,
        grid: config.grid,
        block: config.block,
        shared_bytes: config.shared_bytes,
        programmatic: attributes.iter().any(|it| it.value != 0),
        values: values.collect(),
    };
    let mut driver = driver();
    match &mut driver.recording {
        Some(launches) => launches.push(recorded),
        None => driver.stream.ask(Work::Launch(recorded)),
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(_stream: *mut c_void, _mode: c_int) -> Status {
    driver().recording = Some(Vec::new());
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(
    _stream: *mut c_void,
    graph: *mut *mut c_void,
) -> Status {
    match driver().recording.take() {
        None => INVALID_VALUE,
        Some(launches) => unsafe { put(graph, Box::into_raw(Box::new(launches)).cast()) },
    }
}

/// The graph itself is run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(
    exec: *mut *mut c_void,
    graph: *mut c_void,
    _flags: u64,
) -> Status {
    unsafe { put(exec, graph) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphLaunch(exec: *mut c_void, _stream: *mut c_void) -> Status {
    let launches = unsafe { &*exec.cast::<Vec<Recorded>>() };
    let mut driver = driver();
    for launch in launches {
        driver.stream.ask(Work::Launch(launch.clone()));
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(_exec: *mut c_void) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphDestroy(graph: *mut c_void) -> Status {
    drop(unsafe { Box::from_raw(graph.cast::<Vec<Recorded>>()) });
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(_status: Status, name: *mut *const c_char) -> Status {
    unsafe { put(name, c"EMULATED_ERROR".as_ptr()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(status: Status, text: *mut *const c_char) -> Status {
    let said = match status {
        INVALID_VALUE => c"invalid value",
        OUT_OF_MEMORY => c"out of memory",
        NOT_FOUND => c"no such kernel",
        _ => c"a kernel did something wrong",
    };
    unsafe { put(text, said.as_ptr()) }
}
