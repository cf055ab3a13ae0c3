//! Where everybody leaves what is to be written down, and the writer finds it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::BudgetRecord;
use super::requests::Entry;
use super::writer::Writer;

/// Something to be done at once, on the writer's thread.
pub(super) type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// The lock is held for a push or a swap, never while anything is written.
#[derive(Debug)]
pub(super) struct Desk {
    inbox: Mutex<Inbox>,
    bell: Condvar,
    pub(super) stats: Counters,
    /// Counts changes of revocations and keys.
    rights: watch::Sender<u64>,
}

#[derive(Default)]
struct Inbox {
    told: Told,
    jobs: Vec<Job>,
    stopped: bool,
    /// Nobody comes to fetch anything any more.
    is_closed: bool,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// What waits for the next tick.
#[derive(Default)]
pub(super) struct Told {
    pub(super) arrivals: Vec<Arc<Entry>>,
    pub(super) budgets: Vec<BudgetRecord>,
    pub(super) touches: HashMap<String, String>,
}

/// What does not wait.
pub(super) struct Work {
    pub(super) jobs: Vec<Job>,
    pub(super) stopped: bool,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self {
            inbox: Mutex::default(),
            bell: Condvar::new(),
            stats: Counters::default(),
            rights: watch::Sender::new(0),
        }
    }

    /// A request is under way. Never waits for the writer; one too many is counted as lost.
    pub(super) fn arrived(&self, entry: Arc<Entry>) {
        let mut inbox = self.inbox();
        if inbox.told.arrivals.len() < MOST_ARRIVALS {
            inbox.told.arrivals.push(entry);
        } else {
            drop(inbox);
            self.stats.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn budgets(&self, records: Vec<BudgetRecord>) {
        let mut inbox = self.inbox();
        // A writer that hangs must not cost memory; a later record of the same budget says more.
        if inbox.told.budgets.len() < MOST_ARRIVALS {
            inbox.told.budgets.extend(records);
        }
    }

    pub(super) fn touch(&self, id: &str, day: &str) {
        let mut inbox = self.inbox();
        inbox.told.touches.insert(id.to_owned(), day.to_owned());
    }

    /// Leaves a job, or drops it if the writer has gone: whoever waits for its answer then hears that none comes.
    pub(super) fn ask(&self, job: Job) {
        let mut inbox = self.inbox();
        if inbox.is_closed {
            drop(inbox);
            drop(job);
        } else {
            inbox.jobs.push(job);
            self.bell.notify_one();
        }
    }

    /// The writer has gone.
    pub(super) fn close(&self) {
        let mut inbox = self.inbox();
        inbox.is_closed = true;
        let left = std::mem::take(&mut inbox.jobs);
        drop(inbox);
        drop(left);
    }

    pub(super) fn stop(&self) {
        self.inbox().stopped = true;
        self.bell.notify_one();
    }

    /// Waits for a job, or until `wake`, and takes all that is there.
    pub(super) fn wait(&self, wake: Instant) -> (Told, Work) {
        let mut inbox = self.inbox();
        while inbox.jobs.is_empty() && !inbox.stopped {
            let left = wake.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.bell.wait_timeout(inbox, left);
            inbox = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let work = Work {
            jobs: std::mem::take(&mut inbox.jobs),
            stopped: inbox.stopped,
        };
        (std::mem::take(&mut inbox.told), work)
    }

    pub(super) fn rights_changed(&self) {
        self.rights.send_modify(|changes| *changes += 1);
    }

    /// How often rights have changed, now and later.
    pub(super) fn rights(&self) -> watch::Receiver<u64> {
        self.rights.subscribe()
    }

    /// What the ledger has done and has yet to do.
    pub(super) fn stats(&self) -> LedgerStats {
        let waiting = self.inbox().told.arrivals.len();
        let stats = &self.stats;
        let wrote_ms = stats.wrote_ms.load(Ordering::Relaxed);
        LedgerStats {
            rows_written: stats.rows_written.load(Ordering::Relaxed),
            failed_writes: stats.failed_writes.load(Ordering::Relaxed),
            lost: stats.lost.load(Ordering::Relaxed),
            queued: waiting + stats.open.load(Ordering::Relaxed),
            since_last_write: stats
                .since
                .elapsed()
                .saturating_sub(Duration::from_millis(wrote_ms)),
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the ledger has done and has yet to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerStats {
    /// Rows of requests written, each time that one was.
    pub rows_written: u64,
    /// Transactions that failed; what they held was tried again.
    pub failed_writes: u64,
    /// Requests given up because too many could not be written.
    pub lost: u64,
    /// Requests under way or ended whose final row is not written yet.
    pub queued: usize,
    /// Since all that there was had been written.
    pub since_last_write: Duration,
}

#[derive(Debug)]
pub(super) struct Counters {
    pub(super) rows_written: AtomicU64,
    pub(super) failed_writes: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) open: AtomicUsize,
    since: Instant,
    /// Milliseconds after `since`.
    wrote_ms: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            rows_written: AtomicU64::new(0),
            failed_writes: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            since: Instant::now(),
            wrote_ms: AtomicU64::new(0),
        }
    }
}

impl Counters {
    pub(super) fn wrote_now(&self) {
        let after = self.since.elapsed().as_millis() as u64;
        self.wrote_ms.store(after, Ordering::Relaxed);
    }
}

/// Requests that begin between two ticks, before a writer that does not come back is not told of more: 65,536 at
/// twice a second.
const MOST_ARRIVALS: usize = 1 << 16;
