//! Decides, at each step, which sequences run and how many tokens each computes.
//!
//! Pure bookkeeping: no tensors, no clock, no channels, no text. Everything here runs in a unit test without a device.
//!
//! There is no prefill phase and no decode phase. Each sequence knows some tokens and has computed some of them; a step
//! hands out one budget of tokens so that they catch up: first to those that miss a single token, then to chunks of
//! longer arrears, then to waiting sequences.
//!
//! # Why it always goes on
//!
//! A sequence takes the blocks for all tokens that it knows when it is admitted, so arrears never wait for memory. Only
//! a newly generated token may need one more block, and if none is free, sequences admitted later are preempted for it,
//! the last one first. The sequence admitted first is therefore never held up by memory and never preempted, and it is
//! the first to get its arrears computed: each step brings it nearer its end, so that no cache that holds one whole
//! sequence can deadlock.

mod check;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::block_manager::BlockManager;
use super::fairness;
use super::request::{FinishReason, TokenId, Usage};
use super::sequence::{Sequence, SequenceId, Sequences};
use super::{Capacity, EngineConfig, Stats};

pub use check::Broken;

/// What one step computes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// The sequences that run, in the order in which their tokens lie in the step's arrays.
    pub parts: Vec<Part>,
    /// Sequences that lost their blocks for this step and wait again.
    pub preempted: Vec<SequenceId>,
}

impl StepPlan {
    /// Tokens that the step computes.
    pub fn num_tokens(&self) -> usize {
        self.parts.iter().map(|part| part.num_tokens).sum()
    }

    /// The parts that end in a sample, in order.
    pub fn due(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.due)
    }
}

/// One sequence's part in a step: it computes `num_tokens` of its tokens from position `start` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The sequence.
    pub id: SequenceId,
    /// Position of the first token computed; all before it are in the cache.
    pub start: usize,
    /// Tokens computed, at least 1.
    pub num_tokens: usize,
    /// Whether this step computes the last token that the sequence knows, so that it is due a new one.
    pub due: bool,
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

/// The sequences of an engine, waiting or running, and the blocks that they hold.
#[derive(Debug, Clone)]
pub struct Scheduler {
    max_num_batched_tokens: usize,
    max_num_seqs: usize,
    max_model_len: usize,
    blocks: BlockManager,
    sequences: Sequences,
    /// In order of admission. Each holds blocks for all tokens that it knew at the last plan.
    running: Vec<SequenceId>,
    /// In order of arrival. None holds a block.
    waiting: VecDeque<SequenceId>,
    /// Counters; the gauges among them are filled in by [`Scheduler::stats`].
    totals: Stats,
}

impl Scheduler {
    /// A scheduler without sequences. Limits of 0 count as 1: nothing could ever run otherwise.
    pub fn new(capacity: Capacity, config: &EngineConfig) -> Self {
        Self {
            max_num_batched_tokens: config.max_num_batched_tokens.max(1),
            max_num_seqs: config.max_num_seqs.max(1),
            max_model_len: capacity.longest_sequence(),
            blocks: BlockManager::new(capacity.num_blocks, capacity.block_size),
            sequences: Sequences::default(),
            running: Vec::new(),
            waiting: VecDeque::new(),
            totals: Stats::default(),
        }
    }

