//! What carries out a plan: the seam between the engine and whatever computes tokens.

use std::error::Error;

use super::request::TokenId;
use super::scheduler::StepPlan;
use super::sequence::Sequences;

/// Carries out plans. It lives on the engine thread, which owns it and the device behind it.
pub trait Executor: Send {
    /// What it can hold; asked once, at the start.
    fn capacity(&self) -> Capacity;

    /// Computes the plan's tokens and chooses one new token per part that is due one, in the plan's order.
    ///
    /// # Errors
    /// [`ExecuteError`] if the device or the model fails. The engine then fails all requests and stops.
    fn run(&mut self, plan: &StepPlan, sequences: &Sequences)
    -> Result<Vec<TokenId>, ExecuteError>;

    /// Whether [`Executor::start`] leaves the work to a device and returns, so that the host has time for other things.
    fn overlaps(&self) -> bool {
        false
    }

    /// Begins to carry out a plan.
    ///
    /// # Errors
    /// As [`Executor::run`].
    fn start(&mut self, plan: &StepPlan, sequences: &Sequences) -> Result<(), ExecuteError> {
        let _ = (plan, sequences);
        Ok(())
    }

    /// Waits for the plan that was begun; with [`Executor::start`] it does what [`Executor::run`] does. If work overlaps,
    /// sequences may have ended meanwhile: their tokens are returned all the same.
    ///
    /// # Errors
    /// As [`Executor::run`].
    fn finish(
        &mut self,
        plan: &StepPlan,
        sequences: &Sequences,
    ) -> Result<Vec<TokenId>, ExecuteError> {
        self.run(plan, sequences)
    }
}

/// So that which kind of model runs can be decided at run time.
impl<E: Executor + ?Sized> Executor for Box<E> {
    fn capacity(&self) -> Capacity {
        (**self).capacity()
    }

    fn run(
        &mut self,
        plan: &StepPlan,
        sequences: &Sequences,
    ) -> Result<Vec<TokenId>, ExecuteError> {
        (**self).run(plan, sequences)
    }

    fn overlaps(&self) -> bool {
        (**self).overlaps()
    }

    fn start(&mut self, plan: &StepPlan, sequences: &Sequences) -> Result<(), ExecuteError> {
        (**self).start(plan, sequences)
    }

    fn finish(
        &mut self,
        plan: &StepPlan,
        sequences: &Sequences,
    ) -> Result<Vec<TokenId>, ExecuteError> {
        (**self).finish(plan, sequences)
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
