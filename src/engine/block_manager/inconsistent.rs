//! How the books of the block manager can be wrong.

use super::BlockId;

/// How the books of a [`super::BlockManager`] disagree with the block tables.
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
    /// A cached block that is found by a name that it does not have, or the other way round.
    #[error("the names of cached blocks and the blocks of those names disagree")]
    Names,
}