    /// Puts a sequence at the end of the queue. The caller has checked that it fits the cache at its longest.
    pub fn add(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence.id());
        self.sequences.insert(sequence);
    }

    /// Ends a sequence, wherever it is, and frees its blocks. `None` if it has ended before.
    pub fn end(&mut self, id: SequenceId, reason: FinishReason) -> Option<Usage> {
        let mut sequence = self.sequences.remove(id)?;
        self.blocks.release(&mut sequence.block_table);
        self.running.retain(|&other| other != id);
        self.waiting.retain(|&other| other != id);
        self.totals.finished_total[reason as usize] += 1;
        Some(sequence.usage())
    }

    /// Ends every sequence, whatever state a panic may have left the books in.
    pub fn end_all(&mut self, reason: FinishReason) {
        self.totals.finished_total[reason as usize] += self.sequences.len() as u64;
        self.sequences = Sequences::default();
        self.running.clear();
        self.waiting.clear();
        self.blocks = BlockManager::new(self.blocks.num_blocks(), self.blocks.block_size());
    }

    /// Decides the next step. Empty only if there is no sequence.
    pub fn plan(&mut self) -> StepPlan {
        let mut plan = StepPlan::default();
        self.plan_decodes(&mut plan);
        self.plan_chunks(&mut plan);
        // Whoever was preempted just now would get the blocks back that it lost, and lose them again next step.
        if plan.preempted.is_empty() {
            self.admit(&mut plan);
        }
        plan
    }

    /// Records that `plan` was carried out and gave the `sampled` tokens, one for each part that was due one, in order.
    ///
    /// # Panics
    /// If the number of tokens is not the number of parts that are due one.
    pub fn commit(&mut self, plan: &StepPlan, sampled: &[TokenId]) -> Vec<Outcome> {
        assert_eq!(
            plan.due().count(),
            sampled.len(),
            "an executor gives one token per due sequence. This is a bug."
        );
        for part in &plan.parts {
            self.sequences.at(part.id).num_computed_tokens = part.start + part.num_tokens;
        }
        self.totals.steps_total += 1;
        plan.due()
            .zip(sampled)
            .map(|(part, &token)| self.commit_token(part.id, token))
            .collect()
    }

    /// The sequences, for whoever carries out a plan.
    pub fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// Sequences in the queue, preempted ones included.
    pub fn num_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is nothing to run.
    pub fn is_idle(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Counters and gauges as of now.
    pub fn stats(&self) -> Stats {
        Stats {
            running: self.running.len(),
            waiting: self.waiting.len(),
            kv_blocks_used: self.blocks.num_used(),
            kv_blocks: self.blocks.num_blocks(),
            block_size: self.blocks.block_size(),
            ..self.totals
        }
    }

    /// Running sequences that miss one token: the step's cheapest and most urgent work.
    fn plan_decodes(&mut self, plan: &mut StepPlan) {
        for id in self.running.clone() {
            // Nobody is preempted for a sequence that the budget leaves no token.
            if plan.num_tokens() == self.max_num_batched_tokens {
                break;
            }
            let runs = !self.sequences[id].block_table.is_empty();
            if runs && self.sequences[id].num_uncomputed_tokens() == 1 && self.make_room(id, plan) {
                self.schedule(id, plan);
            }
        }
    }

    /// Running sequences that miss more: as much of it as the budget allows. Their blocks are reserved since admission.
    fn plan_chunks(&self, plan: &mut StepPlan) {
        for &id in &self.running {
            if self.sequences[id].num_uncomputed_tokens() > 1 {
                self.schedule(id, plan);
            }
        }
    }

    /// Waiting sequences, as far as budget, blocks and `max_num_seqs` go.
    fn admit(&mut self, plan: &mut StepPlan) {
        while self.running.len() < self.max_num_seqs
            && plan.num_tokens() < self.max_num_batched_tokens
        {
            let Some(at) = fairness::next_to_admit(&self.waiting) else {
                break;
            };
            let id = self.waiting[at];
            let sequence = self.sequences.at(id);
            let known = sequence.tokens().len();
            // A prefix cache would put the blocks that it finds into the table first, and count them as computed.
            if !self.blocks.grow(&mut sequence.block_table, known) {
                break;
            }
            self.waiting.remove(at);
            self.running.push(id);
            self.schedule(id, plan);
        }
    }

    /// Adds what the budget leaves of the sequence's missing tokens to the plan, perhaps nothing.
    fn schedule(&self, id: SequenceId, plan: &mut StepPlan) {
        let sequence = &self.sequences[id];
        let missing = sequence.num_uncomputed_tokens();
        let num_tokens = missing.min(self.max_num_batched_tokens - plan.num_tokens());
        if num_tokens > 0 {
            let start = sequence.num_computed_tokens();
            plan.parts.push(Part {
                id,
                start,
                num_tokens,
                due: num_tokens == missing,
            });
        }
    }

    /// Gives the sequence blocks for all tokens that it knows, at the cost of others if need be. `false` if it is
    /// itself the one that would have to give way: then it keeps its blocks and sits this step out.
    fn make_room(&mut self, id: SequenceId, plan: &mut StepPlan) -> bool {
        loop {
            let sequence = self.sequences.at(id);
            let known = sequence.tokens().len();
            if self.blocks.grow(&mut sequence.block_table, known) {
                return true;
            }
            match fairness::next_to_preempt(&self.running) {
                Some(at) if self.running[at] != id => self.preempt(at, plan),
                _ => return false,
            }
        }
    }

    /// Takes a running sequence's blocks and puts it at the front of the queue. It keeps its tokens: computing them
    /// again leads to the same next token.
    fn preempt(&mut self, at: usize, plan: &mut StepPlan) {
        let id = self.running.remove(at);
        let sequence = self.sequences.at(id);
        self.blocks.release(&mut sequence.block_table);
        sequence.num_computed_tokens = 0;
        self.waiting.push_front(id);
        plan.parts.retain(|part| part.id != id);
        plan.preempted.push(id);
        self.totals.preemptions_total += 1;
    }

    fn commit_token(&mut self, id: SequenceId, token: TokenId) -> Outcome {
        let sequence = self.sequences.at(id);
        if sequence.generated().is_empty() {
            self.totals.prompt_tokens_total += sequence.prompt().len() as u64;
        }
        self.totals.generation_tokens_total += 1;
        let reason = sequence.push(token, self.max_model_len);
        let finished = reason.and_then(|reason| Some((reason, self.end(id, reason)?)));
        Outcome {
            id,
            token,
            finished,
        }
    }
}
