//! Who holds which block of the KV cache.
//!
//! Pure bookkeeping over block numbers: it never sees a key, a value or a token. Blocks carry reference counts, so that
//! one block may stand in several block tables; nothing shares blocks yet, a prefix cache will.

/// Number of a block in the KV cache. Its slots are `block * block_size ..` for `block_size` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// Hands out the blocks of one KV cache and takes them back.
#[derive(Debug, Clone)]
pub struct BlockManager {
    block_size: usize,
    /// Block tables that hold each block.
    references: Vec<u32>,
    /// Blocks that nobody holds; the last one goes out first, because its memory is the likeliest to be warm.
    free: Vec<BlockId>,
}

impl BlockManager {
    /// A cache of `num_blocks` blocks, all free, of `block_size` tokens each.
    ///
    /// # Panics
    /// If `block_size` is 0, or `num_blocks` does not fit a [`BlockId`].
    pub fn new(num_blocks: usize, block_size: usize) -> Self {
        assert!(
            block_size > 0,
            "a block holds at least one token. This is a bug."
        );
        let num_blocks = u32::try_from(num_blocks)
            .expect("block numbers fit u32: a slot index must. This is a bug.");
        Self {
            block_size,
            references: vec![0; num_blocks as usize],
            free: (0..num_blocks).rev().map(BlockId).collect(),
        }
    }

    /// Tokens per block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks in the cache.
    pub fn num_blocks(&self) -> usize {
        self.references.len()
    }

    /// Blocks that at least one table holds.
    pub fn num_used(&self) -> usize {
        self.references.len() - self.free.len()
    }

    /// Blocks that nobody holds.
    pub fn num_free(&self) -> usize {
        self.free.len()
    }

    /// Blocks that `num_tokens` tokens of one sequence fill, the last one perhaps in part.
    pub fn blocks_for(&self, num_tokens: usize) -> usize {
        num_tokens.div_ceil(self.block_size)
    }

    /// Appends free blocks to `table` until it has room for `num_tokens` tokens. All or nothing: `false` means that
    /// too few blocks are free, and nothing changed.
    #[must_use]
    pub fn grow(&mut self, table: &mut Vec<BlockId>, num_tokens: usize) -> bool {
        let missing = self.blocks_for(num_tokens).saturating_sub(table.len());
        let Some(rest) = self.free.len().checked_sub(missing) else {
            return false;
        };
        for block in self.free.drain(rest..).rev() {
            self.references[block.0 as usize] = 1;
            table.push(block);
        }
        true
    }

    /// Appends `block`, which some table already holds, to `table` as well.
    ///
    /// # Panics
    /// If nobody holds `block`: its contents belong to no one.
    pub fn share(&mut self, block: BlockId, table: &mut Vec<BlockId>) {
        let references = &mut self.references[block.0 as usize];
        assert!(
            *references > 0,
            "only a block that is held can be shared. This is a bug."
        );
        *references += 1;
        table.push(block);
    }

    /// Empties `table`. Blocks that no other table holds become free.
    ///
    /// # Panics
    /// If a block of `table` is free already.
    pub fn release(&mut self, table: &mut Vec<BlockId>) {
        // From the back, so that the blocks go out again in the order in which they came.
        for block in table.drain(..).rev() {
            let references = &mut self.references[block.0 as usize];
            *references = references
                .checked_sub(1)
                .expect("a table's blocks are held by it. This is a bug.");
            if *references == 0 {
                self.free.push(block);
            }
        }
    }

