//! Token ids in, token ids out: fair continuous batching over a paged KV cache, on one OS thread.
//!
//! Knows nothing of text, HTTP or keys. [`Engine`] is the cloneable handle; [`step`] is the loop; [`scheduler`],
//! [`block_manager`], [`prefix_cache`], [`fairness`] and [`queue`] are pure bookkeeping; [`runner`] turns a plan into
//! arrays for the model.

pub mod block_manager;
pub mod executor;
pub mod fairness;
pub mod null;
pub mod philox;
pub mod prefix_cache;
pub mod queue;
pub mod runner;
pub mod sampler;
pub mod scheduler;
pub mod sequence;
pub mod step;

mod device_runner;
mod generation;
mod live;
mod paged_mixtral;
mod penalty_tables;
mod request;
mod reservation;
mod shared;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::auth::Permit;
use crate::clock::Uptime;
use queue::Demand;
use shared::{Message, Shared, lock};
use step::Stepper;

pub use device_runner::DeviceRunner;
pub use executor::{Capacity, ExecuteError, Executor};
pub use generation::Generation;
pub use paged_mixtral::PagedMixtral;
pub use request::{
    EngineError, Event, FinishReason, Request, SamplingParams, StopConditions, SubmitError,
    TokenId, Usage,
};
pub use reservation::Reservation;
pub use runner::{Forward, ModelRunner};

/// What the engine may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Token budget of a step: most tokens computed in one forward pass (`max_num_batched_tokens`).
    pub max_num_batched_tokens: usize,
    /// Most prompt tokens in a step in which other sequences decode: what bounds their inter-token latency.
    pub max_prefill_tokens: usize,
    /// Most sequences that run at the same time (`max_num_seqs`).
    pub max_num_seqs: usize,
    /// Most sequences that wait for their first step; beyond it [`SubmitError::QueueFull`].
    pub max_waiting: usize,
    /// Most tokens (prompt and completion) that they may reserve; beyond it [`SubmitError::QueueTokens`].
    pub max_waiting_tokens: usize,
    /// Most sequences of them that belong to one subject; beyond it [`SubmitError::OverShare`]. It may reserve the same
    /// share of the tokens; beyond it [`SubmitError::OverShareTokens`].
    pub max_waiting_per_subject: usize,
    /// Who goes first.
    pub scheduling_policy: SchedulingPolicy,
    /// Whether sequences of one tenant share the blocks of equal prefixes.
    pub prefix_caching: bool,
    /// Most blocks that the running sequences of one tenant may hold, in percent of the cache; `None`: no limit.
    /// A tenant may always run one sequence.
    pub max_tenant_blocks_percent: Option<u8>,
    /// Beginnings of prompts, in tokens, whose blocks all tenants share: the operator has declared them public.
    pub public_prefixes: Vec<Arc<[TokenId]>>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_num_batched_tokens: 512,
            max_prefill_tokens: 512,
            max_num_seqs: 64,
            max_waiting: 1024,
            max_waiting_tokens: usize::MAX,
            max_waiting_per_subject: 768,
            scheduling_policy: SchedulingPolicy::Fair,
            prefix_caching: true,
            max_tenant_blocks_percent: None,
            public_prefixes: Vec::new(),
        }
    }
}

/// Who goes first when not everybody can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SchedulingPolicy {
    /// Higher priority first, then the subject that was served least, by its weight, then the oldest.
    #[default]
    Fair,
    /// The oldest, whoever it belongs to.
    FirstCome,
}

/// Whether the engine takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Takes requests and runs steps.
    Ready,
    /// Finishes what it has, takes nothing new.
    Draining,
    /// A step panicked or the device failed; nothing runs any more.
    Failed,
}

/// A snapshot of the engine's counters. Gauges unless named `_total`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sequences that hold blocks and take part in steps.
    pub running: usize,
    /// Sequences accepted and not running, preempted ones included.
    pub waiting: usize,
    /// Blocks of the KV cache that sequences hold.
    pub kv_blocks_used: usize,
    /// Blocks of the KV cache.
    pub kv_blocks: usize,
    /// Tokens per block.
    pub block_size: usize,
    /// Steps that ran to their end.
    pub steps_total: u64,
    /// Times that a running sequence lost its blocks to another.
    pub preemptions_total: u64,
    /// Prompt tokens of sequences that got their first token. Computing them again after preemption does not count.
    pub prompt_tokens_total: u64,
    /// Tokens generated.
    pub generation_tokens_total: u64,
    /// Tokens that were looked up in the prefix cache.
    pub prefix_queries_total: u64,
    /// Tokens of them that were found there.
    pub prefix_hits_total: u64,
    /// Cached blocks that were given to something else.
    pub prefix_evictions_total: u64,
    /// Tokens reserved by requests that wait for their first step.
    pub waiting_tokens: usize,
    /// Subjects that have sequences, waiting or running.
    pub subjects: usize,
    /// Sequences ended, in the order of [`FinishReason::ALL`].
    pub finished_total: [u64; 8],
}

