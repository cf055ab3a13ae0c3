//! The one device, its context, and its modules.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::*;

/// What a block of an H100 can have.
const MOST_SHARED_BYTES: c_int = 227 << 10;

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
