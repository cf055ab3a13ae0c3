//! One subject's account: what it was served and what it has waiting.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use super::{COMPLETION_WEIGHT, PROMPT_WEIGHT, Queued};
use crate::auth::{IdentityKey, Priority};
use crate::engine::sequence::SequenceSlot;

#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) key: IdentityKey,
    pub(super) weight: NonZeroU32,
    /// In virtual tokens, times [`UNIT`], over the weight.
    pub(super) served: u64,
    /// Sequences of any state.
    pub(super) sequences: usize,
    pub(super) running: usize,
    /// By priority class, when a sequence was last admitted.
    pub(super) started: [Duration; 3],
    /// By priority class, each in order of arrival.
    queues: [VecDeque<Queued>; 3],
}

impl Account {
    pub(super) fn new(key: IdentityKey, served: u64) -> Self {
        Self {
            key,
            weight: NonZeroU32::MIN,
            served,
            sequences: 0,
            running: 0,
            started: [Duration::ZERO; 3],
            queues: Default::default(),
        }
    }

    /// What tokens add to `served`.
    pub(super) fn price(&self, prompt_tokens: usize, completion_tokens: usize) -> u64 {
        let tokens =
            prompt_tokens as u64 * PROMPT_WEIGHT + completion_tokens as u64 * COMPLETION_WEIGHT;
        tokens * UNIT / u64::from(self.weight.get())
    }

    pub(super) fn num_waiting(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// The first of each class.
    pub(super) fn heads(&self) -> impl Iterator<Item = Queued> {
        self.queues
            .iter()
            .filter_map(|queue| queue.front().copied())
    }

    /// By arrival; usually that is the end. Who comes back after a preemption has its old place.
    pub(super) fn insert(&mut self, queued: Queued) {
        let queue = self.queue(queued.priority);
        let order = |queued: &Queued| (queued.arrived, queued.id);
        let at = queue.partition_point(|other| order(other) <= order(&queued));
        queue.insert(at, queued);
    }

    pub(super) fn has(&self, slot: SequenceSlot) -> bool {
        let mut queued = self.queues.iter().flatten();
        queued.any(|queued| queued.slot == slot)
    }

    pub(super) fn take(&mut self, slot: SequenceSlot) -> bool {
        for queue in &mut self.queues {
            if let Some(at) = queue.iter().position(|queued| queued.slot == slot) {
                queue.remove(at);
                return true;
            }
        }
        false
    }

    fn queue(&mut self, priority: Priority) -> &mut VecDeque<Queued> {
        &mut self.queues[priority as usize]
    }
}

/// So that a weight divides tokens with little rounding: 2^16 of them leave 2^47 tokens in a counter.
const UNIT: u64 = 1 << 16;
