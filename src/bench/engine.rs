//! The engine alone: requests go in by [`Engine::submit`], tokens come out of their streams; no HTTP, no text.
//!
//! [`Timed`] stands before any executor and notes when each step ends, and for how long whatever computes had waited for
//! the host before it: for scheduling, bookkeeping, handing out tokens. Where steps overlap with all that, it has not.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Map;
use tokio::task::JoinSet;

use super::Distribution;
use crate::auth::{
    AuthConfig, BuiltinError, BuiltinIssuer, Gate, GateError, Identity, MintRequest, Permit,
};
use crate::clock::Clock;
use crate::engine::philox::RandomStream;
use crate::engine::scheduler::StepPlan;
use crate::engine::sequence::Sequences;
use crate::engine::{
    Capacity, Engine, EngineError, Event, ExecuteError, Executor, Generation, Request,
    SamplingParams, StopConditions, SubmitError, TokenId,
};

#[cfg(test)]
mod tests;

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
        let width = plan.parts.len();
        self.begun.push_back(Begun {
            at: self.start.elapsed(),
            sequences: width,
            is_decode: plan.num_tokens() == width && plan.num_due() == width,
        });
        self.executor.start(plan, sequences)
    }

    fn finish(&mut self) -> Result<Vec<TokenId>, ExecuteError> {
        let sampled = self.executor.finish()?;
        let before = std::mem::replace(&mut self.ended, self.start.elapsed());
        if let Some(begun) = self.begun.pop_front() {
            let idle = self.executor.idled();
            self.log.steps().push(Step {
                idle: idle.unwrap_or(begun.at.saturating_sub(before)),
                ended: self.ended,
                sequences: begun.sequences,
                tokens: sampled.len(),
                is_decode: begun.is_decode,
            });
        }
        Ok(sampled)
    }

    fn idled(&self) -> Option<Duration> {
        self.executor.idled()
    }
}

/// The steps that a [`Timed`] executor has run.
#[derive(Debug, Clone, Default)]
pub struct StepLog(Arc<Mutex<Vec<Step>>>);

impl StepLog {
    fn take(&self) -> Vec<Step> {
        std::mem::take(&mut *self.steps())
    }

    /// Steps are pushed whole: a panic elsewhere does not spoil them.
    fn steps(&self) -> MutexGuard<'_, Vec<Step>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A step that has begun.
struct Begun {
    at: Duration,
    sequences: usize,
    is_decode: bool,
}

/// A step that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    /// How long whatever computes had nothing to do before it.
    idle: Duration,
    ended: Duration,
    sequences: usize,
    tokens: usize,
    /// Whether each sequence computed one token and got the next: no prompts among them.
    is_decode: bool,
}

/// Admits requests of one caller, as the gate of a server does: by a token whose signature it checks.
pub struct Admission {
    gate: Gate,
    identity: Arc<Identity>,
}

impl Admission {
    /// Makes an issuer in memory and a token of it.
    ///
    /// # Errors
    /// [`EngineBenchError`] if the system has no randomness or the token is refused.
    pub fn new() -> Result<Self, EngineBenchError> {
        let clock = Clock::system();
        let issuer = BuiltinIssuer::ephemeral()?;
        let gate = Gate::new(&AuthConfig::default(), Some(issuer.clone()), clock.clone())?;
        let wanted = MintRequest {
            subject: "bench".to_owned(),
            ttl: BuiltinIssuer::MAX_TTL,
            scopes: "chat".to_owned(),
            claims: Map::new(),
        };
        let refused = |why: String| EngineBenchError::Refused { why };
        let token = issuer
            .mint(&wanted, clock.unix_seconds())
            .map_err(|error| refused(error.to_string()))?;
        let identity = gate
            .verify(token.as_bytes())
            .map_err(|denied| refused(denied.detail().to_owned()))?;
        Ok(Self {
            gate,
            identity: Arc::new(identity),
        })
    }

    fn permit(&self) -> Result<Permit, EngineBenchError> {
        self.gate
            .admit(self.identity.clone(), Arc::default())
            .map_err(|denied| EngineBenchError::Refused {
                why: denied.detail().to_owned(),
            })
    }
}

/// What is asked of the engine, all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Requests, each of one sequence.
    pub batch: usize,
    /// Tokens of each prompt; at least 1. No two prompts are alike.
    pub prompt_len: usize,
    /// Tokens that each generates; at least 1.
    pub output_len: usize,
    /// Makes the prompts.
    pub seed: u64,
}

/// What came of a [`Workload`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Requests.
    pub batch: usize,
    /// From the first submission to the last token, in seconds.
    pub seconds: f64,
    /// Tokens generated per second of it, prompts and all.
    pub output_tokens_per_second: f64,
    /// Steps, of prompts and of tokens.
    pub steps: usize,
    /// The steps that only decode, as many sequences at once as ever happened.
    pub decode: Decode,
    /// How long whatever computes waited for the host before a step, in microseconds, over all steps.
    pub host_us: Summary,
    /// From a request's submission to its first token, in milliseconds.
    pub ttft_ms: Summary,
    /// Times that a sequence lost its blocks to another.
    pub preemptions: u64,
}

/// Steps that decode one token for each of the same number of sequences.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decode {
    /// Sequences in each; below the batch if so many never ran at once.
    pub sequences: usize,
    /// How many such steps there were.
    pub steps: usize,
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
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let distribution = Distribution::of(values.into_iter().collect());
        Self {
            mean: rounded(distribution.mean),
            p50: rounded(distribution.median()),
            p99: rounded(distribution.percentile(99.0)),
            max: rounded(distribution.max()),
        }
    }
}

