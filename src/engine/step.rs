//! The loop of the engine thread: take what came in, plan, run, commit, emit.

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tokio::sync::mpsc::UnboundedSender;

use super::executor::{ExecuteError, Executor};
use super::request::{EngineError, Event, FinishReason, TokenId, Usage};
use super::scheduler::{Outcome, Scheduler};
use super::sequence::{Sequence, SequenceId};
use super::shared::{Message, Shared, Submission};
use super::{EngineConfig, Stats};
use crate::auth::Permit;

/// Everything that the engine thread owns.
pub(super) struct Stepper<E> {
    executor: E,
    scheduler: Scheduler,
    eos: Arc<[TokenId]>,
    requests: BTreeMap<u64, Live>,
    inbox: Receiver<Message>,
    shared: Arc<Shared>,
    /// Waiting sequences that this side has counted into [`Shared`].
    counted_waiting: usize,
    stopping: bool,
}

/// A request that has unfinished sequences.
struct Live {
    permit: Permit,
    events: UnboundedSender<Event>,
    open: u32,
}

/// Why the loop ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// Going on would spin for ever without computing anything.
    #[error(
        "the scheduler planned no tokens with {waiting} sequences waiting and {running} running. This is a bug."
    )]
    Stuck { waiting: usize, running: usize },
}

impl<E: Executor> Stepper<E> {
    pub(super) fn new(
        executor: E,
        config: &EngineConfig,
        eos: Vec<TokenId>,
        inbox: Receiver<Message>,
        shared: Arc<Shared>,
    ) -> Self {
        let scheduler = Scheduler::new(executor.capacity(), config);
        shared.publish(scheduler.stats());
        let eos = eos.into();
        Self {
            executor,
            scheduler,
            eos,
            requests: BTreeMap::new(),
            inbox,
            shared,
            counted_waiting: 0,
            stopping: false,
        }
    }