    /// Compares the counts with the tables that exist: each block is referenced exactly as often as it stands in
    /// `tables`, and is free exactly when that is never.
    ///
    /// # Errors
    /// [`Inconsistent`] naming the first block that is wrong.
    pub fn check<'a>(
        &self,
        tables: impl IntoIterator<Item = &'a [BlockId]>,
    ) -> Result<(), Inconsistent> {
        let mut held = vec![0_u32; self.references.len()];
        for &block in tables.into_iter().flatten() {
            *held
                .get_mut(block.0 as usize)
                .ok_or(Inconsistent::Stray { block })? += 1;
        }
        let mut free = vec![0_u32; self.references.len()];
        for &block in &self.free {
            *free
                .get_mut(block.0 as usize)
                .ok_or(Inconsistent::Stray { block })? += 1;
        }
        for (number, (&counted, (&held, &free))) in self
            .references
            .iter()
            .zip(held.iter().zip(&free))
            .enumerate()
        {
            let block = BlockId(number as u32);
            if counted != held {
                return Err(Inconsistent::References {
                    block,
                    counted,
                    held,
                });
            }
            if free != u32::from(held == 0) {
                return Err(Inconsistent::Free { block, held, free });
            }
        }
        Ok(())
    }
}

/// How the books of a [`BlockManager`] disagree with the block tables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistent {
    /// A block number outside the cache.
    #[error("block {} is outside the cache", .block.0)]
    Stray {
        /// The block.
        block: BlockId,
    },
    /// A reference count that is not the number of tables that hold the block.
    #[error("block {} counts {counted} references, block tables hold {held}", .block.0)]
    References {
        /// The block.
        block: BlockId,
        /// Its reference count.
        counted: u32,
        /// How often it stands in block tables.
        held: u32,
    },
    /// A block that is held and free, neither, or free twice.
    #[error("block {} is held {held} times and listed as free {free} times", .block.0)]
    Free {
        /// The block.
        block: BlockId,
        /// How often it stands in block tables.
        held: u32,
        /// How often it stands in the free list.
        free: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_grows_by_whole_blocks_and_only_when_a_token_needs_one() {
        let mut blocks = BlockManager::new(4, 3);
        let mut table = Vec::new();
        for (tokens, expected) in [(1, 1), (3, 1), (4, 2), (6, 2), (12, 4)] {
            assert!(blocks.grow(&mut table, tokens));
            assert_eq!((table.len(), blocks.num_used()), (expected, expected));
        }
        assert_eq!(blocks.check([&table[..]]), Ok(()));
    }

    #[test]
    fn growing_past_the_cache_changes_nothing() {
        let mut blocks = BlockManager::new(2, 4);
        let mut table = Vec::new();
        assert!(blocks.grow(&mut table, 4));
        assert!(!blocks.grow(&mut table, 13));
        assert_eq!((table.len(), blocks.num_free()), (1, 1));
    }

    #[test]
    fn a_shared_block_is_free_only_after_its_last_holder_let_go() {
        let mut blocks = BlockManager::new(2, 1);
        let (mut one, mut other) = (Vec::new(), Vec::new());
        assert!(blocks.grow(&mut one, 2));
        blocks.share(one[0], &mut other);
        blocks.release(&mut one);
        assert_eq!(blocks.num_used(), 1);
        assert_eq!(blocks.check([&other[..]]), Ok(()));
        blocks.release(&mut other);
        assert_eq!(blocks.num_used(), 0);
        assert_eq!(blocks.check([]), Ok(()));
    }

    #[test]
    fn the_check_names_a_leaked_block() {
        let mut blocks = BlockManager::new(2, 1);
        let mut leaked = Vec::new();
        assert!(blocks.grow(&mut leaked, 1));
        assert_eq!(
            blocks.check([]),
            Err(Inconsistent::References {
                block: leaked[0],
                counted: 1,
                held: 0
            })
        );
    }

    #[test]
    #[should_panic(expected = "This is a bug.")]
    fn releasing_a_block_twice_is_caught() {
        let mut blocks = BlockManager::new(1, 1);
        let mut table = Vec::new();
        assert!(blocks.grow(&mut table, 1));
        let mut copy = table.clone();
        blocks.release(&mut table);
        blocks.release(&mut copy);
    }
}
