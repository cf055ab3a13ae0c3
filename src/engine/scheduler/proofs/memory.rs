//! What stands in the KV cache: for each slot, which beginning of a text was computed there and for whom.

use crate::engine::TokenId;
use crate::engine::block_manager::BlockId;
use crate::engine::scheduler::BlockCopy;

/// The slots of a cache.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    block_size: usize,
    slots: Vec<Option<Content>>,
    /// The step in which each slot was written last, so that nobody writes it twice.
    written: Vec<u64>,
}

/// A key and a value: they depend on all tokens up to their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) beginning: Beginning,
    /// For whom it was computed.
    pub(super) circle: Circle,
}

/// Stands for a text up to some position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning(u64);

/// Those who may share what was computed for one of them: a tenant, or a part of it that a salt splits off.
pub(super) type Circle = (&'static str, Option<char>);

impl Memory {
    pub(super) fn new(num_blocks: usize, block_size: usize) -> Self {
        Self {
            block_size,
            slots: vec![None; num_blocks * block_size],
            written: vec![0; num_blocks * block_size],
        }
    }

    pub(super) fn copy(&mut self, copy: BlockCopy) {
        let from = self.start(copy.from);
        let to = self.start(copy.to);
        self.slots.copy_within(from..from + self.block_size, to);
    }

    /// What stands at `position` of whoever has the block table `table`.
    pub(super) fn read(&self, table: &[BlockId], position: usize) -> Option<Content> {
        self.slots[self.slot(table, position)]
    }

    /// `false` if the slot was written in this step already.
    pub(super) fn write(
        &mut self,
        table: &[BlockId],
        position: usize,
        content: Content,
        step: u64,
    ) -> bool {
        let slot = self.slot(table, position);
        self.slots[slot] = Some(content);
        std::mem::replace(&mut self.written[slot], step) != step
    }

    fn slot(&self, table: &[BlockId], position: usize) -> usize {
        self.start(table[position / self.block_size]) + position % self.block_size
    }

    fn start(&self, block: BlockId) -> usize {
        block.0 as usize * self.block_size
    }
}

impl Beginning {
    pub(super) const EMPTY: Self = Self(0x9E37_79B9_7F4A_7C15);

    /// Multiplying and rotating by SplitMix64's constants: equal only for equal texts, short of a 64-bit collision.
    pub(super) fn then(self, token: TokenId) -> Self {
        let mixed = (self.0 ^ u64::from(token)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        Self(
            (mixed ^ (mixed >> 27))
                .wrapping_mul(0x94D0_49BB_1331_11EB)
                .rotate_left(31),
        )
    }

    /// The token that a pretended model finds likeliest after it; sequences of one request choose differently.
    pub(super) fn next_token(self, index: u32) -> TokenId {
        let Self(place) = self.then(100 + index % 3);
        match place % 16 {
            0 => EOS,
            _ => 1 + (place >> 8) as u32 % 8,
        }
    }
}

pub(super) const EOS: TokenId = 0;
