//! What a run has done so far, counted by its tasks and shown by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that every task of a run adds to.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    started: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    chunks: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests that the run will make; 0 before it begins.
    pub total: u64,
    /// Requests that were sent.
    pub started: u64,
    /// Requests that were answered well.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Chunks with text that came.
    pub chunks: u64,
}

impl Progress {
    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            total: read(&self.total),
            started: read(&self.started),
            completed: read(&self.completed),
            failed: read(&self.failed),
            chunks: read(&self.chunks),
        }
    }

    pub(super) fn begin(&self, total: usize) {
        self.total.store(total as u64, Ordering::Relaxed);
    }

    pub(super) fn start(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn chunk(&self) {
        self.chunks.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self, is_good: bool) {
        let counter = if is_good {
            &self.completed
        } else {
            &self.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Snapshot {
    /// Requests that were sent and have not ended.
    pub fn in_flight(&self) -> u64 {
        self.started.saturating_sub(self.completed + self.failed)
    }

    /// One line for a terminal; `earlier` was taken `seconds` before.
    pub fn line(&self, earlier: &Self, seconds: f64) -> String {
        if self.total == 0 {
            return "asking the server how it counts tokens …".to_owned();
        }
        let rate = (self.chunks - earlier.chunks) as f64 / seconds.max(1e-3);
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        format!(
            "{} of {} done, {} in flight{failed}, {rate:.0} chunks/s",
            self.completed + self.failed,
            self.total,
            self.in_flight()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_what_is_done_and_how_fast() {
        let progress = Progress::default();
        let before = progress.snapshot();
        assert!(before.line(&before, 1.0).starts_with("asking"));
        progress.begin(10);
        for _ in 0..4 {
            progress.start();
        }
        progress.end(true);
        progress.end(false);
        for _ in 0..30 {
            progress.chunk();
        }
        let line = progress.snapshot().line(&before, 0.5);
        assert_eq!(line, "2 of 10 done, 2 in flight, 1 failed, 60 chunks/s");
    }
}
