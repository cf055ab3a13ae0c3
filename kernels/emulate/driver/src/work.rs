//! What the one stream is asked to do: launches, recorded ones, and events between them.

use super::*;

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
