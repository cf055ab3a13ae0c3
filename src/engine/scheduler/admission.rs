//! How a sequence gets its blocks: from the prefix cache, from a sequence of the same request, and from what is free.

use std::time::Duration;

use super::plan::{BlockCopy, StepPlan};
use super::{Phase, Scheduler, SequenceSlot};
use crate::engine::block_manager::BlockId;
use crate::engine::fairness::{Candidate, Turn};
use crate::engine::sequence::SequenceId;

/// A candidate for whom there was no room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stall {
    id: SequenceId,
    /// Leading blocks of it that were in the prefix cache then.
    found: usize,
    /// Blocks that were free then.
    free: usize,
    /// Blocks that it lacked. As long as the stall lasts it lacks no fewer, but perhaps more.
    lacks: usize,
}

/// The computed beginning that a sequence need not compute itself.
struct Head {
    /// Tokens whose keys and values are there.
    tokens: usize,
    /// Whole blocks of them, to be shared.
    blocks: usize,
    /// Those of the blocks that nobody holds: taking them takes from what is free.
    unheld: usize,
    source: Source,
}

enum Source {
    /// Found in the prefix cache, or nothing.
    Cache,
    /// The prompt of a sequence of the same request; its last block is copied if it is not full.
    Leader(SequenceSlot),
}

impl Scheduler {
    /// Puts sequences that share a prompt into the queue: the first one leads, the others follow it.
    pub(super) fn lead(&mut self, slots: &[SequenceSlot]) {
        let Some((&leader, followers)) = slots.split_first() else {
            return;
        };
        let id = self.sequences[leader].id();
        for &follower in followers {
            let sequence = &mut self.sequences[follower];
            sequence.phase = Phase::Following;
            sequence.leader = Some((leader, id));
        }
        let sequence = &mut self.sequences[leader];
        sequence.followers = followers.to_vec();
        sequence.leader = None;
        self.enqueue(leader);
    }

    /// The prompt is computed: those that share it may start.
    pub(super) fn release_followers(&mut self, leader: SequenceSlot) {
        for follower in std::mem::take(&mut self.sequences[leader].followers) {
            self.enqueue(follower);
        }
    }

    pub(super) fn enqueue(&mut self, slot: SequenceSlot) {
        let sequence = &mut self.sequences[slot];
        sequence.phase = Phase::Waiting;
        self.book.enqueue(sequence.subject, sequence.queued(slot));
    }

    /// The running sequence whose chunk comes next, with its index in `prefilling`. As one that waits, it rises with the
    /// time since its last chunk.
    pub(super) fn next_prefilling(&self, now: Duration) -> Option<(Turn, usize)> {
        let turn = |(at, &slot): (usize, &SequenceSlot)| {
            let sequence = &self.sequences[slot];
            let turn = self.book.turn_since(
                sequence.stepped,
                now,
                sequence.class,
                sequence.subject,
                sequence.queued(slot),
            );
            (turn, at)
        };
        self.prefilling.iter().enumerate().map(turn).min()
    }

    /// The waiting sequence whose turn is next, of those for whom there may be a place.
    pub(super) fn next_waiting(&self, now: Duration) -> Option<Candidate> {
        let full = self.is_full();
        let most_served = if full { self.book.most_served() } else { None };
        if full && most_served.is_none() {
            return None;
        }
        self.book.next(now, |subject, slot| {
            // Only who has nothing running may make others give a place up.
            if most_served.is_some_and(|most| !self.book.must_share(most, subject)) {
                return false;
            }
            // Who is over its own quota holds up nobody else.
            let sequence = &self.sequences[slot];
            !self.quota.is_limited()
                || self.quota.allows(
                    &sequence.standing.tenant,
                    self.blocks.blocks_for(sequence.num_tokens()),
                )
        })
    }

    /// Lets a waiting sequence run, if there is room or others must make some. It has blocks for all its tokens then.
    pub(super) fn admit(
        &mut self,
        candidate: Candidate,
        now: Duration,
        plan: &mut StepPlan,
    ) -> bool {
        let Candidate { slot, subject, .. } = candidate;
        let stalled = self.stall.filter(|stall| self.still_lacks(stall, slot));
        if let Some(stall) = stalled
            && self.whom_to_displace(candidate, stall.lacks, &[]).is_none()
        {
            return false;
        }
        let mut head = self.head_of(slot);
        let lacks = self.lacks(slot, &head);
        if lacks > 0 || self.is_full() {
            let names = &self.sequences[slot].chain.names()[..head.blocks];
            let Some(victims) = self.whom_to_displace(candidate, lacks, names) else {
                self.stall = (lacks > 0).then(|| Stall {
                    id: self.sequences[slot].id(),
                    found: head.blocks,
                    free: self.blocks.num_free(),
                    lacks,
                });
                return false;
            };
            for victim in victims {
                self.preempt(victim, plan);
            }
            // What the displaced have let go may be part of it.
            head = self.head_of(slot);
        }
        if self.lacks(slot, &head) > 0 {
            return false;
        }
        self.lodge(slot, &head, plan);
        self.stall = None;
        self.book.dequeue(subject, slot);
        self.running.push(slot);
        let sequence = &mut self.sequences[slot];
        sequence.phase = Phase::Running;
        sequence.class = candidate.turn.class();
        sequence.stepped = now;
        self.book.starts(subject, sequence.standing.priority, now);
        true
    }