/// The cloneable handle to the engine thread. The thread ends at [`Engine::shutdown`], or once all handles and
/// generations are gone.
#[derive(Clone)]
pub struct Engine {
    max_model_len: usize,
    block_size: usize,
    public_prefixes: Arc<[Arc<[TokenId]>]>,
    inbox: Sender<Message>,
    shared: Arc<Shared>,
}

impl Engine {
    /// Starts the engine thread, which owns `executor` from now on. `eos` are the model's end-of-sequence ids.
    pub fn start(
        executor: impl Executor + 'static,
        config: EngineConfig,
        eos: Vec<TokenId>,
    ) -> Self {
        let (engine, stepper) = Self::without_thread(executor, &config, eos, Uptime::start());
        match thread::Builder::new()
            .name("mixgate-engine".to_owned())
            .spawn(|| stepper.run())
        {
            Ok(handle) => *lock(&engine.shared.thread) = Some(handle),
            Err(error) => {
                tracing::error!(%error, "the engine thread could not be started");
                engine.shared.fail();
            }
        }
        engine
    }

    /// A handle, and what the thread would run.
    fn without_thread<E: Executor>(
        executor: E,
        config: &EngineConfig,
        eos: Vec<TokenId>,
        uptime: Uptime,
    ) -> (Self, Stepper<E>) {
        let shared = Arc::new(Shared::new(config, uptime));
        let capacity = executor.capacity();
        let (inbox, messages) = channel();
        let stepper = Stepper::new(executor, config, eos, messages, Arc::clone(&shared));
        (
            Self {
                max_model_len: capacity.longest_sequence(),
                block_size: capacity.block_size,
                public_prefixes: config.public_prefixes.as_slice().into(),
                inbox,
                shared,
            },
            stepper,
        )
    }

    /// Takes a place in the queue for a request of `n` sequences and at least `tokens` tokens in all, before any work
    /// is done on it; [`Reservation::submit`] brings the request. With the permit, the proof that its sender was
    /// admitted. Never waits.
    ///
    /// # Errors
    /// [`SubmitError`] without side effect; the permit is dropped, which gives back what it held.
    pub fn reserve(
        &self,
        permit: Permit,
        n: u32,
        tokens: usize,
    ) -> Result<Reservation, SubmitError> {
        self.accepts()?;
        let demand = Demand {
            sequences: n as usize,
            tokens,
        };
        let subject = permit.identity().subject_key();
        let deadline = permit.share().deadline;
        let place = self.shared.join(subject, demand, deadline)?;
        Ok(Reservation::new(self.clone(), permit, place, n))
    }

    /// [`Engine::reserve`] and [`Reservation::submit`] in one.
    ///
    /// # Errors
    /// As both.
    ///
    /// # Panics
    /// If the prompt is empty or `n` is 0, which the contract of [`Request`] rules out.
    pub fn submit(&self, permit: Permit, request: Request) -> Result<Generation, SubmitError> {
        let tokens = request.most_tokens();
        self.reserve(permit, request.n, tokens)?.submit(request)
    }

    /// Whether requests are taken.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// The counters as of the last step; the queue as of now.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Longest sequence (prompt and completion) that can ever run, in tokens: the smaller of the model's context and
    /// what the whole KV cache holds.
    pub fn max_model_len(&self) -> usize {
        self.max_model_len
    }

    /// Takes no new requests from now on; running ones go on.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Ends every request with [`EngineError::ShuttingDown`] and stops the thread; returns once it has stopped, which
    /// takes as long as the step in progress. Calling it again does no harm.
    pub fn shutdown(&self) {
        self.shared.drain();
        // Fails if the thread has stopped, which is what we want.
        let _ = self.inbox.send(Message::Shutdown);
        // Held while joining, so that a second caller also returns only when the thread has stopped.
        let mut thread = lock(&self.shared.thread);
        if let Some(handle) = thread.take() {
            // The thread catches its panics and has reported them by now.
            let _ = handle.join();
        }
    }

    fn accepts(&self) -> Result<(), SubmitError> {
        match self.status() {
            Status::Ready => Ok(()),
            Status::Draining => Err(SubmitError::ShuttingDown),
            Status::Failed => Err(SubmitError::Failed),
        }
    }
}
