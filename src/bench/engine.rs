//! The engine alone: requests go in by [`Engine::submit`], tokens come out of their streams; no HTTP, no text.
//!
//! [`Timed`] stands before any executor and notes when each step ends, and for how long whatever computes had waited for
//! the host before it: for scheduling, bookkeeping, handing out tokens. Where steps overlap with all that, it has not.

mod steps;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Map;
use tokio::task::JoinSet;

use crate::auth::{
    AuthConfig, BuiltinError, BuiltinIssuer, Gate, GateError, Identity, MintRequest, Permit,
};
use crate::clock::Clock;
use crate::engine::philox::RandomStream;
use crate::engine::{
    Engine, EngineConfig, EngineError, Event, Generation, Request, SamplingParams, StopConditions,
    SubmitError, TokenId,
};

use self::steps::judge;
pub use self::steps::{Decode, StepLog, Summary, Timed};

#[cfg(test)]
mod tests;

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
    /// Of them, those that may run at the same time: a decode step counts if it has so many sequences.
    pub width: usize,
    /// Tokens of each prompt; at least 1. No two prompts are alike.
    pub prompt_len: usize,
    /// Tokens that each generates; at least 1.
    pub output_len: usize,
    /// Makes the prompts: another seed, other prompts. The first prompts of a batch are those of a smaller one.
    pub seed: u64,
}

impl Workload {
    /// A seed for each run, so that no prompt comes twice and none is found in the prefix cache.
    pub fn own_seed(seed: u64, run: usize) -> u64 {
        seed ^ (run as u64 + 1) << 32
    }

    /// Tokens that each of `batch` requests must generate so that `steps` steps decode all of them at once.
    ///
    /// The first sequence waits for the last, whose prompt comes when those before it are computed: in a step, beside the
    /// sequences that decode already. Room for prompts is reckoned as if all but one of them did; a tenth and four steps are
    /// added for chunks that do not fill a step.
    ///
    /// ```text
    /// first sequence   prompt  o o o o o o o O O O O
    /// last sequence    ...................prompt O O O O      O: all decode
    /// ```
    pub fn output_len_for(
        steps: usize,
        batch: usize,
        prompt_len: usize,
        engine: &EngineConfig,
    ) -> usize {
        let room = engine.max_num_batched_tokens.saturating_sub(batch - 1);
        let room = room.min(engine.max_prefill_tokens).max(1);
        let filling = (batch * prompt_len).div_ceil(room);
        steps + filling + filling / 10 + 4
    }

    /// Decode steps at full width without which its rate is not believed.
    pub fn least_decode_steps(&self) -> usize {
        (self.output_len.saturating_sub(1) / 2).min(8)
    }
}

/// What came of a [`Workload`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Requests.
    pub batch: usize,
    /// Tokens that each generated.
    pub output_len: usize,
    /// From the first submission to the last token, in seconds.
    pub seconds: f64,
    /// Tokens generated per second of it, prompts and all.
    pub output_tokens_per_second: f64,
    /// Steps, of prompts and of tokens.
    pub steps: usize,
    /// Tokens computed in them. Prompt tokens that were found in the prefix cache are not among them.
    pub computed_tokens: usize,
    /// The steps that only decode, all sequences at once; `None` if there was none.
    pub decode: Option<Decode>,
    /// How long whatever computes waited for the host before a step, in microseconds, over all steps.
    pub host_us: Summary,
    /// From a request's submission to its first token, in milliseconds.
    pub ttft_ms: Summary,
    /// Times that a sequence lost its blocks to another.
    pub preemptions: u64,
}

impl Row {
    /// Steps that decode all sequences at once.
    pub fn decode_steps(&self) -> usize {
        self.decode.as_ref().map_or(0, |decode| decode.steps)
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
    let hold = log.hold();
    for (permit, request) in requests {
        let submitted = Instant::now();
        let generation = engine.submit(permit, request)?;
        streams.spawn(hear(generation, submitted, workload.output_len));
    }
    drop(hold);
    let mut ttft = Vec::with_capacity(workload.batch);
    while let Some(heard) = streams.join_next().await {
        ttft.push(heard.map_err(|_| EngineBenchError::Panicked)??);
    }
    let seconds = start.elapsed().as_secs_f64();
    let steps = log.take();
    let (decode, host_us) = judge(&steps, workload.width);
    Ok(Row {
        batch: workload.batch,
        output_len: workload.output_len,
        seconds,
        output_tokens_per_second: rounded((workload.batch * workload.output_len) as f64 / seconds),
        steps: steps.len(),
        computed_tokens: steps.iter().map(|step| step.begun.computed).sum(),
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

/// A prompt of its own for each request: equal ones would pick equal experts and share blocks.
fn prompt(number: usize, workload: Workload, bos: TokenId, words: &[TokenId]) -> Arc<[TokenId]> {
    let random = RandomStream::new(workload.seed, number as u32);
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
