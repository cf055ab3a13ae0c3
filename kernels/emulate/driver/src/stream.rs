//! The one stream: what it was asked, in order, done as late as the driver's interface allows.
//!
//! A copy from page-locked memory reads it when its turn comes, and one to it writes it then; nothing is done before
//! somebody waits. So whoever changes, reads or frees something too early is found out.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CStr;

use mixgate_emulate::{download, launch_raw, upload};

/// A launch with its arguments' values.
#[derive(Clone)]
pub struct Recorded {
    pub kernel: &'static CStr,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub programmatic: bool,
    pub values: Vec<u64>,
}

/// Something that was asked. Addresses of the host are numbers.
pub enum Work {
    Launch(Recorded),
    /// From memory that may be changed meanwhile: its bytes as they were.
    Upload(Vec<u8>, u64),
    /// From page-locked memory.
    Send {
        from: usize,
        bytes: usize,
        to: u64,
    },
    /// To page-locked memory.
    Fetch {
        from: u64,
        bytes: usize,
        to: usize,
    },
    Copy {
        from: u64,
        bytes: usize,
        to: u64,
    },
    /// An event is recorded.
    Mark(usize),
}

#[derive(Default)]
pub struct Stream {
    waiting: VecDeque<Work>,
    /// Bytes of each stretch of page-locked memory.
    pages: BTreeMap<usize, usize>,
}

impl Stream {
    pub fn ask(&mut self, work: Work) {
        self.waiting.push_back(work);
    }

    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Does all that was asked, up to the first fault.
    pub fn finish(&mut self) -> Result<(), String> {
        while let Some(work) = self.waiting.pop_front() {
            if let Err(fault) = work.run() {
                self.waiting.clear();
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Does what was asked before the event was recorded last. Nothing, if it was not or has happened.
    pub fn finish_until(&mut self, event: usize) -> Result<(), String> {
        let is_it = |work: &Work| matches!(work, Work::Mark(id) if *id == event);
        let Some(last) = self.waiting.iter().rposition(is_it) else {
            return Ok(());
        };
        let later = self.waiting.split_off(last + 1);
        let done = self.finish();
        if done.is_ok() {
            self.waiting = later;
        }
        done
    }

    /// From now on this memory of the host is page-locked.
    pub fn lock(&mut self, at: usize, bytes: usize) {
        self.pages.insert(at, bytes);
    }

    /// It is so no longer. `None` if it was not.
    ///
    /// # Errors
    /// If a copy from or to it is still to be done.
    pub fn unlock(&mut self, at: usize) -> Result<Option<usize>, String> {
        let Some(bytes) = self.pages.remove(&at) else {
            return Ok(None);
        };
        let uses = |work: &Work| match *work {
            Work::Send { from: host, .. } | Work::Fetch { to: host, .. } => {
                (at..at + bytes).contains(&host)
            }
            _ => false,
        };
        match self.waiting.iter().any(uses) {
            true => Err("page-locked memory is freed that a copy is still to use".to_owned()),
            false => Ok(Some(bytes)),
        }
    }

    /// Whether this stretch of the host's memory is page-locked.
    pub fn is_locked(&self, at: usize, bytes: usize) -> bool {
        let below = self.pages.range(..=at).next_back();
        below.is_some_and(|(&start, &length)| at + bytes <= start + length)
    }
}

impl Work {
    fn run(self) -> Result<(), String> {
        let said = |fault: mixgate_emulate::Fault| fault.to_string();
        match self {
            Self::Launch(launch) => launch.run(),
            Self::Upload(bytes, to) => upload(&bytes, to).map_err(said),
            Self::Send { from, bytes, to } => {
                // SAFETY: page-locked memory, which `unlock` keeps while a copy is to use it.
                let bytes = unsafe { std::slice::from_raw_parts(from as *const u8, bytes) };
                upload(bytes, to).map_err(said)
            }
            Self::Fetch { from, bytes, to } => {
                // SAFETY: as above.
                let bytes = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) };
                download(from, bytes).map_err(said)
            }
            Self::Copy { from, bytes, to } => {
                let mut between = vec![0; bytes];
                download(from, &mut between)
                    .and_then(|()| upload(&between, to))
                    .map_err(said)
            }
            Self::Mark(_) => Ok(()),
        }
    }
}

impl Recorded {
    fn run(mut self) -> Result<(), String> {
        launch_raw(
            self.kernel,
            self.grid,
            self.block,
            self.shared_bytes,
            self.programmatic,
            &mut self.values,
        )
        .map_err(|fault| fault.to_string())
    }
}
