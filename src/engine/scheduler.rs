//! Decides, at each step, which sequences run and how many tokens each computes.
//!
//! Pure bookkeeping: no tensors, no clock, no channels, no text. Everything here runs in a unit test without a device.
//!
//! There is no prefill phase and no decode phase. Each sequence knows some tokens and has computed some of them; a step
//! hands out one budget of tokens so that they catch up: first to those that miss a single token, then, in the order of
//! [`fairness`](super::fairness), to chunks of longer arrears and to sequences that wait. Read [`Scheduler::plan`],
//! [`Scheduler::begin`] and [`Scheduler::commit`]; `admission` is how a sequence gets its blocks, `preemption` how it
//! loses them, `progress` how a plan comes true.
//!
//! # A step ahead
//!
//! A step may be planned while the one before runs, whose tokens nobody knows yet. That each sequence gets one is known,
//! and so is whether it is the last that it may have; whether it is one that ends it is not. Such a sequence is then in
//! one step too many, whose token for it is passed over. The cache is written and read in the order of the steps, so
//! that blocks which a running step still uses may be given away by the next plan.
//!
//! ```text
//! plan 1, begin 1, plan 2, commit 1, begin 2, plan 3, commit 2, begin 3, …   a step ahead
//! plan 1, begin 1, commit 1, plan 2, begin 2, commit 2, …                    one at a time
//! ```
//!
//! # Why it always goes on
//!
//! A sequence takes the blocks for all tokens that it knows when it is admitted, so arrears never wait for memory. Only
//! a newly generated token may need one more block, and if none is free, others give way: the newest sequence of the
//! subject that was served most, but never the one that was admitted first. That one is therefore never held up by
//! memory and never preempted: each step brings it nearer its end, so that no cache that holds one whole sequence can
//! deadlock.

mod admission;
mod check;
mod express;
mod plan;
mod preemption;
mod progress;
#[cfg(test)]
mod proofs;
mod quota;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use super::block_manager::BlockManager;
use super::fairness::Book;
use super::request::{FinishReason, TokenId, Usage};
use super::sequence::{Arrival, Phase, Sequence, SequenceId, SequenceSlot, Sequences};
use super::{Capacity, EngineConfig, Stats};
use admission::Stall;
use express::Express;
use quota::Quota;

pub use check::Broken;
pub use plan::{BlockCopy, Outcome, Part, StepPlan};

/// The sequences of an engine, waiting or running, and the blocks that they hold.
#[derive(Debug, Clone)]
pub struct Scheduler {
    max_num_batched_tokens: usize,
    max_prefill_tokens: usize,
    max_num_seqs: usize,
    max_model_len: usize,
    prefix_caching: bool,
    eos: Arc<[TokenId]>,
    blocks: BlockManager,
    quota: Quota,
    sequences: Sequences,
    /// In order of admission. Each holds blocks for all tokens that it knew at the last plan.
    running: Vec<SequenceSlot>,
    /// Everybody's counters and queues. No sequence in it holds a block.
    book: Book,
    /// The candidate that did not fit the last time, so that nobody looks again before something has changed.
    stall: Option<Stall>,
    express: Express,
    /// Sequences of which only the last token is still to come.
    num_ending: usize,
    /// The running sequences of a plan in the making that miss more than one token. Kept for its memory.
    prefilling: Vec<SequenceSlot>,
    /// Counters; the gauges among them are filled in by [`Scheduler::stats`].
    totals: Stats,
}

impl Scheduler {
    /// A scheduler without sequences. Limits of 0 count as 1: nothing could ever run otherwise. `eos` are the model's
    /// end-of-sequence ids.
    pub fn new(capacity: Capacity, config: &EngineConfig, eos: Arc<[TokenId]>) -> Self {
        let percent = |share: u8| capacity.num_blocks * usize::from(share) / 100;
        Self {
            max_num_batched_tokens: config.max_num_batched_tokens.max(1),
            max_prefill_tokens: config.max_prefill_tokens.max(1),
            max_num_seqs: config.max_num_seqs.max(1),
            max_model_len: capacity.longest_sequence(),
            prefix_caching: config.prefix_caching,
            eos,
            blocks: BlockManager::new(capacity.num_blocks, capacity.block_size),
            quota: Quota::new(config.max_tenant_blocks_percent.map(percent)),
            sequences: Sequences::default(),
            running: Vec::new(),
            book: Book::new(config.scheduling_policy),
            stall: None,
            express: Express::default(),
            num_ending: 0,
            prefilling: Vec::new(),
            totals: Stats::default(),
        }
    }

    /// Puts the sequences of a request into the queue: the first one, and behind it those that share its prompt. The
    /// caller has checked that they fit the cache at their longest.
    pub fn add(&mut self, arrival: Arrival) {
        let standing = arrival.standing;
        let n = arrival.request.n as usize;
        // One entry per sequence: each leaves by itself.
        let subject = (0..n)
            .map(|_| self.book.enter(standing.subject, standing.weight))
            .last();
        let Some(subject) = subject else { return };
        let slots: Vec<SequenceSlot> = Sequence::all_of(arrival, subject, &self.eos)
            .map(|sequence| self.sequences.insert(sequence))
            .collect();
        self.lead(&slots);
    }

    /// Ends a sequence, wherever it is, and frees its blocks. `None` if it has ended before.
    pub fn end(&mut self, id: SequenceId, reason: FinishReason) -> Option<Usage> {
        let slot = self.sequences.slot(id)?;
        if self.sequences[slot].phase == Phase::Running {
            self.running.retain(|&other| other != slot);
        }
        Some(self.forget(slot, reason))
    }

