//! Who holds which block of the KV cache, and which blocks still hold something worth finding again.
//!
//! Pure bookkeeping over block numbers: it never sees a key, a value or a token. Blocks carry reference counts, so that
//! one block may stand in several block tables. A block that nobody holds stays findable by its contents until its
//! memory is needed: those without findable contents go first, then the one that was let go longest ago.

mod free_list;
mod inconsistent;
#[cfg(test)]
mod tests;

use super::prefix_cache::{BlockHash, PrefixCache};
use free_list::FreeList;

pub use inconsistent::Inconsistent;

/// Number of a block in the KV cache. Its slots are `block * block_size ..` for `block_size` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// Hands out the blocks of one KV cache and takes them back.
#[derive(Debug, Clone)]
pub struct BlockManager {
    block_size: usize,
    /// Block tables that hold each block.
    references: Vec<u32>,
    free: FreeList,
    cached: PrefixCache,
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
        let count = u32::try_from(num_blocks)
            .expect("block numbers fit u32: a slot index must. This is a bug.");
        Self {
            block_size,
            references: vec![0; num_blocks],
            free: FreeList::full(count),
            cached: PrefixCache::new(num_blocks),
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

    /// Blocks that nobody holds, those with findable contents included.
    pub fn num_free(&self) -> usize {
        self.free.len()
    }

    /// Cached blocks that were given to something else.
    pub fn evictions(&self) -> u64 {
        self.cached.evictions()
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
        if missing > self.free.len() {
            return false;
        }
        for _ in 0..missing {
            let block = self
                .free
                .pop()
                .expect("as many blocks are free as were counted. This is a bug.");
            self.cached.evict(block);
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

    /// How many of the leading `names` are in the cache, and how many of these blocks nobody holds at present.
    pub fn find(&self, names: &[BlockHash]) -> Found {
        let mut found = Found::default();
        for name in names {
            let Some(block) = self.cached.find(name) else {
                break;
            };
            found.blocks += 1;
            found.unheld += usize::from(self.references[block.0 as usize] == 0);
        }
        found
    }

    /// Appends the blocks of `names`, all of which [`BlockManager::find`] has just found, to `table`.
    ///
    /// # Panics
    /// If one is not in the cache.
    pub fn adopt(&mut self, names: &[BlockHash], table: &mut Vec<BlockId>) {
        for name in names {
            let block = self
                .cached
                .find(name)
                .expect("a block that was found stays until another is taken. This is a bug.");
            let references = &mut self.references[block.0 as usize];
            if *references == 0 {
                self.free.remove(block);
            }
            *references += 1;
            table.push(block);
        }
    }

    /// Lets a held, completely computed block be found by `name`.
    pub fn publish(&mut self, block: BlockId, name: BlockHash) {
        debug_assert!(self.references[block.0 as usize] > 0);
        self.cached.insert(name, block);
    }

    /// Tables that hold the block.
    pub fn holders(&self, block: BlockId) -> usize {
        self.references[block.0 as usize] as usize
    }

    /// The name by which the block can be found.
    pub fn name(&self, block: BlockId) -> Option<BlockHash> {
        self.cached.name(block)
    }

    /// Blocks of `table` that no other table holds, what would come back if it were released; but for those that are
    /// found by the name that stands at the same place of `names`.
    pub fn held_alone(&self, table: &[BlockId], names: &[BlockHash]) -> usize {
        let counts = |&(at, &block): &(usize, &BlockId)| {
            self.holders(block) == 1
                && names
                    .get(at)
                    .is_none_or(|name| self.name(block) != Some(*name))
        };
        table.iter().enumerate().filter(counts).count()
    }

    /// Empties `table`. Blocks that no other table holds become free; of those with findable contents, the last is the
    /// first to go, since it is of no use without the ones before it.
    ///
    /// # Panics
    /// If a block of `table` is free already.
    pub fn release(&mut self, table: &mut Vec<BlockId>) {
        for block in table.drain(..).rev() {
            let references = &mut self.references[block.0 as usize];
            *references = references
                .checked_sub(1)
                .expect("a table's blocks are held by it. This is a bug.");
            if *references > 0 {
                continue;
            }
            if self.cached.holds(block) {
                self.free.push_last(block);
            } else {
                self.free.push_first(block);
            }
        }
    }

    /// Compares the counts with the tables that exist: each block is referenced exactly as often as it stands in
    /// `tables`, is free exactly when that is never, and is found under at most one name.
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
        for block in self.free.iter().take(self.references.len() + 1) {
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
        if !self.cached.is_consistent() {
            return Err(Inconsistent::Names);
        }
        Ok(())
    }
}

/// How much of a chain is in the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Leading blocks that are there.
    pub blocks: usize,
    /// Those of them that nobody holds: taking them takes from what is free.
    pub unheld: usize,
}
