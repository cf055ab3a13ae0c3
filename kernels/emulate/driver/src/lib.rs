//! A CUDA driver whose one GPU is the emulation: as much of `libcuda.so` as Mixgate calls.
//!
//! With its folder in `LD_LIBRARY_PATH`, a binary with the `cuda` feature runs its kernels as fibers, every access judged, and
//! what it says to the driver is tested without a GPU: names, arguments, grids, copies, recorded graphs. Modules are not
//! looked into: kernels are those that the emulation was built with. What a kernel does wrong is printed, and is an error.

#![allow(non_snake_case, reason = "the driver's names")]
#![allow(unsafe_code, reason = "the driver's interface")]
#![allow(clippy::missing_safety_doc, reason = "as NVIDIA documents them")]

mod device;
mod memory;
mod stream;
mod work;

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