    /// Ends every sequence, whatever state a panic may have left the books in. Says what each has used.
    pub fn end_all(&mut self, reason: FinishReason) -> Vec<(SequenceId, Usage)> {
        let sequences = std::mem::take(&mut self.sequences);
        let used = sequences
            .iter()
            .map(|(_, sequence)| (sequence.id(), sequence.usage()))
            .collect();
        self.totals.finished_total[reason as usize] += sequences.len() as u64;
        self.running.clear();
        self.num_ending = 0;
        self.book = self.book.emptied();
        self.quota = self.quota.emptied();
        self.stall = None;
        self.totals.prefix_evictions_total += self.blocks.evictions();
        self.blocks = BlockManager::new(self.blocks.num_blocks(), self.blocks.block_size());
        used
    }

    /// Decides the next step and writes it into `plan`. Empty only if there is no sequence that may have more than what is
    /// under way.
    pub fn plan(&mut self, now: Duration, plan: &mut StepPlan) {
        plan.clear();
        self.prefilling.clear();
        self.plan_decodes(plan);
        plan.end_decodes();
        self.plan_prefills(now, plan);
    }

    /// The sequences, for whoever carries out a plan.
    pub fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// Whether there is nothing to run.
    pub fn is_idle(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Counters and gauges as of now.
    pub fn stats(&self) -> Stats {
        Stats {
            running: self.running.len(),
            waiting: self.sequences.len() - self.running.len() - self.num_ending,
            kv_blocks_used: self.blocks.num_used(),
            kv_blocks: self.blocks.num_blocks(),
            block_size: self.blocks.block_size(),
            subjects: self.book.num_subjects(),
            prefix_evictions_total: self.totals.prefix_evictions_total + self.blocks.evictions(),
            ..self.totals
        }
    }

    /// Running sequences that miss one token: the step's cheapest and most urgent work. The others are noted.
    fn plan_decodes(&mut self, plan: &mut StepPlan) {
        let mut at = 0;
        // Nobody is preempted for a sequence that the budget leaves no token.
        while at < self.running.len() && plan.num_tokens() < self.max_num_batched_tokens {
            let slot = self.running[at];
            at += 1;
            let sequence = &self.sequences[slot];
            if sequence.num_uncomputed_tokens() > 1 {
                self.prefilling.push(slot);
                continue;
            }
            let room = sequence.block_table().len() * self.blocks.block_size();
            if sequence.num_tokens() <= room {
                self.schedule(slot, usize::MAX, plan);
                continue;
            }
            let preempted = plan.preempted.len();
            if self.make_room(slot, plan) {
                self.schedule(slot, usize::MAX, plan);
            }
            if plan.preempted.len() > preempted {
                at = 1 + self
                    .running
                    .iter()
                    .position(|&other| other == slot)
                    .expect(KEPT);
            }
        }
    }

    /// What the budget leaves goes to arrears and newcomers, in everybody's turn. While others decode, no more than
    /// `max_prefill_tokens`: that bounds what a long prompt costs them.
    fn plan_prefills(&mut self, now: Duration, plan: &mut StepPlan) {
        // Whoever was preempted just now would get the blocks back that it lost, and lose them again next step.
        let mut admits = plan.preempted.is_empty();
        self.express.start();
        loop {
            // Anew each time: whoever gives way to a newcomer may have been a decode.
            let limit = self.limit(plan);
            if plan.num_tokens() >= limit {
                break;
            }
            let running = self.next_prefilling(now);
            let waiting = match admits {
                true => self.next_waiting(now),
                false => None,
            };
            match (running, waiting) {
                (running, Some(candidate))
                    if running.is_none_or(|(turn, _)| candidate.turn < turn) =>
                {
                    let running = self.book.running(candidate.subject);
                    if !self.express.takes(candidate.subject, running) {
                        break;
                    }
                    admits = self.admit(candidate, now, plan);
                    if admits {
                        self.schedule(candidate.slot, self.limit(plan), plan);
                    }
                    if admits && running == 0 && self.book.is_fair() {
                        self.express.board(candidate.subject);
                    }
                }
                (Some((turn, at)), _) => {
                    let slot = self.prefilling[at];
                    let subject = self.sequences[slot].subject;
                    if !self.express.takes(subject, self.book.running(subject)) {
                        break;
                    }
                    self.prefilling.swap_remove(at);
                    let sequence = &mut self.sequences[slot];
                    sequence.class = turn.class();
                    sequence.stepped = now;
                    self.schedule(slot, limit, plan);
                }
                _ => break,
            }
        }
    }

    /// Most tokens of the plan, as long as it has the decodes that it has now.
    fn limit(&self, plan: &StepPlan) -> usize {
        match plan.num_decodes() {
            0 => self.max_num_batched_tokens,
            decodes => self
                .max_num_batched_tokens
                .min(decodes + self.max_prefill_tokens),
        }
    }

    /// Adds as many of the sequence's missing tokens to the plan as `limit` allows.
    fn schedule(&self, slot: SequenceSlot, limit: usize, plan: &mut StepPlan) {
        let sequence = &self.sequences[slot];
        let missing = sequence.num_uncomputed_tokens();
        let num_tokens = missing.min(limit - plan.num_tokens());
        if num_tokens > 0 {
            plan.push(Part {
                id: sequence.id(),
                slot,
                start: sequence.num_computed_tokens(),
                num_tokens,
                due: num_tokens == missing,
            });
        }
    }
}

const KEPT: &str = "nobody is preempted for its own sake. This is a bug.";
