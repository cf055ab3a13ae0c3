//! Memory, and copies from and to it.

use super::*;

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
