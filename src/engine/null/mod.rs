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
        }
    }

    /// The token after those of `sequence`. Their end and their number decide, so that batches, chunks, preemption and
    /// cached prefixes change nothing.
    fn next(&self, sequence: &Sequence) -> TokenId {
        let tokens = sequence.tokens();
        let tail = &tokens[tokens.len().saturating_sub(TAIL)..];
        let hash = tail.iter().fold(tokens.len() as u64, |state, &token| {
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

    /// Takes at least the roofline's time. A step that ends late is not made up for: the next one begins when it begins.
    fn run(
        &mut self,
        plan: &StepPlan,
        sequences: &Sequences,
    ) -> Result<Vec<TokenId>, ExecuteError> {
        let deadline = self
            .roofline
            .map(|roofline| self.pace.now() + roofline.step_time(plan));
        let sampled = plan
            .due()
            .map(|part| self.next(&sequences[part.slot]))
            .collect();
        if let Some(deadline) = deadline {
            self.pace.wait_until(deadline);
        }
        Ok(sampled)
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
