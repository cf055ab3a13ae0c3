//! How a sequence loses its blocks: to one that is short of memory, or to a subject that has nothing running.

use super::plan::StepPlan;
use super::{KEPT, Phase, Scheduler, SequenceSlot};
use crate::engine::fairness::{Candidate, SubjectSlot};
use crate::engine::prefix_cache::BlockHash;

impl Scheduler {
    /// Gives a running sequence blocks for all its tokens, at the cost of others if need be. `false` if it is
    /// itself the one that would have to give way: then it keeps its blocks and sits this step out.
    pub(super) fn make_room(&mut self, slot: SequenceSlot, plan: &mut StepPlan) -> bool {
        loop {
            let sequence = &self.sequences[slot];
            let tenant = sequence.standing.tenant;
            let known = sequence.num_tokens();
            let more = self.blocks.blocks_for(known) - sequence.block_table().len();
            // Over its quota, the tenant's newest gives way first. All alone it may grow: one always runs.
            let rival = match self.quota.allows(&tenant, more) {
                true => None,
                false => self.newest_of_tenant(slot),
            };
            let grown = &mut self.sequences[slot].block_table;
            if rival.is_none() && self.blocks.grow(grown, known) {
                self.quota.take(tenant, more);
                return true;
            }
            match rival.or_else(|| self.gives_way()) {
                Some(victim) if victim != slot => self.preempt(victim, plan),
                _ => return false,
            }
        }
    }

    /// Sequences of one subject, at least one, whose end makes `lacks` more blocks free, so that `candidate`, whose
    /// subject has nothing running, can start: of the one that was served most, of those who can do it. The candidate
    /// counts already on the cached blocks `names`: those bring it nothing. All or nothing.
    pub(super) fn whom_to_displace(
        &self,
        candidate: Candidate,
        lacks: usize,
        names: &[BlockHash],
    ) -> Option<Vec<SequenceSlot>> {
        let mut rich = self.book.must_share_with(candidate.subject);
        rich.find_map(|subject| self.spared_by(subject, candidate, lacks, names))
    }

    /// Those of a single subject.
    fn spared_by(
        &self,
        subject: SubjectSlot,
        candidate: Candidate,
        lacks: usize,
        names: &[BlockHash],
    ) -> Option<Vec<SequenceSlot>> {
        let mut victims = Vec::new();
        let mut freed = 0;
        // The first of all stays, and so does one of the subject's.
        let spare = self.book.running(subject) - 1;
        for &slot in self.running.iter().skip(1).rev() {
            if victims.len() == spare || (!victims.is_empty() && freed >= lacks) {
                break;
            }
            let sequence = &self.sequences[slot];
            let outranked = candidate.turn.is_at_least(sequence.standing.priority);
            if sequence.subject == subject && outranked {
                freed += self.blocks.held_alone(sequence.block_table(), names);
                victims.push(slot);
            }
        }
        (!victims.is_empty() && freed >= lacks).then_some(victims)
    }

    /// The sequence that gives way when memory is short.
    fn gives_way(&self) -> Option<SequenceSlot> {
        let subjects = self
            .running
            .iter()
            .map(|&slot| self.sequences[slot].subject);
        self.book.gives_way(subjects).map(|at| self.running[at])
    }

    /// The tenant's running sequence that was admitted last; `None` if the given one is its only.
    fn newest_of_tenant(&self, slot: SequenceSlot) -> Option<SequenceSlot> {
        let tenant = self.sequences[slot].standing.tenant;
        let of_tenant = |other: &&SequenceSlot| self.sequences[**other].standing.tenant == tenant;
        let mut of_tenant = self.running.iter().rev().filter(of_tenant).copied();
        let newest = of_tenant.next()?;
        of_tenant.next().map(|_| newest)
    }

    /// Takes a running sequence's blocks and puts it back into the queue, to its old place. It keeps its tokens, the one
    /// that is under way included: computing them again leads to the same next token.
    pub(super) fn preempt(&mut self, slot: SequenceSlot, plan: &mut StepPlan) {
        let at = self
            .running
            .iter()
            .position(|&other| other == slot)
            .expect(KEPT);
        self.running.remove(at);
        // Should it be admitted again in this very plan, it must not be in it twice.
        self.prefilling.retain(|&other| other != slot);
        self.stop(slot);
        let sequence = &mut self.sequences[slot];
        sequence.num_computed_tokens = 0;
        sequence.published_blocks = 0;
        plan.strike(slot);
        plan.preempted.push(sequence.id());
        self.enqueue(slot);
        self.totals.preemptions_total += 1;
    }

    /// Takes the blocks of a sequence that runs no more.
    pub(super) fn stop(&mut self, slot: SequenceSlot) {
        let sequence = &mut self.sequences[slot];
        debug_assert!(sequence.phase == Phase::Running);
        let table = &mut sequence.block_table;
        self.quota.give_back(&sequence.standing.tenant, table.len());
        self.blocks.release(table);
        self.book.stops(sequence.subject);
    }
}
