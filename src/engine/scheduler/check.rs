//! What must be true of a scheduler between two steps.

use std::collections::HashSet;

use super::Scheduler;
use crate::engine::block_manager::Inconsistent;
use crate::engine::sequence::{Sequence, SequenceId};

impl Scheduler {
    /// Verifies the books: blocks, queues and sequences agree. It costs a walk over all of them, so the engine asks
    /// when it is idle, and tests ask after each step.
    ///
    /// # Errors
    /// [`Broken`] with the first thing that is wrong.
    pub fn check(&self) -> Result<(), Broken> {
        self.blocks
            .check(self.sequences.iter().map(Sequence::block_table))?;
        let mut queued = HashSet::new();
        for &id in self.running.iter().chain(&self.waiting) {
            if !queued.insert(id) || self.sequences.find(id).is_none() {
                return Err(Broken::Queues { id });
            }
        }
        if let Some(lost) = self
            .sequences
            .iter()
            .find(|sequence| !queued.contains(&sequence.id()))
        {
            return Err(Broken::Queues { id: lost.id() });
        }
        for &id in &self.waiting {
            let sequence = &self.sequences[id];
            if !sequence.block_table().is_empty() || sequence.num_computed_tokens() > 0 {
                return Err(Broken::WaitingWithBlocks { id });
            }
        }
        for &id in &self.running {
            let sequence = &self.sequences[id];
            let (held, computed) = (sequence.block_table().len(), sequence.num_computed_tokens());
            let fits =
                self.blocks.blocks_for(computed)..=self.blocks.blocks_for(sequence.tokens().len());
            if sequence.num_uncomputed_tokens() == 0 || held == 0 || !fits.contains(&held) {
                return Err(Broken::BlockTable { id, held, computed });
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
    /// A sequence that stands in no queue, or in two, or in one and does not exist.
    #[error("{id:?} is not in exactly one queue")]
    Queues {
        /// The sequence.
        id: SequenceId,
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
