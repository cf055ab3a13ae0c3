//! The sequences of an engine, each in a slot that stays the same as long as it lives.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};

use super::{Sequence, SequenceId};
#[cfg(test)]
use crate::engine::TokenId;

/// Where a sequence is kept. Slots are used again: it means something only while the sequence lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceSlot(u32);

/// The sequences that an engine holds. By slot for the steps, which look at every running one; by name for the rest.
#[derive(Debug, Clone, Default)]
pub struct Sequences {
    slots: Vec<Option<Sequence>>,
    free: Vec<SequenceSlot>,
    by_id: HashMap<SequenceId, SequenceSlot>,
}

impl Sequences {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The sequence of that name, if there is one.
    pub fn find(&self, id: SequenceId) -> Option<&Sequence> {
        self.slot(id).map(|slot| &self[slot])
    }

    /// Where the sequence of that name is kept.
    pub fn slot(&self, id: SequenceId) -> Option<SequenceSlot> {
        self.by_id.get(&id).copied()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (SequenceSlot, &Sequence)> {
        let slots = (0..).map(SequenceSlot).zip(&self.slots);
        slots.filter_map(|(slot, sequence)| Some((slot, sequence.as_ref()?)))
    }

    /// Whether a sequence is kept in `slot`.
    pub(in crate::engine) fn holds(&self, slot: SequenceSlot) -> bool {
        self.slots[slot.0 as usize].is_some()
    }

    /// The sequence in `slot`, if it is still the one called `id`.
    pub(in crate::engine) fn still(&self, slot: SequenceSlot, id: SequenceId) -> Option<&Sequence> {
        let sequence = self.slots.get(slot.0 as usize)?.as_ref()?;
        (sequence.id() == id).then_some(sequence)
    }

    /// The same sequences, each with the token that is under way: `token` says which it is, by its place in the step.
    #[cfg(test)]
    pub(in crate::engine) fn with_tokens(&self, token: impl Fn(u32) -> TokenId) -> Self {
        let mut sequences = self.clone();
        for sequence in sequences.slots.iter_mut().flatten() {
            if let Some(row) = sequence.under_way() {
                sequence.push(token(row), usize::MAX);
            }
        }
        sequences
    }

    pub(in crate::engine) fn insert(&mut self, sequence: Sequence) -> SequenceSlot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            SequenceSlot((self.slots.len() - 1) as u32)
        });
        let known = self.by_id.insert(sequence.id(), slot);
        assert!(
            known.is_none(),
            "request numbers are used once. This is a bug."
        );
        self.slots[slot.0 as usize] = Some(sequence);
        slot
    }

    pub(in crate::engine) fn remove(&mut self, slot: SequenceSlot) -> Sequence {
        let sequence = self.slots[slot.0 as usize].take().expect(GONE);
        self.by_id.remove(&sequence.id());
        self.free.push(slot);
        sequence
    }
}

impl Index<SequenceSlot> for Sequences {
    type Output = Sequence;

    fn index(&self, slot: SequenceSlot) -> &Sequence {
        self.slots[slot.0 as usize].as_ref().expect(GONE)
    }
}

impl IndexMut<SequenceSlot> for Sequences {
    fn index_mut(&mut self, slot: SequenceSlot) -> &mut Sequence {
        self.slots[slot.0 as usize].as_mut().expect(GONE)
    }
}

const GONE: &str = "plans and queues name only sequences that exist. This is a bug.";
