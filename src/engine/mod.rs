//! Token ids in, token ids out: fair continuous batching over a paged KV cache, on one OS thread.
//!
//! Knows nothing of text, HTTP or keys. [`Engine`] is the cloneable handle; [`step`] is the loop; [`scheduler`],
//! [`block_manager`] and [`fairness`] are pure bookkeeping; [`runner`] turns a plan into arrays for the model.

pub mod block_manager;
pub mod executor;
pub mod fairness;
pub mod null;
pub mod philox;
pub mod runner;
pub mod sampler;
pub mod scheduler;
pub mod sequence;
pub mod step;

mod generation;
mod paged_mixtral;
mod request;
mod shared;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use tokio::sync::mpsc::unbounded_channel;

use crate::auth::Permit;
use shared::{Message, Shared, Submission, lock};
use step::Stepper;

pub use executor::{Capacity, ExecuteError, Executor};
pub use generation::Generation;
pub use paged_mixtral::PagedMixtral;
pub use request::{
    EngineError, Event, FinishReason, Request, SamplingParams, StopConditions, SubmitError,
    TokenId, Usage,
};
pub use runner::{Forward, ModelRunner};

/// What the engine may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Token budget of a step: most tokens computed in one forward pass (`max_num_batched_tokens`).
    pub max_num_batched_tokens: usize,
    /// Most sequences that run at the same time (`max_num_seqs`).
    pub max_num_seqs: usize,
    /// Most sequences that wait; beyond it [`SubmitError::QueueFull`].
    pub max_waiting: usize,
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
    /// Sequences ended, by [`FinishReason`] in the order Stop, Length, Cancelled, Aborted.
    pub finished_total: [u64; 4],
}

/// The cloneable handle to the engine thread. The thread ends at [`Engine::shutdown`], or once all handles and
/// generations are gone.
#[derive(Clone)]
pub struct Engine {
    max_waiting: usize,
    max_model_len: usize,
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
        let (engine, stepper) = Self::without_thread(executor, &config, eos);
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
    ) -> (Self, Stepper<E>) {
        let shared = Arc::new(Shared::default());
        let max_model_len = executor.capacity().longest_sequence();
        let (inbox, messages) = channel();
        let stepper = Stepper::new(executor, config, eos, messages, Arc::clone(&shared));
        (
            Self {
                max_waiting: config.max_waiting,
                max_model_len,
                inbox,
                shared,
            },
            stepper,
        )
    }

    /// Hands a request to the engine thread, with the proof that its sender was admitted. Never waits.
    ///
    /// # Errors
    /// [`SubmitError`] without side effect; the permit is dropped, which gives back what it held. See
    /// [`Engine::would_take`] for what can be known before.
    ///
    /// # Panics
    /// If the prompt is empty or `n` is 0, which the contract of [`Request`] rules out.
    pub fn submit(&self, permit: Permit, request: Request) -> Result<Generation, SubmitError> {
        assert!(
            !request.prompt.is_empty() && request.n > 0,
            "a request has a prompt and n ≥ 1. This is a bug."
        );
        self.accepts()?;
        let (needed, limit) = (
            request
                .prompt
                .len()
                .saturating_add(request.until.max_tokens.max(1)),
            self.max_model_len,
        );
        if needed > limit {
            return Err(SubmitError::TooLong { needed, limit });
        }
        let n = request.n;
        self.would_take(n as usize)?;
        self.shared.enqueue(n as usize, self.max_waiting)?;
        let number = self.shared.next_request();
        let (sender, events) = unbounded_channel();
        let submission = Submission {
            number,
            permit,
            request,
            events: sender,
        };
        if self.inbox.send(Message::Submit(submission)).is_err() {
            // The thread has stopped since the question above, so its answer is another one by now.
            self.shared.recount(n as usize, 0);
            self.accepts()?;
            return Err(SubmitError::Failed);
        }
        Ok(Generation {
            number,
            open: n,
            events,
            inbox: self.inbox.clone(),
            shared: Arc::clone(&self.shared),
        })
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

    /// Whether a request of `n` sequences would be taken now, as far as that is known without its prompt: asked before
    /// the work of making one. [`Engine::submit`] decides.
    ///
    /// # Errors
    /// What [`Engine::submit`] would say.
    pub fn would_take(&self, n: usize) -> Result<(), SubmitError> {
        self.accepts()?;
        let limit = self.max_waiting;
        if n > limit {
            return Err(SubmitError::TooMany { n, limit });
        }
        if self.shared.stats().waiting.saturating_add(n) > limit {
            return Err(SubmitError::QueueFull { limit });
        }
        Ok(())
    }

    fn accepts(&self) -> Result<(), SubmitError> {
        match self.status() {
            Status::Ready => Ok(()),
            Status::Draining => Err(SubmitError::ShuttingDown),
            Status::Failed => Err(SubmitError::Failed),
        }
    }
}
