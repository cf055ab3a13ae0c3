//! The one stream: what it was asked, in order, done as late as the driver's interface allows.
//!
//! A copy from page-locked memory reads it when its turn comes, and one to it writes it then; nothing is done before
//! somebody waits. So whoever changes, reads or frees something too early is found out.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CStr;

use mixgate_emulate::{Architecture, download, launch_raw, upload};

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
            Architecture::Hopper,
            &mut self.values,
        )
        .map_err(|fault| fault.to_string())
    }
}

#[cfg(test)]
mod tests {
    use mixgate_emulate::{Argument, Buffer};

    use super::*;

    fn address(buffer: &Buffer<u8>) -> u64 {
        match buffer.pointer() {
            Argument::Pointer(at) => at,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn page_locked_memory_is_read_when_its_turn_comes_and_other_memory_at_once() {
        let (locked, other) = (Buffer::<u8>::poisoned(2), Buffer::<u8>::poisoned(2));
        let host = vec![1u8, 2].leak().as_mut_ptr();
        let mut stream = Stream::default();
        stream.lock(host as usize, 2);
        stream.ask(Work::Send {
            from: host as usize,
            bytes: 2,
            to: address(&locked),
        });
        stream.ask(Work::Upload(vec![1, 2], address(&other)));
        // Too early. SAFETY: two bytes that nobody else looks at before `finish`.
        unsafe { host.write(9) };
        stream.finish().unwrap();
        assert_eq!((locked.values(), other.values()), (vec![9, 2], vec![1, 2]));
    }

    #[test]
    fn who_waits_for_an_event_waits_for_no_more_than_was_asked_before_it() {
        let buffers = [(); 3].map(|()| Buffer::<u8>::poisoned(1));
        let mut stream = Stream::default();
        for (number, buffer) in buffers.iter().enumerate() {
            stream.ask(Work::Upload(vec![number as u8], address(buffer)));
            // An event counts as it was recorded last.
            stream.ask(Work::Mark([7, 7, 8][number]));
        }
        stream.finish_until(9).unwrap();
        stream.finish_until(7).unwrap();
        assert_eq!(
            (buffers[0].values(), buffers[1].values()),
            (vec![0], vec![1])
        );
        assert!(!stream.is_idle());
        stream.finish_until(8).unwrap();
        assert_eq!(buffers[2].values(), [2]);
        assert!(stream.is_idle());
    }

    #[test]
    fn what_a_copy_is_still_to_use_is_not_freed() {
        let device = Buffer::<u8>::poisoned(4);
        let host = [0u8; 4];
        let at = host.as_ptr() as usize;
        let mut stream = Stream::default();
        stream.lock(at, 4);
        assert!(stream.is_locked(at + 1, 3) && !stream.is_locked(at + 1, 4));
        stream.ask(Work::Fetch {
            from: address(&device),
            bytes: 1,
            to: at + 3,
        });
        assert_eq!(
            stream.unlock(at).unwrap_err(),
            "page-locked memory is freed that a copy is still to use"
        );
        assert_eq!(stream.unlock(at), Ok(None));
    }
}
