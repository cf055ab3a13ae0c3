//! The bounded queue in front of the first step: who may join it, and when there will be room again.
//!
//! Counts places, not sequences' data: a request holds its place from before it is tokenised until its first step, so
//! that nothing is admitted for nothing. Pure: time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use super::EngineConfig;
use super::request::SubmitError;
use crate::auth::IdentityKey;

/// What a request takes up while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Sequences.
    pub sequences: usize,
    /// Tokens, prompt and completion, as far as known.
    pub tokens: usize,
}

/// The places that are taken, and how fast they became free lately.
#[derive(Debug, Clone)]
pub struct Queue {
    limit: Demand,
    limit_per_subject: usize,
    taken: Demand,
    by_subject: HashMap<IdentityKey, usize>,
    pace: Pace,
}

impl Queue {
    /// An empty queue with the bounds of `config`.
    pub fn new(config: &EngineConfig) -> Self {
        Self {
            limit: Demand {
                sequences: config.max_waiting,
                tokens: config.max_waiting_tokens,
            },
            limit_per_subject: config.max_waiting_per_subject.min(config.max_waiting),
            taken: Demand {
                sequences: 0,
                tokens: 0,
            },
            by_subject: HashMap::new(),
            pace: Pace::default(),
        }
    }

    /// Takes places for a request of `subject`, which is to be over within `deadline` from now.
    ///
    /// # Errors
    /// The bound that is reached, with the time after which there will be room if the queue goes on moving as it did.
    pub fn join(
        &mut self,
        subject: IdentityKey,
        demand: Demand,
        deadline: Option<Duration>,
        now: Duration,
    ) -> Result<(), SubmitError> {
        let n = demand.sequences;
        let limit = self.limit_per_subject;
        if n > limit {
            return Err(SubmitError::TooMany { n, limit });
        }
        let limit = self.limit.sequences;
        if let Some(over) = over(self.taken.sequences, n, limit) {
            let retry_after = self.pace.time_for(over, 0, now);
            return Err(SubmitError::QueueFull { limit, retry_after });
        }
        let limit = self.limit.tokens;
        // A request larger than the whole bound may wait if it waits alone: it could never run otherwise.
        let tokens = over(self.taken.tokens, demand.tokens, limit);
        if let Some(over) = tokens.filter(|_| self.taken.tokens > 0) {
            let retry_after = self.pace.time_for(0, over.min(self.taken.tokens), now);
            return Err(SubmitError::QueueTokens { limit, retry_after });
        }
        let limit = self.limit_per_subject;
        let own = self.by_subject.get(&subject).copied().unwrap_or(0);
        if let Some(over) = over(own, n, limit) {
            // Its own places become free at its share of the pace.
            let among_all = over * self.taken.sequences / own.max(1);
            let retry_after = self.pace.time_for(among_all, 0, now);
            return Err(SubmitError::OverShare { limit, retry_after });
        }
        let start = self
            .pace
            .measured_time_for(self.taken.sequences, self.taken.tokens, now);
        if let (Some(deadline), Some(start)) = (deadline, start)
            && start > deadline
        {
            let retry_after = within_reason(start - deadline);
            return Err(SubmitError::TooLate {
                deadline,
                retry_after,
            });
        }
        self.pace.joined(self.taken.sequences == 0, now);
        self.taken.sequences += n;
        self.taken.tokens = self.taken.tokens.saturating_add(demand.tokens);
        *self.by_subject.entry(subject).or_default() += n;
        Ok(())
    }

    /// Counts a request's tokens as they turned out to be. That is never a reason to refuse it: the work of counting
    /// them is done.
    pub fn correct(&mut self, demand: &mut Demand, tokens: usize) {
        self.taken.tokens = self.taken.tokens.saturating_sub(demand.tokens);
        self.taken.tokens = self.taken.tokens.saturating_add(tokens);
        demand.tokens = tokens;
    }

    /// Gives the places back: the request has started, or ended before.
    pub fn leave(&mut self, subject: &IdentityKey, demand: Demand, now: Duration) {
        self.pace.left(demand, now);
        self.forgo(subject, demand);
    }

    /// Gives the places of a request back that was never made: it did not wait, so that it says nothing about the pace.
    pub fn forgo(&mut self, subject: &IdentityKey, demand: Demand) {
        self.taken.sequences -= demand.sequences;
        self.taken.tokens = self.taken.tokens.saturating_sub(demand.tokens);
        if let Some(own) = self.by_subject.get_mut(subject) {
            *own -= demand.sequences;
            if *own == 0 {
                self.by_subject.remove(subject);
            }
        }
    }

    /// What is taken at present.
    pub fn taken(&self) -> Demand {
        self.taken
    }
}

/// By how much `taken` and `more` are above `limit`.
fn over(taken: usize, more: usize, limit: usize) -> Option<usize> {
    let over = taken.saturating_add(more).saturating_sub(limit);
    (over > 0).then_some(over)
}

/// How fast places became free while somebody waited: exponentially fading sums of places and of the time in which they
/// became free, so that the last few seconds count most and a standstill lowers the pace.
#[derive(Debug, Clone, Default)]
struct Pace {
    sequences: f64,
    tokens: f64,
    seconds: f64,
    /// Up to when time was counted.
    counted: Duration,
}

impl Pace {
    /// Time in which nobody waits says nothing about the pace.
    fn joined(&mut self, was_empty: bool, now: Duration) {
        if was_empty {
            self.counted = now;
        }
    }

    fn left(&mut self, places: Demand, now: Duration) {
        let waited = now.saturating_sub(self.counted).as_secs_f64();
        let kept = (-waited / MEMORY_S).exp();
        self.sequences = self.sequences * kept + places.sequences as f64;
        self.tokens = self.tokens * kept + places.tokens as f64;
        self.seconds = self.seconds * kept + waited;
        self.counted = self.counted.max(now);
    }

    /// How long it takes until so many places are free, if that was ever measured.
    fn measured_time_for(
        &self,
        sequences: usize,
        tokens: usize,
        now: Duration,
    ) -> Option<Duration> {
        let still = now.saturating_sub(self.counted).as_secs_f64();
        let kept = (-still / MEMORY_S).exp();
        let seconds = self.seconds * kept + still;
        let time = |places: usize, left: f64| match places {
            0 => 0.0,
            _ => places as f64 * seconds / (left * kept),
        };
        let needed = time(sequences, self.sequences).max(time(tokens, self.tokens));
        (self.sequences > 0.0 && needed.is_finite())
            .then(|| Duration::from_secs_f64(needed.min(LONGEST.as_secs_f64())))
    }

    /// The same for somebody who is told to come back: between [`SHORTEST`] and [`LONGEST`], [`UNKNOWN`] without a
    /// measurement.
    fn time_for(&self, sequences: usize, tokens: usize, now: Duration) -> Duration {
        let measured = self.measured_time_for(sequences, tokens, now);
        within_reason(measured.unwrap_or(UNKNOWN))
    }
}

fn within_reason(wait: Duration) -> Duration {
    wait.clamp(SHORTEST, LONGEST)
}

/// After this time a measurement counts for 37 %.
const MEMORY_S: f64 = 10.0;
/// Sooner is not worth a second request.
const SHORTEST: Duration = Duration::from_millis(50);
/// Official SDKs ignore longer waits.
const LONGEST: Duration = Duration::from_secs(120);
/// Said before anything has left the queue.
const UNKNOWN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
