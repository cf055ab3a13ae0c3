//! How a plan becomes what is true: while it is carried out, and when its tokens are known.

use super::plan::{Outcome, Part, StepPlan};
use super::{Phase, Scheduler, SequenceSlot};
use crate::engine::request::{FinishReason, TokenId, Usage};

impl Scheduler {
    /// Records that `plan` is being carried out. All earlier ones are committed, so that all tokens it computes are known.
    /// A sequence that has ended since it was planned is passed over.
    pub fn begin(&mut self, plan: &StepPlan) {
        let mut row = 0;
        let mut ending = false;
        for part in &plan.parts {
            let its_row = row;
            row += u32::from(part.due);
            if self.sequences.still(part.slot, part.id).is_none() {
                continue;
            }
            let sequence = &mut self.sequences[part.slot];
            sequence.num_computed_tokens = part.start + part.num_tokens;
            if self.prefix_caching {
                self.publish_blocks(part.slot);
            }
            if part.due {
                ending |= self.expect_token(part.slot, its_row);
            }
        }
        if ending {
            let sequences = &self.sequences;
            (self.running).retain(|&slot| sequences[slot].phase == Phase::Running);
        }
    }

    /// Records that `plan`, which was begun, gave the `sampled` tokens, one for each part that was due one, in order.
    /// Writes what became of these parts into `outcomes`. A sequence that has ended meanwhile is passed over, and so is its
    /// token.
    ///
    /// # Panics
    /// If the number of tokens is not the number of parts that are due one.
    pub fn commit(&mut self, plan: &StepPlan, sampled: &[TokenId], outcomes: &mut Vec<Outcome>) {
        assert_eq!(
            plan.num_due(),
            sampled.len(),
            "an executor gives one token per due sequence. This is a bug."
        );
        outcomes.clear();
        let mut ended = false;
        for (part, &token) in plan.due().zip(sampled) {
            if self.sequences.still(part.slot, part.id).is_some() {
                let outcome = self.commit_token(part, token);
                ended |= outcome.finished.is_some();
                outcomes.push(outcome);
            }
        }
        if ended {
            let sequences = &self.sequences;
            self.running.retain(|&slot| sequences.holds(slot));
        }
        self.totals.steps_total += 1;
    }

    /// Lets the blocks that the sequence has filled and computed be found by others.
    fn publish_blocks(&mut self, slot: SequenceSlot) {
        let block_size = self.blocks.block_size();
        let sequence = &mut self.sequences[slot];
        while (sequence.published_blocks + 1) * block_size <= sequence.num_computed_tokens {
            let index = sequence.published_blocks;
            let name = sequence.block_name(index, block_size);
            self.blocks.publish(sequence.block_table[index], name);
            sequence.published_blocks += 1;
        }
    }

    /// The sequence has computed all that it has, and gets a token by it. `true` if that will be its last: then it gives
    /// back all that it held.
    fn expect_token(&mut self, slot: SequenceSlot, row: u32) -> bool {
        let sequence = &mut self.sequences[slot];
        let first = sequence.num_generated() == 0;
        let is_last = sequence.begin_token(row, self.max_model_len);
        if first {
            self.release_followers(slot);
        }
        if is_last {
            self.stop(slot);
            self.sequences[slot].phase = Phase::Ending;
            self.num_ending += 1;
        }
        is_last
    }

    fn commit_token(&mut self, part: &Part, token: TokenId) -> Outcome {
        let sequence = &mut self.sequences[part.slot];
        let first = sequence.generated().is_empty();
        let reason = sequence.push(token, self.max_model_len);
        self.book.serve(sequence.subject, 0, 1);
        self.totals.generation_tokens_total += 1;
        if first {
            self.totals.prompt_tokens_total += sequence.usage().prompt_tokens as u64;
        }
        Outcome {
            id: part.id,
            token,
            finished: reason.map(|reason| (reason, self.forget(part.slot, reason))),
        }
    }

    /// Strikes a sequence out of all books but `running`.
    pub(super) fn forget(&mut self, slot: SequenceSlot, reason: FinishReason) -> Usage {
        if self.sequences[slot].phase == Phase::Running {
            self.stop(slot);
        }
        let mut sequence = self.sequences.remove(slot);
        match sequence.phase {
            Phase::Running => {}
            Phase::Waiting => {
                self.book.dequeue(sequence.subject, slot);
            }
            Phase::Ending => self.num_ending -= 1,
            Phase::Following => {
                if let Some((leader, _)) = sequence.leader {
                    self.sequences[leader]
                        .followers
                        .retain(|&other| other != slot);
                }
            }
        }
        let followers = std::mem::take(&mut sequence.followers);
        self.lead(&followers);
        if let (Some(cached), true) = (sequence.cached_tokens, sequence.generated().is_empty()) {
            let prompt = sequence.prompt().len();
            let never = prompt - sequence.num_computed_tokens().max(cached);
            self.book.refund(sequence.subject, never);
        }
        self.book.leave(sequence.subject);
        self.totals.finished_total[reason as usize] += 1;
        sequence.usage()
    }
}
