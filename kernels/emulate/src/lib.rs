//! Runs CUDA kernels without a GPU: the same `.cu` sources compiled as C++, each CUDA thread a fiber on the CPU.
//!
//! A launch has the form of `cuLaunchKernel`: a name, a grid, a block, bytes of shared memory and the arguments. Every
//! load and store of a kernel is judged: outside of every buffer, misaligned, of memory that nobody has written, or of
//! what another thread has written since the last barrier, it ends the launch with a [`Fault`] that names kernel, block
//! and thread. Blocks run one after the other; what one block writes, no other may touch in the same launch, except
//! by atomics.
//!
//! It knows no device's speed and nothing of tensors.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

mod buffer;
#[cfg(test)]
mod tests;
mod traffic;

pub use buffer::{Buffer, Element};
pub use traffic::{Moved, Traffic};

/// Copies from the host to an address within a buffer.
///
/// # Errors
/// [`Fault`] if it reaches outside of every buffer.
pub fn upload(bytes: &[u8], to: u64) -> Result<(), Fault> {
    let _machine = machine();
    within(to, bytes.len())?;
    // SAFETY: within a live buffer, as just checked; nobody else touches it under the lock.
    #[allow(unsafe_code)]
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len());
        emulated_written(to as *mut c_void, bytes.len());
    }
    Ok(())
}

/// Copies to the host from an address within a buffer, whether anybody has written what lies there or not.
///
/// # Errors
/// [`Fault`] if it reaches outside of every buffer.
pub fn download(from: u64, bytes: &mut [u8]) -> Result<(), Fault> {
    let _machine = machine();
    within(from, bytes.len())?;
    // SAFETY: within a live buffer, as just checked; nobody else touches it under the lock.
    #[allow(unsafe_code)]
    unsafe {
        std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len());
    }
    Ok(())
}

fn within(at: u64, bytes: usize) -> Result<(), Fault> {
    // SAFETY: looks the address up and touches nothing.
    #[allow(unsafe_code)]
    let within = unsafe { emulated_within(at as *mut c_void, bytes) };
    if within {
        return Ok(());
    }
    Err(Fault(format!(
        "{bytes} bytes at address {at:#x} are not within a buffer"
    )))
}

/// One argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument {
    /// An address; what lies there is judged at each access.
    Pointer(u64),
    /// A 32-bit integer, signed or not.
    U32(u32),
    /// A float.
    F32(f32),
}

/// Whose tensor cores a kernel's products are added by, to the last bit (`runtime/arithmetic.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Architecture {
    /// sm_80: eight products at once. It has none for E4M3.
    Ampere = 0,
    /// sm_90: sixteen products at once.
    #[default]
    Hopper = 1,
}

/// How a kernel is launched.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch<'a> {
    /// The kernel's name.
    pub kernel: &'a str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Whether it may begin before the kernel before has ended (programmatic dependent launch). Then each of its threads
    /// must wait for that one before it writes to a buffer, reads there what a kernel has written, or ends.
    pub programmatic: bool,
    /// The GPU whose arithmetic it is.
    pub architecture: Architecture,
    /// In the order of the kernel's parameters.
    pub arguments: Vec<Argument>,
}

/// What a kernel did wrong, in a sentence that names kernel, block and thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl Launch<'_> {
    /// Runs the kernel to its end or its first fault.
    ///
    /// # Errors
    /// [`Fault`]; buffers then hold what was written before.
    pub fn run(&self) -> Result<(), Fault> {
        self.started(None)
    }

    /// The same, and what it moved. It takes several times as long.
    ///
    /// # Errors
    /// As [`Launch::run`].
    pub fn run_counted(&self) -> Result<Traffic, Fault> {
        let mut traffic = Traffic::default();
        self.started(Some(&mut traffic))?;
        Ok(traffic)
    }

    fn started(&self, traffic: Option<&mut Traffic>) -> Result<(), Fault> {
        let kernel =
            CString::new(self.kernel).map_err(|_| Fault("no kernel has such a name".into()))?;
        let mut values: Vec<u64> = (self.arguments.iter())
            .map(|argument| match *argument {
                Argument::Pointer(address) => address,
                Argument::U32(number) => u64::from_ne_bytes(widened(number.to_ne_bytes())),
                Argument::F32(number) => u64::from_ne_bytes(widened(number.to_ne_bytes())),
            })
            .collect();
        launch_into(
            &kernel,
            self.grid,
            self.block,
            self.shared_bytes,
            self.programmatic,
            self.architecture,
            &mut values,
            traffic,
        )
    }
}

