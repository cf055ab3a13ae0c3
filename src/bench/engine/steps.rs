//! An executor whose steps are noted down, and what they say about decoding.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::rounded;
use crate::bench::Distribution;
use crate::engine::scheduler::StepPlan;
use crate::engine::sequence::Sequences;
use crate::engine::{Capacity, ExecuteError, Executor, TokenId};

/// An executor whose steps are noted down.
pub struct Timed<E> {
    executor: E,
    start: Instant,
    /// When the last step had ended.
    ended: Duration,
    /// Steps that have begun and not ended.
    begun: VecDeque<Begun>,
    log: StepLog,
}

impl<E> Timed<E> {
    /// Notes the steps of `executor` in the log that comes back too.
    pub fn new(executor: E) -> (Self, StepLog) {
        let log = StepLog::default();
        let timed = Self {
            executor,
            start: Instant::now(),
            ended: Duration::ZERO,
            begun: VecDeque::new(),
            log: log.clone(),
        };
        (timed, log)
    }
}

impl<E: Executor> Executor for Timed<E> {
    fn capacity(&self) -> Capacity {
        self.executor.capacity()
    }

    fn overlaps(&self) -> bool {
        self.executor.overlaps()
    }

    fn start(&mut self, plan: &StepPlan, sequences: &Sequences) -> Result<(), ExecuteError> {
        self.log.wait_until_let_go();
        let width = plan.parts.len();
        let seen = plan.parts.iter().map(|part| part.start + part.num_tokens);
        self.begun.push_back(Begun {
            at: self.start.elapsed(),
            sequences: width,
            computed: plan.num_tokens(),
            context: seen.sum(),
            is_decode: plan.num_tokens() == width && plan.num_due() == width,
        });
        self.executor.start(plan, sequences)
    }

    fn finish(&mut self) -> Result<Vec<TokenId>, ExecuteError> {
        let sampled = self.executor.finish()?;
        let before = std::mem::replace(&mut self.ended, self.start.elapsed());
        if let Some(begun) = self.begun.pop_front() {
            let idle = self.executor.idled();
            self.log.inner().steps.push(Step {
                idle: idle.unwrap_or(begun.at.saturating_sub(before)),
                ended: self.ended,
                tokens: sampled.len(),
                begun,
            });
        }
        Ok(sampled)
    }

    fn idled(&self) -> Option<Duration> {
        self.executor.idled()
    }
}

/// The steps that a [`Timed`] executor has run. It can hold the next one back until all requests are in.
#[derive(Debug, Clone, Default)]
pub struct StepLog(Arc<(Mutex<Inner>, Condvar)>);

#[derive(Debug, Default)]
struct Inner {
    steps: Vec<Step>,
    is_held: bool,
}

/// While it lives no step begins.
#[must_use]
pub(super) struct Hold<'a>(&'a StepLog);

impl StepLog {
    pub(super) fn take(&self) -> Vec<Step> {
        std::mem::take(&mut self.inner().steps)
    }

    /// Keeps steps from beginning, so that the requests of a batch begin together however long it takes to submit them.
    pub(super) fn hold(&self) -> Hold<'_> {
        self.inner().is_held = true;
        Hold(self)
    }

    fn wait_until_let_go(&self) {
        let mut inner = self.inner();
        while inner.is_held {
            inner = self.0.1.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Steps are pushed whole: a panic elsewhere does not spoil them.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.inner().is_held = false;
        self.0.0.1.notify_all();
    }
}

/// A step that has begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Begun {
    pub at: Duration,
    pub sequences: usize,
    /// Tokens that it computes.
    pub computed: usize,
    /// Tokens that its sequences see, each sequence's own.
    pub context: usize,
    /// Whether each sequence computes one token and gets the next: no prompts among them.
    pub is_decode: bool,
}

/// A step that has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// How long whatever computes had nothing to do before it.
    pub idle: Duration,
    pub ended: Duration,
    /// Tokens that it chose.
    pub tokens: usize,
    pub begun: Begun,
}

/// Steps that decode one token for each sequence of a batch, all of them, and compute no prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decode {
    /// Sequences in each.
    pub sequences: usize,
    /// How many such steps there were.
    pub steps: usize,
    /// Tokens that a sequence saw in them on average: keys and values that attention read of each.
    pub context: f64,
    /// Tokens per second in them.
    pub tokens_per_second: f64,
    /// From the end of the step before to the end of the step, in milliseconds.
    pub step_ms: Summary,
    /// The part of it in which whatever computes waited for the host, in microseconds.
    pub host_us: Summary,
}

/// A distribution in a few numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Arithmetic mean.
    pub mean: f64,
    /// 50th percentile.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Summary {
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let distribution = Distribution::of(values.into_iter().collect());
        Self {
            mean: rounded(distribution.mean),
            p50: rounded(distribution.median()),
            p99: rounded(distribution.percentile(99.0)),
            max: rounded(distribution.max()),
        }
    }
}

/// What the steps of a run say: about those in which exactly `width` sequences decode, if there are any, and the host's time
/// before each step.
pub(super) fn judge(steps: &[Step], width: usize) -> (Option<Decode>, Summary) {
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    // Before the first step the engine waited for work.
    let pairs = || steps.windows(2).map(|pair| (pair[0].ended, pair[1]));
    let full: Vec<(Duration, Step)> = pairs()
        .filter(|(_, step)| step.begun.is_decode && step.begun.sequences == width)
        .collect();
    let host = Summary::of(pairs().map(|(_, step)| micros(step.idle)));
    if full.is_empty() {
        return (None, host);
    }
    let times = || full.iter().map(|&(before, step)| step.ended - before);
    let seconds = times().sum::<Duration>().as_secs_f64();
    let sum = |of: fn(&Step) -> usize| full.iter().map(|(_, step)| of(step)).sum::<usize>() as f64;
    let decode = Decode {
        sequences: width,
        steps: full.len(),
        context: rounded(sum(|step| step.begun.context) / (full.len() * width) as f64),
        tokens_per_second: rounded(sum(|step| step.tokens) / seconds),
        step_ms: Summary::of(times().map(|time| micros(time) / 1e3)),
        host_us: Summary::of(full.iter().map(|&(_, step)| micros(step.idle))),
    };
    (Some(decode), host)
}
