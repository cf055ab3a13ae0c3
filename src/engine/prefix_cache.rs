//! Which blocks of the KV cache hold which beginning of a prompt, and for whom.
//!
//! Pure bookkeeping. A full block is named by a hash over everything before it and its own tokens, so that equal names
//! mean equal keys and values. The chain of names starts from a seed: the tenant's, so that one tenant cannot find (nor
//! time) another's blocks, or the public one for beginnings that the operator has declared public.
//!
//! ```text
//! public seed ─► block 0 ─► block 1 ─┐ tenant's seed
//!   declared public, shared by all   └─► block 2 ─► block 3 …  shared within the tenant
//! ```

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use aws_lc_rs::digest::{Context, SHA256};

use super::block_manager::BlockId;
use super::request::TokenId;
use crate::auth::IdentityKey;

/// Names the contents of a full block: SHA-256, because a collision would show one caller's text to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockHash([u8; 32]);

impl BlockHash {
    /// What the chains of a tenant start from. `salt` splits the tenant into circles that share nothing.
    pub fn seed(tenant: &IdentityKey, salt: Option<&str>) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"tenant");
        hash.update(tenant.as_bytes());
        if let Some(salt) = salt {
            hash.update(b"salt");
            hash.update(salt.as_bytes());
        }
        Self::finish(hash)
    }

    /// What the chains of public prefixes start from.
    fn public() -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"public");
        Self::finish(hash)
    }

    /// The first private link after `self`, for the owner of `seed`.
    fn enter(self, seed: Self) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"private");
        hash.update(&self.0);
        hash.update(&seed.0);
        Self::finish(hash)
    }

    /// The name of a block of `tokens` that follows the block `self`.
    #[must_use]
    pub fn then(self, tokens: &[TokenId]) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(&self.0);
        // In pieces, so that neither a block of any size nor a single token costs an allocation or a call.
        let mut bytes = [0; 64];
        for tokens in tokens.chunks(bytes.len() / 4) {
            for (bytes, token) in bytes.chunks_exact_mut(4).zip(tokens) {
                bytes.copy_from_slice(&token.to_le_bytes());
            }
            hash.update(&bytes[..tokens.len() * 4]);
        }
        Self::finish(hash)
    }

    fn finish(hash: Context) -> Self {
        let mut name = [0; 32];
        name.copy_from_slice(hash.finish().as_ref());
        Self(name)
    }
}

/// The names of a sequence's full blocks, as far as they are known, and what the next one hangs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    names: Vec<BlockHash>,
    /// The link before the first private block.
    root: BlockHash,
    /// Leading blocks that are public.
    public: usize,
}

impl Chain {
    /// The chain of `prompt` in blocks of `block_size` tokens, for whoever owns `seed`. Blocks that lie within the
    /// longest of `public` prefixes that the prompt begins with are named for everybody.
    pub fn of<'a>(
        prompt: &[TokenId],
        block_size: usize,
        seed: BlockHash,
        public: impl IntoIterator<Item = &'a [TokenId]>,
    ) -> Self {
        let public = public
            .into_iter()
            .filter(|prefix| prompt.starts_with(prefix))
            .map(<[TokenId]>::len)
            .max()
            .unwrap_or(0)
            / block_size;
        let mut blocks = prompt.chunks_exact(block_size);
        let mut names = Vec::with_capacity(blocks.len());
        let mut link = BlockHash::public();
        for block in blocks.by_ref().take(public) {
            link = link.then(block);
            names.push(link);
        }
        let root = link.enter(seed);
        let mut chain = Self {
            names,
            root,
            public,
        };
        for block in blocks {
            chain.push(block);
        }
        chain
    }

    /// Names one more full block, which holds `tokens`.
    pub fn push(&mut self, tokens: &[TokenId]) {
        let before = match self.names.last() {
            Some(&last) if self.names.len() > self.public => last,
            _ => self.root,
        };
        self.names.push(before.then(tokens));
    }

    /// The names, from the first block on.
    pub fn names(&self) -> &[BlockHash] {
        &self.names
    }
}

/// Finds blocks by the name of their contents.
#[derive(Debug, Clone)]
pub struct PrefixCache {
    blocks: HashMap<BlockHash, BlockId, BuildHasherDefault<FirstBytes>>,
    /// The other way round, by block number.
    names: Vec<Option<BlockHash>>,
    evictions: u64,
}

impl PrefixCache {
    /// Nothing is cached in any of `num_blocks` blocks.
    pub fn new(num_blocks: usize) -> Self {
        Self {
            blocks: HashMap::default(),
            names: vec![None; num_blocks],
            evictions: 0,
        }
    }

    /// The block with those contents.
    pub fn find(&self, name: &BlockHash) -> Option<BlockId> {
        self.blocks.get(name).copied()
    }

    /// Whether the block can be found by a name.
    pub fn holds(&self, block: BlockId) -> bool {
        self.name(block).is_some()
    }

    /// The name by which the block can be found.
    pub fn name(&self, block: BlockId) -> Option<BlockHash> {
        self.names[block.0 as usize]
    }

    /// From now on the block is found by `name`, unless an equal one is already: then the older stays.
    pub fn insert(&mut self, name: BlockHash, block: BlockId) {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.blocks.entry(name) {
            entry.insert(block);
            self.names[block.0 as usize] = Some(name);
        }
    }

    /// The block will be overwritten.
    pub fn evict(&mut self, block: BlockId) {
        if let Some(name) = self.names[block.0 as usize].take() {
            self.blocks.remove(&name);
            self.evictions += 1;
        }
    }

    /// Blocks that can be found.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether none can.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// How often a cached block was overwritten.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Whether both directions agree.
    pub(super) fn is_consistent(&self) -> bool {
        let named = self.names.iter().flatten().count();
        let agrees = |(name, block): (&BlockHash, &BlockId)| {
            self.names.get(block.0 as usize) == Some(&Some(*name))
        };
        named == self.blocks.len() && self.blocks.iter().all(agrees)
    }
}

/// Hashes are hashed already: their first bytes are as good as any.
#[derive(Debug, Clone, Default)]
pub struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length of an array, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests;