/// How many parameters a kernel has; `None` if there is no such kernel.
pub fn parameters(kernel: &std::ffi::CStr) -> Option<usize> {
    // SAFETY: a string that ends in a zero; the table is constant.
    #[allow(unsafe_code)]
    let count = unsafe { emulated_parameters(kernel.as_ptr()) };
    usize::try_from(count).ok()
}

/// Runs a kernel whose arguments are given as the driver takes them: each in the first of eight bytes of its own.
///
/// # Errors
/// As [`Launch::run`].
pub fn launch_raw(
    kernel: &std::ffi::CStr,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    programmatic: bool,
    architecture: Architecture,
    values: &mut [u64],
) -> Result<(), Fault> {
    launch_into(
        kernel,
        grid,
        block,
        shared_bytes,
        programmatic,
        architecture,
        values,
        None,
    )
}

#[allow(clippy::too_many_arguments, reason = "as the driver's call has them")]
fn launch_into(
    kernel: &std::ffi::CStr,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    programmatic: bool,
    architecture: Architecture,
    values: &mut [u64],
    traffic: Option<&mut Traffic>,
) -> Result<(), Fault> {
    let mut addresses: Vec<*mut c_void> = values
        .iter_mut()
        .map(|value| std::ptr::from_mut(value).cast())
        .collect();
    let mut said = [0u8; 512];
    let _machine = machine();
    // SAFETY: grid and block are three numbers, arguments `len` addresses of 8 bytes each, the traffic is laid out as
    // the runtime's or null, and the runtime writes at most `said.len()` bytes with a zero at the end. Every access of the kernel is judged before it is made.
    #[allow(unsafe_code)]
    let failed = unsafe {
        emulated_launch(
            kernel.as_ptr(),
            grid.as_ptr(),
            block.as_ptr(),
            shared_bytes,
            programmatic,
            architecture as u32,
            addresses.as_mut_ptr(),
            addresses.len() as u32,
            traffic.map_or(std::ptr::null_mut(), std::ptr::from_mut),
            said.as_mut_ptr().cast(),
            said.len(),
        )
    };
    if failed == 0 {
        return Ok(());
    }
    let length = said
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(said.len());
    Err(Fault(String::from_utf8_lossy(&said[..length]).into_owned()))
}

/// Four bytes at the front of eight, where a 32-bit parameter is read.
fn widened(bytes: [u8; 4]) -> [u8; 8] {
    let [a, b, c, d] = bytes;
    [a, b, c, d, 0, 0, 0, 0]
}

/// There is one machine, with one kernel at a time.
fn machine() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[allow(unsafe_code)]
unsafe extern "C" {
    fn emulated_register(at: *mut c_void, bytes: usize, initialised: bool);
    fn emulated_unregister(at: *mut c_void);
    fn emulated_parameters(name: *const c_char) -> c_int;
    fn emulated_within(at: *mut c_void, bytes: usize) -> bool;
    fn emulated_written(at: *mut c_void, bytes: usize);
    fn emulated_unwritten(at: *mut c_void) -> usize;
    fn emulated_launch(
        name: *const c_char,
        grid: *const u32,
        block: *const u32,
        dynamic_bytes: u32,
        programmatic: bool,
        architecture: u32,
        arguments: *mut *mut c_void,
        count: u32,
        traffic: *mut Traffic,
        fault: *mut c_char,
        room: usize,
    ) -> c_int;
}