    /// Runs until shut down, failed, or without anybody left to submit. Whatever happens, each request hears of it.
    pub(super) fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| {
            while self.has_work_or_waits_for_it() {
                self.step()?;
            }
            Ok::<_, StepError>(())
        }));
        match ended {
            Ok(Ok(())) => return self.abort(EngineError::ShuttingDown),
            Ok(Err(error)) => {
                tracing::error!(%error, "a step failed: the engine ends all requests and stops")
            }
            Err(panic) => tracing::error!(
                panic = message_of(&*panic),
                "a step panicked: the engine ends all requests and stops"
            ),
        }
        self.shared.fail();
        self.abort(EngineError::Failed);
    }

    /// One forward pass, from requests that came in to tokens that go out.
    pub(super) fn step(&mut self) -> Result<(), StepError> {
        self.take_inbox();
        if self.stopping {
            return Ok(());
        }
        let plan = self.scheduler.plan();
        if plan.parts.is_empty() {
            return self.rest();
        }
        self.publish();
        let sampled = self.executor.run(&plan, self.scheduler.sequences())?;
        let outcomes = self.scheduler.commit(&plan, &sampled);
        self.publish();
        self.emit(&outcomes);
        Ok(())
    }

    /// Whether a step has something to do. Sleeps in the inbox until then, at no cost; `false` is the end.
    fn has_work_or_waits_for_it(&mut self) -> bool {
        if self.scheduler.is_idle() && !self.stopping {
            match self.inbox.recv() {
                Ok(message) => self.take(message),
                Err(_) => self.stopping = true,
            }
        }
        !self.stopping
    }

    /// Takes all messages, then ends the requests whose receiver is gone.
    fn take_inbox(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            self.take(message);
        }
        let gone = |(&number, live): (&u64, &Live)| live.events.is_closed().then_some(number);
        let gone: Vec<u64> = self.requests.iter().filter_map(gone).collect();
        for number in gone {
            self.cancel(number);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit(submission) => self.add(submission),
            Message::Finish(id) => {
                if let Some(usage) = self.scheduler.end(id, FinishReason::Stop) {
                    self.publish();
                    self.finish(id, FinishReason::Stop, usage);
                }
            }
            Message::Shutdown => self.stopping = true,
        }
    }

    fn add(
        &mut self,
        Submission {
            number,
            permit,
            request,
            events,
        }: Submission,
    ) {
        // Keyed by the operating system's randomness, so unseeded requests get streams that nobody can foresee.
        let seed = std::hash::RandomState::new().hash_one(number);
        self.counted_waiting += request.n as usize;
        self.requests.insert(
            number,
            Live {
                permit,
                events,
                open: request.n,
            },
        );
        for sequence in Sequence::all_of(number, request, &self.eos, seed) {
            self.scheduler.add(sequence);
        }
    }

    /// Nothing was planned. With nothing to run, the books must be balanced.
    fn rest(&mut self) -> Result<(), StepError> {
        self.publish();
        let Stats {
            waiting, running, ..
        } = self.scheduler.stats();
        if !self.scheduler.is_idle() {
            return Err(StepError::Stuck { waiting, running });
        }
        self.check();
        Ok(())
    }

    fn emit(&mut self, outcomes: &[Outcome]) {
        for &Outcome {
            id,
            token,
            finished,
        } in outcomes
        {
            let live = self
                .requests
                .get(&id.request)
                .expect("a sequence's request outlives it. This is a bug.");
            live.permit.charge(1);
            // A failed send means that the receiver is gone, which the next step notices.
            if !matches!(finished, Some((FinishReason::Stop, _))) {
                let _ = live.events.send(Event::Token {
                    index: id.index,
                    id: token,
                });
            }
            if let Some((reason, usage)) = finished {
                self.finish(id, reason, usage);
            }
        }
        if self.scheduler.is_idle() {
            self.check();
        }
    }

    /// Announces the end of a sequence. The permit goes back before the request's last event, so that a caller who
    /// hears the end can start anew at once.
    fn finish(&mut self, id: SequenceId, reason: FinishReason, usage: Usage) {
        let event = Event::Finished {
            index: id.index,
            reason,
            usage,
        };
        let live = self
            .requests
            .get_mut(&id.request)
            .expect("a sequence's request outlives it. This is a bug.");
        live.open -= 1;
        if live.open > 0 {
            let _ = live.events.send(event);
        } else if let Some(Live { permit, events, .. }) = self.requests.remove(&id.request) {
            drop(permit);
            let _ = events.send(event);
        }
    }

    /// Ends all sequences of a request whose receiver is gone.
    fn cancel(&mut self, number: u64) {
        let of_it =
            |sequence: &Sequence| (sequence.id().request == number).then_some(sequence.id());
        let ids: Vec<SequenceId> = self
            .scheduler
            .sequences()
            .iter()
            .filter_map(of_it)
            .collect();
        for id in ids {
            self.scheduler.end(id, FinishReason::Cancelled);
        }
        self.requests.remove(&number);
    }

    /// Fails everything, what is still in the inbox included.
    fn abort(&mut self, error: EngineError) {
        // Nobody may join a queue that nobody will serve.
        self.shared.drain();
        while let Ok(message) = self.inbox.try_recv() {
            if let Message::Submit(submission) = message {
                self.add(submission);
            }
        }
        // Not one by one: after a panic, the books may be in a state that only throwing them away puts right.
        self.scheduler.end_all(FinishReason::Aborted);
        self.publish();
        for Live { permit, events, .. } in std::mem::take(&mut self.requests).into_values() {
            drop(permit);
            let _ = events.send(Event::Failed(error.clone()));
        }
    }

    fn publish(&mut self) {
        let stats = self.scheduler.stats();
        self.shared.recount(self.counted_waiting, stats.waiting);
        self.counted_waiting = stats.waiting;
        self.shared.publish(stats);
    }

    fn check(&self) {
        if let Err(error) = self.scheduler.check() {
            tracing::error!(%error, "the idle engine's books do not balance. This is a bug.");
        }
    }
}

/// What a panic said, where it said it in words.
fn message_of(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
