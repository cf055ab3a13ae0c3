//! What carries out a plan: the seam between the engine and whatever computes tokens.

use std::error::Error;
use std::time::Duration;

use super::request::TokenId;
use super::scheduler::StepPlan;
use super::sequence::Sequences;

/// Carries out plans, in the order in which they are begun. It lives on the engine thread, which owns it and the device
/// behind it.
pub trait Executor: Send {
    /// What it can hold; asked once, at the start.
    fn capacity(&self) -> Capacity;

    /// Whether [`Executor::start`] leaves the work to a device and returns. Then the next plan may be begun before the last
    /// one is finished, so that the device goes from one to the other without a pause: tokens that such a plan computes may
    /// be [under way](super::sequence::Sequence::under_way), among those that the plan before it chooses.
    fn overlaps(&self) -> bool {
        false
    }

    /// Begins to compute the plan's tokens and to choose one new token per part that is due one.
    ///
    /// # Errors
    /// [`ExecuteError`] if the device or the model fails. The engine then fails all requests and stops.
    fn start(&mut self, plan: &StepPlan, sequences: &Sequences) -> Result<(), ExecuteError>;

    /// Waits for the oldest plan that was begun and not finished, and returns the tokens that it chose, in its order.
    ///
    /// # Errors
    /// As [`Executor::start`].
    fn finish(&mut self) -> Result<Vec<TokenId>, ExecuteError>;

    /// How long the device had nothing to do before it began the plan that was finished last, if it can tell.
    fn idled(&self) -> Option<Duration> {
        None
    }
}

/// So that which kind of model runs can be decided at run time.
impl<E: Executor + ?Sized> Executor for Box<E> {
    fn capacity(&self) -> Capacity {
        (**self).capacity()
    }

    fn overlaps(&self) -> bool {
        (**self).overlaps()
    }

    fn start(&mut self, plan: &StepPlan, sequences: &Sequences) -> Result<(), ExecuteError> {
        (**self).start(plan, sequences)
    }

    fn finish(&mut self) -> Result<Vec<TokenId>, ExecuteError> {
        (**self).finish()
    }

    fn idled(&self) -> Option<Duration> {
        (**self).idled()
    }
}

/// The sizes of a model and its KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Longest sequence that the model was made for, in tokens.
    pub max_model_len: usize,
    /// Blocks in the KV cache.
    pub num_blocks: usize,
    /// Tokens per block.
    pub block_size: usize,
}

impl Capacity {
    /// Longest sequence that can ever run: the model's context, or what the whole cache holds.
    pub fn longest_sequence(&self) -> usize {
        self.max_model_len
            .min(self.num_blocks.saturating_mul(self.block_size))
    }
}

/// Why a plan could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The model or its device failed.
    #[error("the model failed: {0}")]
    Model(#[source] Box<dyn Error + Send + Sync>),
    /// The model's answer has the wrong size.
    #[error("the model returned {given} logits for {rows} rows of {vocab_size}")]
    Logits {
        /// Logits returned.
        given: usize,
        /// Rows asked for.
        rows: usize,
        /// Logits per row.
        vocab_size: usize,
    },
}
