//! What must be true of a scheduler between two steps.

use std::collections::{HashMap, HashSet};

use super::{Phase, Scheduler};
use crate::auth::IdentityKey;
use crate::engine::block_manager::{BlockId, Inconsistent};
use crate::engine::fairness::SubjectSlot;
use crate::engine::sequence::{Sequence, SequenceId, SequenceSlot};

impl Scheduler {
    /// Verifies the books: blocks, queues and sequences agree. It costs a walk over all of them, so the engine asks
    /// when it is idle, and tests ask after each step.
    ///
    /// # Errors
    /// [`Broken`] with the first thing that is wrong.
    pub fn check(&self) -> Result<(), Broken> {
        let tables = self.sequences.iter().map(|(_, sequence)| sequence);
        self.blocks.check(tables.map(Sequence::block_table))?;
        let running: HashSet<SequenceSlot> = self.running.iter().copied().collect();
        let (mut queued, mut ending) = (0, 0);
        for (slot, sequence) in self.sequences.iter() {
            let id = sequence.id();
            let (held, computed) = (sequence.block_table().len(), sequence.num_computed_tokens());
            let in_queue = self.book.is_queued(sequence.subject, slot);
            queued += usize::from(in_queue);
            let (runs, waits) = match sequence.phase {
                Phase::Running => (true, false),
                Phase::Waiting => (false, true),
                Phase::Following | Phase::Ending => (false, false),
            };
            let ends = sequence.phase == Phase::Ending;
            ending += usize::from(ends);
            if (running.contains(&slot), in_queue) != (runs, waits) {
                return Err(Broken::Queues { id });
            }
            if sequence.phase == Phase::Following && !self.is_followed(slot, sequence) {
                return Err(Broken::Queues { id });
            }
            if !runs && (held > 0 || computed > 0 && !ends) {
                return Err(Broken::WaitingWithBlocks { id });
            }
            let fits =
                self.blocks.blocks_for(computed)..=self.blocks.blocks_for(sequence.num_tokens());
            if runs && (sequence.num_uncomputed_tokens() == 0 || held == 0 || !fits.contains(&held))
            {
                return Err(Broken::BlockTable { id, held, computed });
            }
            self.check_contents(sequence)?;
        }
        if running.len() != self.running.len()
            || queued != self.book.num_waiting()
            || ending != self.num_ending
        {
            return Err(Broken::Counts);
        }
        if running.len() > self.max_num_seqs {
            return Err(Broken::TooMany {
                running: running.len(),
            });
        }
        self.check_accounts()
    }

    /// Only whole computed blocks are shared, and what can be found is found by the name of what is in it.
    fn check_contents(&self, sequence: &Sequence) -> Result<(), Broken> {
        let id = sequence.id();
        let whole = sequence.num_computed_tokens() / self.blocks.block_size();
        let names = sequence.chain.names();
        for (index, &block) in sequence.block_table().iter().enumerate() {
            if index >= whole && self.blocks.holders(block) > 1 {
                return Err(Broken::Shared { id, block });
            }
            // It has none if an equal block was there before.
            let name = self.blocks.name(block);
            let expected = names.get(index).filter(|_| index < whole).copied();
            if name.is_some() && name != expected {
                return Err(Broken::Name { id, block });
            }
        }
        Ok(())
    }

    fn is_followed(&self, slot: SequenceSlot, sequence: &Sequence) -> bool {
        let leader = sequence
            .leader
            .and_then(|(leader, id)| self.sequences.still(leader, id));
        leader.is_some_and(|leader| leader.followers.contains(&slot))
    }

    /// What the subjects' and tenants' accounts count is what there is.
    fn check_accounts(&self) -> Result<(), Broken> {
        let mut of_subject: HashMap<SubjectSlot, (usize, usize)> = HashMap::new();
        let mut of_tenant: HashMap<IdentityKey, usize> = HashMap::new();
        for (_, sequence) in self.sequences.iter() {
            let counts = of_subject.entry(sequence.subject).or_default();
            counts.0 += 1;
            counts.1 += usize::from(sequence.phase == Phase::Running);
            let held = sequence.block_table().len();
            if held > 0 {
                *of_tenant.entry(sequence.standing.tenant).or_default() += held;
            }
        }
        let subjects_agree = of_subject
            .iter()
            .all(|(&subject, &counts)| self.book.counts(subject) == counts);
        if !subjects_agree || of_subject.len() != self.book.num_subjects() {
            return Err(Broken::Counts);
        }
        let quotas_agree = || {
            let mut held = self.quota.iter();
            held.all(|(tenant, held)| of_tenant.get(tenant) == Some(&held))
                && self.quota.iter().count() == of_tenant.len()
        };
        if self.quota.is_limited() && !quotas_agree() {
            return Err(Broken::Counts);
        }
        for (tenant, held) in self.quota.iter() {
            let of_tenant =
                |slot: &&SequenceSlot| self.sequences[**slot].standing.tenant == *tenant;
            // Who runs a single sequence may hold as much as that takes.
            if !self.quota.covers(held) && self.running.iter().filter(of_tenant).count() > 1 {
                return Err(Broken::Quota { held });
            }
        }
        Ok(())
    }
}

/// How a scheduler's books disagree with each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Blocks leaked, were freed twice, or are counted wrongly.
    #[error(transparent)]
    Blocks(#[from] Inconsistent),
    /// A sequence that does not stand where its phase says.
    #[error(
        "{id:?} is not where it should be: running, queued, or behind the first of its request"
    )]
    Queues {
        /// The sequence.
        id: SequenceId,
    },
    /// Queues, subjects or tenants count what is not there.
    #[error("the counts of queues, subjects or tenants are wrong")]
    Counts,
    /// More sequences run than may.
    #[error("{running} sequences run, which is more than may")]
    TooMany {
        /// Sequences that run.
        running: usize,
    },
    /// A tenant that runs several sequences holds more blocks than it may.
    #[error("a tenant holds {held} blocks, which is more than its quota")]
    Quota {
        /// Blocks that its sequences hold.
        held: usize,
    },
    /// A block that is not completely computed stands in several block tables.
    #[error("{id:?} shares block {} and has not computed all of it", .block.0)]
    Shared {
        /// One of those that share it.
        id: SequenceId,
        /// The block.
        block: BlockId,
    },
    /// A held block is found by a name that is not that of its contents.
    #[error("block {} of {id:?} is found by a wrong name", .block.0)]
    Name {
        /// The sequence.
        id: SequenceId,
        /// The block.
        block: BlockId,
    },
    /// A waiting sequence that holds blocks or counts tokens as computed.
    #[error("{id:?} waits and still has computed tokens or blocks")]
    WaitingWithBlocks {
        /// The sequence.
        id: SequenceId,
    },
    /// A running sequence whose blocks do not fit its tokens.
    #[error("{id:?} holds {held} blocks for {computed} computed tokens")]
    BlockTable {
        /// The sequence.
        id: SequenceId,
        /// Blocks in its table.
        held: usize,
        /// Tokens that it has computed.
        computed: usize,
    },
}
