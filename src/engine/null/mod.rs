//! A model that computes nothing: it answers at once, or in the time that a real one would need on a card.
//!
//! Everything around the model is real: scheduling, blocks, streams, HTTP. So they can be measured at the speed of a
//! GPU on any machine. The answers are words picked by a hash, a function of the sequence alone.

mod catalogue;
mod name;
mod pace;
mod roofline;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use super::executor::{Capacity, ExecuteError, Executor};
use super::request::TokenId;
use super::scheduler::StepPlan;
use super::sequence::{Sequence, Sequences};

pub use catalogue::{Card, Precision, Shape, Sizes};
pub use name::{NullCardError, NullName, NullNameError, WeightsOf};
pub use pace::{Pace, RealPace};
pub use roofline::{Rates, Roofline};

/// An executor without weights or device.
#[derive(Debug, Clone)]
pub struct NullModel<P = RealPace> {
    capacity: Capacity,
    /// What it answers with.
    words: Vec<TokenId>,
    /// How long a step takes; `None` is no time.
    roofline: Option<Roofline>,
    pace: P,
    /// What the step that was begun last chose.
    last: Vec<TokenId>,
    /// Steps that were begun and not finished.
    begun: VecDeque<Begun>,
    /// When it has done all that it was asked.
    free_at: Duration,
    idled: Duration,
}

/// A step that was begun.
#[derive(Debug, Clone)]
struct Begun {
    chosen: Vec<TokenId>,
    ends: Duration,
    /// How long there was nothing to do before it.
    idled: Duration,
}

impl<P: Pace> NullModel<P> {
    /// The null model called `name`. It answers with `words`, which are to be ordinary tokens below
    /// `capacity.vocab_size`: no end of sequence among them, and text in each of them, so that each is heard by itself.
    ///
    /// # Panics
    /// If there are no words.
    pub fn new(name: NullName, capacity: Capacity, words: Vec<TokenId>, pace: P) -> Self {
        assert!(!words.is_empty(), "a model has words. This is a bug.");
        let roofline = name
            .on
            .map(|(card, precision)| Roofline::new(name.shape, card, precision));
        Self {
            capacity,
            words,
            roofline,
            pace,
            last: Vec::new(),
            begun: VecDeque::new(),
            free_at: Duration::ZERO,
            idled: Duration::ZERO,
        }
    }

    /// The token after those of `sequence`. Their end and their number decide, so that batches, chunks, preemption and
    /// cached prefixes change nothing.
    fn next(&self, sequence: &Sequence) -> TokenId {
        let under_way = sequence.under_way().map(|row| &self.last[row as usize]);
        let known = sequence.tokens();
        let tail = known
            .len()
            .saturating_sub(TAIL - usize::from(under_way.is_some()));
        let tail = known[tail..].iter().chain(under_way);
        let hash = tail.fold(sequence.num_tokens() as u64, |state, &token| {
            mix(state ^ u64::from(token))
        });
        let at = (hash % self.words.len() as u64) as usize;
        let forbidden = |id: &TokenId| sequence.forbidden().any(|other| other == *id);
        // If every word is forbidden, which no request that means well asks for, it says one all the same.
        self.words[at..]
            .iter()
            .chain(&self.words[..at])
            .copied()
            .find(|id| !forbidden(id))
            .unwrap_or(self.words[at])
    }
}

impl<P: Pace> Executor for NullModel<P> {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn overlaps(&self) -> bool {
        true
    }

    /// As a device does, it begins when it is told to and has done with the step before, and takes the roofline's time.
    fn start(&mut self, plan: &StepPlan, sequences: &Sequences) -> Result<(), ExecuteError> {
        let now = self.pace.now();
        let begins = now.max(self.free_at);
        let chosen: Vec<TokenId> = plan
            .due()
            .map(|part| self.next(&sequences[part.slot]))
            .collect();
        self.last.clone_from(&chosen);
        let ends = match self.roofline {
            Some(roofline) => begins + roofline.step_time(plan),
            // All that it does, it has done by now.
            None => self.pace.now(),
        };
        self.begun.push_back(Begun {
            chosen,
            ends,
            idled: begins - self.free_at,
        });
        self.free_at = ends;
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<TokenId>, ExecuteError> {
        let Some(step) = self.begun.pop_front() else {
            return Ok(Vec::new());
        };
        if self.roofline.is_some() {
            self.pace.wait_until(step.ends);
        }
        self.idled = step.idled;
        Ok(step.chosen)
    }

    fn idled(&self) -> Option<Duration> {
        Some(self.idled)
    }
}

/// A good hash of 64 bits: David Stafford's finaliser, as in SplitMix64.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// Enough tokens to reach past a chat template's end into what was asked.
const TAIL: usize = 16;
