//! Token ids in, token ids out: fair continuous batching over a paged KV cache, on one OS thread.
//!
//! Knows nothing of text, HTTP or keys. [`Engine`] is the cloneable handle; [`step`] is the loop; [`scheduler`],
//! [`block_manager`] and [`fairness`] are pure bookkeeping; [`runner`] turns a plan into arrays for the model.

mod request;

pub use request::{
    EngineError, Event, FinishReason, Request, SamplingParams, StopConditions, SubmitError, TokenId, Usage,
};

use crate::auth::Permit;

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
    pub running: usize,
    pub waiting: usize,
    pub kv_blocks_used: usize,
    pub kv_blocks: usize,
    pub block_size: usize,
    pub steps_total: u64,
    pub preemptions_total: u64,
    pub prompt_tokens_total: u64,
    pub generation_tokens_total: u64,
    /// Sequences ended, by [`FinishReason`] in the order Stop, Length, Cancelled, Aborted.
    pub finished_total: [u64; 4],
}

/// The cloneable handle to the engine thread.
#[derive(Clone)]
pub struct Engine {}

impl Engine {
    /// Hands a request to the engine thread, with the proof that its sender was admitted.
    ///
    /// # Errors
    /// [`SubmitError`] without side effect; the permit is dropped, which gives back what it held.
    pub fn submit(&self, permit: Permit, request: Request) -> Result<Generation, SubmitError> {
        let _ = (permit, request);
        todo!()
    }

    /// Whether requests are taken.
    pub fn status(&self) -> Status {
        todo!()
    }

    /// The counters as of the last step.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Longest sequence (prompt and completion) that can ever run, in tokens: the smaller of the model's context and
    /// what the whole KV cache holds.
    pub fn max_model_len(&self) -> usize {
        todo!()
    }

    /// Takes no new requests from now on; running ones go on.
    pub fn drain(&self) {
        todo!()
    }

    /// Ends every request with [`EngineError::ShuttingDown`] and stops the thread; returns once it has stopped.
    pub fn shutdown(&self) {
        todo!()
    }
}

/// The events of one request. Dropping it cancels whatever still runs, within one step.
pub struct Generation {}

impl Generation {
    /// The next event; `None` after the last sequence has finished or the request has failed.
    pub async fn next(&mut self) -> Option<Event> {
        todo!()
    }

    /// Ends one sequence early (a stop string was found); its [`Event::Finished`] says [`FinishReason::Stop`].
    /// Tokens announced in the meantime may still arrive before it.
    pub fn finish(&self, index: u32) {
        let _ = index;
        todo!()
    }
}