/// Runs `workload` on `engine`, whose executor writes `log`. Prompts begin with `bos` and go on with `words`.
///
/// # Errors
/// [`EngineBenchError`] if the engine takes a request not, or does not finish it.
///
/// # Panics
/// If there are no words.
pub async fn measure(
    engine: &Engine,
    log: &StepLog,
    admission: &Admission,
    (bos, words): (TokenId, &[TokenId]),
    workload: Workload,
) -> Result<Row, EngineBenchError> {
    let mut requests = Vec::with_capacity(workload.batch);
    for number in 0..workload.batch {
        let prompt = prompt(number, workload, bos, words);
        requests.push((admission.permit()?, request(prompt, workload.output_len)));
    }
    log.take();
    let before = engine.stats();
    let start = Instant::now();
    let mut streams = JoinSet::new();
    for (permit, request) in requests {
        let submitted = Instant::now();
        let generation = engine.submit(permit, request)?;
        streams.spawn(hear(generation, submitted, workload.output_len));
    }
    let mut ttft = Vec::with_capacity(workload.batch);
    while let Some(heard) = streams.join_next().await {
        ttft.push(heard.map_err(|_| EngineBenchError::Panicked)??);
    }
    let seconds = start.elapsed().as_secs_f64();
    let steps = log.take();
    let (decode, host_us) = judge(&steps);
    Ok(Row {
        batch: workload.batch,
        seconds,
        output_tokens_per_second: rounded((workload.batch * workload.output_len) as f64 / seconds),
        steps: steps.len(),
        decode,
        host_us,
        ttft_ms: Summary::of(ttft.into_iter().map(|time| time.as_secs_f64() * 1e3)),
        preemptions: engine.stats().preemptions_total - before.preemptions_total,
    })
}

/// Waits for all tokens of a request; tells when the first came.
async fn hear(
    mut generation: Generation,
    submitted: Instant,
    wanted: usize,
) -> Result<Duration, EngineBenchError> {
    let mut first = None;
    let mut given = 0;
    while let Some(event) = generation.next().await {
        match event {
            Event::Token { .. } => {
                first.get_or_insert_with(|| submitted.elapsed());
                given += 1;
            }
            Event::Failed(error) => return Err(error.into()),
            _ => {}
        }
    }
    first
        .filter(|_| given == wanted)
        .ok_or(EngineBenchError::Short { given, wanted })
}

/// What the steps of a run say: about those that decode at full width, and the host's time before each step.
fn judge(steps: &[Step]) -> (Decode, Summary) {
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let width = |step: &Step| if step.is_decode { step.sequences } else { 0 };
    let sequences = steps.iter().skip(1).map(width).max().unwrap_or(0);
    // Before the first step the engine waited for work.
    let pairs = || steps.windows(2).map(|pair| (pair[0].ended, pair[1]));
    let full: Vec<(Duration, Step)> = pairs()
        .filter(|(_, step)| sequences > 0 && width(step) == sequences)
        .collect();
    let times = || full.iter().map(|&(before, step)| step.ended - before);
    let seconds = times().sum::<Duration>().as_secs_f64();
    let tokens: usize = full.iter().map(|(_, step)| step.tokens).sum();
    let decode = Decode {
        sequences,
        steps: full.len(),
        tokens_per_second: if full.is_empty() {
            0.0
        } else {
            rounded(tokens as f64 / seconds)
        },
        step_ms: Summary::of(times().map(|time| micros(time) / 1e3)),
        host_us: Summary::of(full.iter().map(|&(_, step)| micros(step.idle))),
    };
    let host = pairs().map(|(_, step)| micros(step.idle));
    (decode, Summary::of(host))
}

/// Three decimals: thousandths of a microsecond are noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn request(prompt: Arc<[TokenId]>, output_len: usize) -> Request {
    Request {
        prompt,
        n: 1,
        sampling: SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        },
        until: StopConditions {
            max_tokens: output_len,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
            ignore_eos: true,
        },
        cache_salt: None,
    }
}

/// A prompt of its own for each request of each batch size: equal ones would pick equal experts and share blocks.
fn prompt(number: usize, workload: Workload, bos: TokenId, words: &[TokenId]) -> Arc<[TokenId]> {
    let seed = workload.seed ^ (workload.batch as u64) << 32;
    let random = RandomStream::new(seed, number as u32);
    let word = |at: usize| words[(random.uniform(at) * words.len() as f64) as usize];
    std::iter::once(bos)
        .chain((1..workload.prompt_len).map(word))
        .collect()
}

/// Why the engine could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum EngineBenchError {
    /// The engine takes no such request.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The engine failed on the way.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A stream ended before its time.
    #[error("a request gave {given} tokens of {wanted}")]
    Short {
        /// Tokens that came.
        given: usize,
        /// Tokens asked for.
        wanted: usize,
    },
    /// A task of the bench itself.
    #[error("a stream's reader panicked. This is a bug.")]
    Panicked,
    /// No key for the token.
    #[error(transparent)]
    Builtin(#[from] BuiltinError),
    /// No gate.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The gate does not believe the bench.
    #[error("the gate refuses the bench: {why}")]
    Refused {
        /// In its own words.
        why: String,
    },
}
