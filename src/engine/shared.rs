//! What the handles and the engine thread share: messages one way, a few numbers the other.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::queue::{Demand, Queue};
use super::request::{EngineError, Event, SubmitError};
use super::sequence::{Arrival, SequenceId};
use super::{EngineConfig, Stats, Status};
use crate::auth::{IdentityKey, Permit};
use crate::clock::Uptime;

/// What a handle tells the engine thread.
pub(super) enum Message {
    /// Run this.
    Submit(Box<Submission>),
    /// The caller has seen enough of this sequence.
    Finish(SequenceId),
    /// The caller of the request of this number has gone.
    Cancel(u64),
    /// End everything.
    Shutdown,
}

/// An accepted request on its way to the engine thread.
pub(super) struct Submission {
    pub(super) permit: Permit,
    pub(super) arrival: Arrival,
    pub(super) place: Place,
    pub(super) events: UnboundedSender<Event>,
}

/// Numbers that both sides read.
pub(super) struct Shared {
    status: AtomicU8,
    next_request: AtomicU64,
    board: Mutex<Board>,
    uptime: Uptime,
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
}

struct Board {
    queue: Queue,
    /// As of the last step.
    stats: Stats,
    /// Sequences submitted and not in `stats` yet.
    arriving: usize,
}

impl Shared {
    pub(super) fn new(config: &EngineConfig, uptime: Uptime) -> Self {
        Self {
            status: AtomicU8::new(READY),
            next_request: AtomicU64::new(0),
            board: Mutex::new(Board {
                queue: Queue::new(config),
                stats: Stats::default(),
                arriving: 0,
            }),
            uptime,
            thread: Mutex::default(),
        }
    }

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

    /// Time since the engine's start.
    pub(super) fn now(&self) -> Duration {
        self.uptime.now()
    }

    /// Takes places in the queue.
    pub(super) fn join(
        self: &Arc<Self>,
        subject: IdentityKey,
        demand: Demand,
        deadline: Option<Duration>,
    ) -> Result<Place, SubmitError> {
        let arrived = self.now();
        let queue = &mut lock(&self.board).queue;
        queue.join(subject, demand, deadline, arrived)?;
        Ok(Place {
            shared: Arc::clone(self),
            subject,
            demand,
            arrived,
            waits: false,
        })
    }

    /// Counts sequences that are on their way to the thread.
    pub(super) fn arriving(&self, n: usize) {
        lock(&self.board).arriving += n;
    }

    /// Counts them no more: they found no thread.
    pub(super) fn arrived(&self, n: usize) {
        lock(&self.board).arriving -= n;
    }

    /// Shows the counters, in which `arrived` sequences are counted for the first time.
    pub(super) fn publish(&self, stats: Stats, arrived: usize) {
        let mut board = lock(&self.board);
        board.stats = stats;
        board.arriving -= arrived;
    }

    /// The last published counters, with the queue as it is now.
    pub(super) fn stats(&self) -> Stats {
        let board = lock(&self.board);
        Stats {
            waiting: board.stats.waiting + board.arriving,
            waiting_tokens: board.queue.taken().tokens,
            ..board.stats
        }
    }
}

/// A request's place in the queue, given back when it is dropped: at its first step, or at its end before that.
pub(super) struct Place {
    shared: Arc<Shared>,
    subject: IdentityKey,
    demand: Demand,
    arrived: Duration,
    /// Whether its request was made.
    waits: bool,
}

impl Place {
    /// When it was taken.
    pub(super) fn arrived(&self) -> Duration {
        self.arrived
    }

    /// The request is made: counts its tokens as they turned out to be.
    pub(super) fn correct(&mut self, tokens: usize) {
        self.waits = true;
        let queue = &mut lock(&self.shared.board).queue;
        queue.correct(&self.subject, &mut self.demand, tokens);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = self.shared.now();
        let queue = &mut lock(&self.shared.board).queue;
        match self.waits {
            true => queue.leave(&self.subject, self.demand, now),
            false => queue.forgo(&self.subject, self.demand),
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
