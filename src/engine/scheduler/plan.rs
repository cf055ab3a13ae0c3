//! What one step computes, and what came of it.

use crate::engine::block_manager::BlockId;
use crate::engine::request::{FinishReason, TokenId, Usage};
use crate::engine::sequence::{SequenceId, SequenceSlot};

/// What one step computes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// Blocks to copy before anything is computed, one after the other.
    pub copies: Vec<BlockCopy>,
    /// The sequences that run, in the order in which their tokens lie in the step's arrays.
    pub parts: Vec<Part>,
    /// Sequences that are in a step for the first time.
    pub admitted: Vec<SequenceId>,
    /// Sequences that lost their blocks for this step and wait again.
    pub preempted: Vec<SequenceId>,
    num_tokens: usize,
    num_due: usize,
    /// Leading parts that are decodes, of one token each.
    num_decodes: usize,
}

impl StepPlan {
    /// Whether nothing is computed.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Tokens that the step computes.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// Parts that end in a sample.
    pub fn num_due(&self) -> usize {
        self.num_due
    }

    /// The parts that end in a sample, in order.
    pub fn due(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.due)
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.copies.clear();
        self.parts.clear();
        self.admitted.clear();
        self.preempted.clear();
        self.num_tokens = 0;
        self.num_due = 0;
        self.num_decodes = 0;
    }

    pub(super) fn push(&mut self, part: Part) {
        self.num_tokens += part.num_tokens;
        self.num_due += usize::from(part.due);
        self.parts.push(part);
    }

    /// All parts so far are decodes, and no more of them will come.
    pub(super) fn end_decodes(&mut self) {
        self.num_decodes = self.parts.len();
    }

    /// Decodes in it, which are one token each.
    pub(super) fn num_decodes(&self) -> usize {
        self.num_decodes
    }

    /// Strikes out the part of a sequence that has lost its blocks.
    pub(super) fn strike(&mut self, slot: SequenceSlot) {
        if let Some(at) = self.parts.iter().position(|part| part.slot == slot) {
            let part = self.parts.remove(at);
            self.num_tokens -= part.num_tokens;
            self.num_due -= usize::from(part.due);
            self.num_decodes -= usize::from(at < self.num_decodes);
        }
    }
}

/// One sequence's part in a step: it computes `num_tokens` of its tokens from position `start` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The sequence.
    pub id: SequenceId,
    /// Where it is kept.
    pub slot: SequenceSlot,
    /// Position of the first token computed; all before it are in the cache.
    pub start: usize,
    /// Tokens computed, at least 1.
    pub num_tokens: usize,
    /// Whether this step computes the last token that the sequence knows, so that it is due a new one.
    pub due: bool,
}

/// A block whose contents a second sequence will continue in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// The block that is read.
    pub from: BlockId,
    /// The block that is written, all of it.
    pub to: BlockId,
}

/// What a step did to one sequence that was due a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The sequence.
    pub id: SequenceId,
    /// Its new token.
    pub token: TokenId,
    /// Set if the token ended the sequence, which is forgotten by now.
    pub finished: Option<(FinishReason, Usage)>,
}