    /// Whether a sequence could be given its blocks and a place, and nobody would have to give way.
    #[cfg(test)]
    pub(super) fn has_room(&self, slot: SequenceSlot) -> bool {
        !self.is_full() && self.lacks(slot, &self.head_of(slot)) == 0
    }

    fn is_full(&self) -> bool {
        self.running.len() >= self.max_num_seqs
    }

    /// Whether nothing has changed for the better since the sequence did not fit: no more blocks are free, and no more
    /// of its beginning is there to be shared.
    fn still_lacks(&self, stall: &Stall, slot: SequenceSlot) -> bool {
        let sequence = &self.sequences[slot];
        let next = sequence.chain.names().get(stall.found);
        let is_longer = next.is_some_and(|name| self.blocks.find(&[*name]).blocks > 0);
        stall.id == sequence.id()
            && self.blocks.num_free() <= stall.free
            && !is_longer
            && self.ready_leader(slot).is_none()
    }

    /// Blocks that are too few for a sequence that begins with `head`.
    fn lacks(&self, slot: SequenceSlot, head: &Head) -> usize {
        let known = self.sequences[slot].num_tokens();
        let needed = self.blocks.blocks_for(known) - head.blocks + head.unheld;
        needed.saturating_sub(self.blocks.num_free())
    }

    /// Gives a sequence blocks for all its tokens, of which `head` need not be computed. Nothing is lacking.
    fn lodge(&mut self, slot: SequenceSlot, head: &Head, plan: &mut StepPlan) {
        let known = self.sequences[slot].num_tokens();
        let mut table = std::mem::take(&mut self.sequences[slot].block_table);
        match head.source {
            Source::Cache => {
                let names = &self.sequences[slot].chain.names()[..head.blocks];
                self.blocks.adopt(names, &mut table);
                assert!(self.blocks.grow(&mut table, known), "{COUNTED}");
            }
            Source::Leader(leader) => {
                let theirs = &self.sequences[leader].block_table;
                for &block in &theirs[..head.blocks] {
                    self.blocks.share(block, &mut table);
                }
                assert!(self.blocks.grow(&mut table, known), "{COUNTED}");
                if head.tokens > head.blocks * self.blocks.block_size() {
                    plan.copies.push(BlockCopy {
                        from: theirs[head.blocks],
                        to: table[head.blocks],
                    });
                }
            }
        }
        self.settle_in(slot, table, head, plan);
    }

    /// What of the sequence is computed already. At least its last token never is: its logits are wanted.
    fn head_of(&self, slot: SequenceSlot) -> Head {
        let block_size = self.blocks.block_size();
        let sequence = &self.sequences[slot];
        let mut head = Head {
            tokens: 0,
            blocks: 0,
            unheld: 0,
            source: Source::Cache,
        };
        if self.prefix_caching {
            let most = (sequence.num_tokens() - 1) / block_size;
            let names = sequence.chain.names();
            let found = self.blocks.find(&names[..names.len().min(most)]);
            head.tokens = found.blocks * block_size;
            head.blocks = found.blocks;
            head.unheld = found.unheld;
        }
        let shared = sequence.prompt().len() - 1;
        match self.ready_leader(slot) {
            Some(leader) if shared > head.tokens => Head {
                tokens: shared,
                blocks: shared / block_size,
                unheld: 0,
                source: Source::Leader(leader),
            },
            _ => head,
        }
    }

    /// The running sequence that has computed the prompt that it shares with the given one, but for the last token.
    fn ready_leader(&self, slot: SequenceSlot) -> Option<SequenceSlot> {
        let sequence = &self.sequences[slot];
        let (leader, id) = sequence.leader?;
        let its = self.sequences.still(leader, id)?;
        let ready = its.num_computed_tokens() >= sequence.prompt().len() - 1;
        (its.phase == Phase::Running && ready).then_some(leader)
    }

    /// Enters what a sequence was given into the books.
    fn settle_in(
        &mut self,
        slot: SequenceSlot,
        table: Vec<BlockId>,
        head: &Head,
        plan: &mut StepPlan,
    ) {
        let sequence = &mut self.sequences[slot];
        self.quota.take(sequence.standing.tenant, table.len());
        sequence.block_table = table;
        sequence.num_computed_tokens = head.tokens;
        sequence.published_blocks = head.blocks;
        if sequence.cached_tokens.is_some() {
            // It comes back from a preemption: what it is given again is not served twice.
            return;
        }
        sequence.cached_tokens = Some(head.tokens);
        let prompt = sequence.prompt().len();
        self.book.serve(sequence.subject, prompt - head.tokens, 0);
        plan.admitted.push(sequence.id());
        if sequence.leader.is_none() && self.prefix_caching {
            self.totals.prefix_queries_total += prompt as u64;
            self.totals.prefix_hits_total += head.tokens as u64;
        }
    }
}

const COUNTED: &str = "the blocks were counted before. This is a bug.";
