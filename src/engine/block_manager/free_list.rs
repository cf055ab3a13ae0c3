//! The blocks that nobody holds, in the order in which they are to be used: a doubly linked list through two arrays, so
//! that a block in its middle is taken out in constant time when its contents are asked for again.

use super::BlockId;

#[derive(Debug, Clone)]
pub(super) struct FreeList {
    /// By block number, [`END`] and [`OUT`] aside. The last entry is the list's own: its next is the first block, its
    /// previous the last one.
    next: Vec<u32>,
    previous: Vec<u32>,
    len: usize,
}

impl FreeList {
    /// All of `count` blocks, in the order of their numbers.
    pub(super) fn full(count: u32) -> Self {
        let ring = u64::from(count) + 1;
        let neighbour = |step: u64| {
            let of = |at: u64| ((at + step) % ring) as u32;
            (0..ring).map(of).collect()
        };
        Self {
            next: neighbour(1),
            previous: neighbour(ring - 1),
            len: count as usize,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes the block that is to be used next.
    pub(super) fn pop(&mut self) -> Option<BlockId> {
        let first = self.next[self.head()];
        if first as usize == self.head() {
            return None;
        }
        self.remove(BlockId(first));
        Some(BlockId(first))
    }

    /// Takes a block out of the list, wherever it stands in it.
    ///
    /// # Panics
    /// If it does not.
    pub(super) fn remove(&mut self, block: BlockId) {
        let at = block.0 as usize;
        let (next, previous) = (self.next[at], self.previous[at]);
        assert!(
            next != OUT,
            "only a free block can be taken. This is a bug."
        );
        self.next[previous as usize] = next;
        self.previous[next as usize] = previous;
        self.next[at] = OUT;
        self.len -= 1;
    }

    /// Puts a block where it is used next: its memory is the likeliest to be warm.
    pub(super) fn push_first(&mut self, block: BlockId) {
        self.insert_after(self.head(), block);
    }

    /// Puts a block where it is used last.
    pub(super) fn push_last(&mut self, block: BlockId) {
        self.insert_after(self.previous[self.head()] as usize, block);
    }

    /// The blocks, the next one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = BlockId> {
        let head = self.head() as u32;
        std::iter::successors(Some(self.next[head as usize]), |&at| {
            Some(self.next[at as usize])
        })
        .take_while(move |&at| at != head)
        .map(BlockId)
    }

    fn insert_after(&mut self, before: usize, block: BlockId) {
        let at = block.0 as usize;
        assert!(
            self.next[at] == OUT,
            "a block becomes free once. This is a bug."
        );
        let next = self.next[before];
        self.next[before] = block.0;
        self.previous[at] = before as u32;
        self.next[at] = next;
        self.previous[next as usize] = block.0;
        self.len += 1;
    }

    fn head(&self) -> usize {
        self.next.len() - 1
    }
}

/// The neighbour of a block that is not in the list. Block numbers stay below it, because a slot number must fit 32
/// bits and the head takes one more.
const OUT: u32 = u32::MAX;
