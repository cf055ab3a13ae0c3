//! What the handles and the engine thread share: messages one way, a few numbers the other.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

use super::request::{EngineError, Event, Request, SubmitError};
use super::sequence::SequenceId;
use super::{Stats, Status};
use crate::auth::Permit;

/// What a handle tells the engine thread.
pub(super) enum Message {
    /// Run this.
    Submit(Submission),
    /// The caller has seen enough of this sequence.
    Finish(SequenceId),
    /// End everything.
    Shutdown,
}

/// An accepted request on its way to the engine thread.
pub(super) struct Submission {
    pub(super) number: u64,
    pub(super) permit: Permit,
    pub(super) request: Request,
    pub(super) events: UnboundedSender<Event>,
}

/// Numbers that both sides read.
#[derive(Default)]
pub(super) struct Shared {
    status: AtomicU8,
    /// Sequences submitted and not running. Handles add to it, which makes the bound exact; the thread takes away.
    waiting: AtomicUsize,
    next_request: AtomicU64,
    stats: Mutex<Stats>,
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    pub(super) fn status(&self) -> Status {
        match self.status.load(Ordering::SeqCst) {
            READY => Status::Ready,
            DRAINING => Status::Draining,
            _ => Status::Failed,
        }
    }

    /// No way leads back from failure, nor from draining to ready.
    pub(super) fn drain(&self) {
        // An error means that it drains or has failed already.
        let _ = self
            .status
            .compare_exchange(READY, DRAINING, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub(super) fn fail(&self) {
        self.status.store(FAILED, Ordering::SeqCst);
    }

    /// Why a request in flight ended, if it heard nothing else.
    pub(super) fn engine_error(&self) -> EngineError {
        match self.status() {
            Status::Failed => EngineError::Failed,
            Status::Ready | Status::Draining => EngineError::ShuttingDown,
        }
    }

    pub(super) fn next_request(&self) -> u64 {
        self.next_request.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts `n` more waiting sequences, unless that makes more than `limit`.
    pub(super) fn enqueue(&self, n: usize, limit: usize) -> Result<(), SubmitError> {
        let more = |waiting: usize| waiting.checked_add(n).filter(|&sum| sum <= limit);
        match self
            .waiting
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(SubmitError::QueueFull { limit }),
        }
    }

    /// Replaces `counted` waiting sequences by `now`.
    pub(super) fn recount(&self, counted: usize, now: usize) {
        if now >= counted {
            self.waiting.fetch_add(now - counted, Ordering::SeqCst);
        } else {
            self.waiting.fetch_sub(counted - now, Ordering::SeqCst);
        }
    }

    pub(super) fn publish(&self, stats: Stats) {
        *lock(&self.stats) = stats;
    }

    /// The last published counters, with the queue as it is now.
    pub(super) fn stats(&self) -> Stats {
        Stats {
            waiting: self.waiting.load(Ordering::SeqCst),
            ..*lock(&self.stats)
        }
    }
}

/// The data are plain numbers, whole at all times: a panic elsewhere does not spoil them.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const READY: u8 = 0;
const DRAINING: u8 = 1;
const FAILED: u8 = 2;
