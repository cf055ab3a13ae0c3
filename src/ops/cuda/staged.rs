//! Page-locked memory of the host: only from and to such does a GPU copy while the host goes on.

use std::fmt;
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::sys::{self, CUevent_flags_enum::CU_EVENT_DEFAULT};
use cudarc::driver::{CudaContext, result};

use super::errors::driver;
use crate::ops::OpError;
use crate::ops::device::Staged;
use crate::ops::launch::Address;

/// A stretch of page-locked memory, and events that tell when the last copy from or to it began and ended.
pub struct CudaStaged {
    pointer: *mut u8,
    bytes: usize,
    begins: sys::CUevent,
    ends: sys::CUevent,
    context: Arc<CudaContext>,
}

impl CudaStaged {
    pub(super) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, OpError> {
        let failed = |error| driver("page-locked memory", &error);
        context.bind_to_thread().map_err(failed)?;
        let mut staged = Self {
            pointer: ptr::null_mut(),
            bytes: bytes.max(1),
            begins: ptr::null_mut(),
            ends: ptr::null_mut(),
            context: Arc::clone(context),
        };
        // SAFETY: the context is current; the memory is freed once, by `drop`, and written before it is lent.
        #[allow(unsafe_code)]
        unsafe {
            staged.begins = result::event::create(CU_EVENT_DEFAULT).map_err(failed)?;
            staged.ends = result::event::create(CU_EVENT_DEFAULT).map_err(failed)?;
            let pointer = result::malloc_host(staged.bytes, 0).map_err(failed)?;
            staged.pointer = pointer.cast();
            staged.pointer.write_bytes(0, staged.bytes);
        }
        Ok(staged)
    }

    /// Copies its first `bytes` to the device.
    pub(super) fn send(
        &mut self,
        stream: sys::CUstream,
        bytes: usize,
        to: Address,
    ) -> Result<(), OpError> {
        let (begins, ends) = (self.begins, self.ends);
        let from = &self.settled()?[..bytes];
        // SAFETY: nobody writes the bytes before the event that is recorded behind the copy: `settled` waits for it. That
        // `to` has room for them is the caller's business, as it is for every launch.
        #[allow(unsafe_code)]
        let sent = unsafe {
            result::event::record(begins, stream)
                .and_then(|()| result::memcpy_htod_async(to.0, from, stream))
                .and_then(|()| result::event::record(ends, stream))
        };
        sent.map_err(|error| driver("send", &error))
    }

    /// Copies from the device to its first `bytes`.
    pub(super) fn fetch(
        &mut self,
        stream: sys::CUstream,
        bytes: usize,
        from: Address,
    ) -> Result<(), OpError> {
        let (begins, ends) = (self.begins, self.ends);
        let to = &mut self.settled()?[..bytes];
        // SAFETY: nobody reads the bytes before the event that is recorded behind the copy: `settled` waits for it.
        #[allow(unsafe_code)]
        let asked = unsafe {
            result::event::record(begins, stream)
                .and_then(|()| result::memcpy_dtoh_async(to, from.0, stream))
                .and_then(|()| result::event::record(ends, stream))
        };
        asked.map_err(|error| driver("fetch", &error))
    }

    /// The GPU's time from the end of its last copy to the beginning of that of `later`.
    pub(super) fn until(&self, later: &Self) -> Result<Duration, OpError> {
        // SAFETY: both events exist as long as their owners.
        #[allow(unsafe_code)]
        let took = unsafe { result::event::elapsed(self.ends, later.begins) };
        let took = took.map_err(|error| driver("time", &error))?;
        Ok(Duration::from_secs_f64(f64::from(took.max(0.0)) / 1e3))
    }

    fn wait(&self) -> Result<(), OpError> {
        // SAFETY: the event exists as long as its owner. One that was never recorded is over.
        #[allow(unsafe_code)]
        let waited = unsafe { result::event::synchronize(self.ends) };
        waited.map_err(|error| driver("wait", &error))
    }
}

impl Staged for CudaStaged {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn settled(&mut self) -> Result<&mut [u8], OpError> {
        let failed = |error| driver("wait", &error);
        self.context.bind_to_thread().map_err(failed)?;
        self.wait()?;
        // SAFETY: the memory is ours, initialised, and nothing copies from or to it any more.
        #[allow(unsafe_code)]
        Ok(unsafe { slice::from_raw_parts_mut(self.pointer, self.bytes) })
    }
}

impl Drop for CudaStaged {
    fn drop(&mut self) {
        // Nothing is left to do about a failure here.
        let _ = self.context.bind_to_thread();
        if !self.ends.is_null() {
            let _ = self.wait();
        }
        // SAFETY: made by `new` as far as it came, given back once, and no copy uses them any more.
        #[allow(unsafe_code)]
        unsafe {
            for event in [self.begins, self.ends] {
                if !event.is_null() {
                    let _ = result::event::destroy(event);
                }
            }
            if !self.pointer.is_null() {
                let _ = result::free_host(self.pointer.cast());
            }
        }
    }
}

// SAFETY: memory and events may be used from any thread; changing them takes `&mut`.
#[allow(unsafe_code)]
unsafe impl Send for CudaStaged {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for CudaStaged {}

impl fmt::Debug for CudaStaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}
