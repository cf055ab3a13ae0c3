//! The loop of the engine thread: take what came in, plan, run, commit, emit.

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::executor::{ExecuteError, Executor};
use super::live::{Live, Requests};
use super::request::{EngineError, FinishReason, TokenId};
use super::scheduler::{Outcome, Scheduler, StepPlan};
use super::sequence::SequenceId;
use super::shared::{Message, Shared, Submission};
use super::{EngineConfig, Stats};
use crate::auth::Charge;

/// Everything that the engine thread owns.
pub(super) struct Stepper<E> {
    executor: E,
    scheduler: Scheduler,
    requests: Requests,
    inbox: Receiver<Message>,
    shared: Arc<Shared>,
    /// Sequences taken from the inbox that the published counters do not count yet.
    arrived: usize,
    stopping: bool,
    /// The step that a device carries out while the next one is planned; empty if there is none.
    running: StepPlan,
    /// Kept from step to step for their memory.
    plan: StepPlan,
    outcomes: Vec<Outcome>,
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
        let scheduler = Scheduler::new(executor.capacity(), config, eos.into());
        shared.publish(scheduler.stats(), 0);
        Self {
            executor,
            scheduler,
            requests: Requests::default(),
            inbox,
            shared,
            arrived: 0,
            stopping: false,
            running: StepPlan::default(),
            plan: StepPlan::default(),
            outcomes: Vec::new(),
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
                tracing::error!(%error, "a step failed: the engine ends all requests and stops");
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
    ///
    /// Where a device computes while the host has time for other things, that is the next pass: it is planned and begun
    /// before the tokens of the last one are known, so that the device goes on while they go out. But not during a long
    /// one: who arrives meanwhile would wait for that and for the next, and a pause after it is no loss.
    pub(super) fn step(&mut self) -> Result<(), StepError> {
        if self.running.num_tokens() > LONG {
            self.land()?;
        }
        self.take_inbox();
        if self.stopping {
            return Ok(());
        }
        let now = self.shared.now();
        self.end_overdue(now);
        self.scheduler.plan(now, &mut self.plan);
        if self.plan.is_empty() && self.running.is_empty() {
            return self.rest();
        }
        self.requests.start(&self.plan.admitted);
        self.publish();
        let started = if self.plan.is_empty() {
            Ok(())
        } else {
            (self.executor).start(&self.plan, self.scheduler.sequences())
        };
        self.land()?;
        started?;
        self.scheduler.begin(&self.plan);
        std::mem::swap(&mut self.plan, &mut self.running);
        if self.executor.overlaps() {
            return Ok(());
        }
        self.land()
    }

    /// Waits for the step that runs, if there is one, and tells what came of it.
    fn land(&mut self) -> Result<(), StepError> {
        if self.running.is_empty() {
            return Ok(());
        }
        let sampled = self.executor.finish()?;
        self.scheduler
            .commit(&self.running, &sampled, &mut self.outcomes);
        self.running.clear();
        self.publish();
        self.emit();
        Ok(())
    }

    /// Whether a step has something to do. Sleeps in the inbox until then, at no cost; `false` is the end.
    fn has_work_or_waits_for_it(&mut self) -> bool {
        let is_idle = self.scheduler.is_idle() && self.running.is_empty();
        if is_idle && !self.stopping {
            match self.inbox.recv() {
                Ok(message) => self.take(message),
                Err(_) => self.stopping = true,
            }
        }
        !self.stopping
    }

    fn take_inbox(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            self.take(message);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit(submission) => self.add(*submission),
            Message::Finish(id) => self.end(id, FinishReason::Stop),
            Message::Cancel(number) => self.end_request(number, FinishReason::Cancelled),
            Message::Shutdown => self.stopping = true,
        }
    }

    fn add(&mut self, submission: Submission) {
        let Submission {
            permit,
            arrival,
            place,
            events,
        } = submission;
        self.arrived += arrival.request.n as usize;
        let live = Live::new(permit, place, events, arrival.request.n);
        self.requests.insert(arrival.number, live);
        self.scheduler.add(arrival);
    }

    /// Ends the requests whose time is over or whose right was taken away.
    fn end_overdue(&mut self, now: Duration) {
        for (number, reason) in self.requests.overdue(now) {
            self.end_request(number, reason);
        }
    }

    fn end_request(&mut self, number: u64, reason: FinishReason) {
        for id in self.requests.sequences_of(number) {
            self.end(id, reason);
        }
    }

    fn end(&mut self, id: SequenceId, reason: FinishReason) {
        if let Some(usage) = self.scheduler.end(id, reason) {
            self.publish();
            self.requests.finish(id, reason, usage);
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

    /// Tells what came of a step.
    fn emit(&mut self) {
        let outcomes = std::mem::take(&mut self.outcomes);
        for &Outcome {
            id,
            token,
            finished,
        } in &outcomes
        {
            let announced = !matches!(finished, Some((FinishReason::Stop, _)));
            let charge = self.requests.token(id, token, announced);
            match (finished, charge) {
                // What has ended needs no further token.
                (Some((reason, usage)), _) => self.requests.finish(id, reason, usage),
                (None, Charge::Covered) => {}
                (None, Charge::Spent) => self.end(id, FinishReason::BudgetSpent),
            }
        }
        self.outcomes = outcomes;
        if self.scheduler.is_idle() {
            self.check();
        }
    }

    /// Fails everything, what is still in the inbox included.
    fn abort(&mut self, error: EngineError) {
        // Nobody may join a queue that nobody will serve.
        self.shared.drain();
        while let Ok(message) = self.inbox.try_recv() {
            if let Message::Submit(submission) = message {
                self.add(*submission);
            }
        }
        // Not one by one: after a panic, the books may be in a state that only throwing them away puts right. What was
        // used can still be told.
        for (id, usage) in self.scheduler.end_all(FinishReason::Aborted) {
            self.requests.settle(id, usage);
        }
        self.publish();
        self.requests.fail(&error);
    }

    fn publish(&mut self) {
        let arrived = std::mem::take(&mut self.arrived);
        self.shared.publish(self.scheduler.stats(), arrived);
    }

    fn check(&self) {
        if let Err(error) = self.scheduler.check() {
            tracing::error!(%error, "the idle engine's books do not balance. This is a bug.");
        }
    }
}

/// Tokens beyond which a step of Mixtral 8x7B on a GPU is bound by arithmetic (some 300 for each of four pairs of experts),
/// and takes longer than one that only decodes.
const LONG: usize = 1024;

/// What a panic said, where it said it in words.
fn message_of(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
