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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
    limit_per_subject: Demand,
    taken: Demand,
    by_subject: HashMap<IdentityKey, Demand>,
    pace: Pace,
}

impl Queue {
    /// An empty queue with the bounds of `config`.
    pub fn new(config: &EngineConfig) -> Self {
        let limit = Demand {
            sequences: config.max_waiting,
            tokens: config.max_waiting_tokens,
        };
        let sequences = config.max_waiting_per_subject.min(limit.sequences);
        // The same share of the tokens as of the sequences.
        let tokens = match limit.tokens {
            usize::MAX => usize::MAX,
            tokens => {
                (tokens as u128 * sequences as u128 / limit.sequences.max(1) as u128) as usize
            }
        };
        Self {
            limit,
            limit_per_subject: Demand { sequences, tokens },
            taken: Demand::default(),
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
        let limit = self.limit_per_subject.sequences;
        if n > limit {
            return Err(SubmitError::TooMany { n, limit });
        }
        // The caller's own share first: who is over it hears so, however full the queue is. A share that is all of it
        // is none.
        let is_shared = limit < self.limit.sequences;
        let (own, all) = (self.own(&subject), self.taken);
        if let Some(over) = over(own.sequences, n, limit).filter(|_| is_shared) {
            // Its own places become free at its share of the pace.
            let among_all = over * all.sequences / own.sequences.max(1);
            let retry_after = self.pace.time_for(among_all, 0, now);
            return Err(SubmitError::OverShare { limit, retry_after });
        }
        let limit = self.limit_per_subject.tokens;
        let own_over = over_unless_alone(own.tokens, demand.tokens, limit);
        if let Some(over) = own_over.filter(|_| is_shared) {
            let among_all = over as u128 * all.tokens as u128 / own.tokens as u128;
            let retry_after = self.pace.time_for(0, among_all as usize, now);
            return Err(SubmitError::OverShareTokens { limit, retry_after });
        }
        let limit = self.limit.sequences;
        if let Some(over) = over(all.sequences, n, limit) {
            let retry_after = self.pace.time_for(over, 0, now);
            return Err(SubmitError::QueueFull { limit, retry_after });
        }
        let limit = self.limit.tokens;
        if let Some(over) = over_unless_alone(all.tokens, demand.tokens, limit) {
            let retry_after = self.pace.time_for(0, over, now);
            return Err(SubmitError::QueueTokens { limit, retry_after });
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
        self.taken.add(demand);
        self.by_subject.entry(subject).or_default().add(demand);
        Ok(())
    }

    /// Counts a request's tokens as they turned out to be. That is never a reason to refuse it: the work of counting
    /// them is done.
    pub fn correct(&mut self, subject: &IdentityKey, demand: &mut Demand, tokens: usize) {
        let corrected = Demand { tokens, ..*demand };
        for taken in [Some(&mut self.taken), self.by_subject.get_mut(subject)] {
            let Some(taken) = taken else { continue };
            taken.take_away(*demand);
            taken.add(corrected);
        }
        *demand = corrected;
    }

    /// Gives the places back: the request has started, or ended before.
    pub fn leave(&mut self, subject: &IdentityKey, demand: Demand, now: Duration) {
        self.pace.left(demand, now);
        self.forgo(subject, demand);
    }

    /// Gives the places of a request back that was never made: it did not wait, so that it says nothing about the pace.
    pub fn forgo(&mut self, subject: &IdentityKey, demand: Demand) {
        self.taken.take_away(demand);
        if let Some(own) = self.by_subject.get_mut(subject) {
            own.take_away(demand);
            if own.sequences == 0 {
                self.by_subject.remove(subject);
            }
        }
    }

    /// What is taken at present.
    pub fn taken(&self) -> Demand {
        self.taken
    }

    fn own(&self, subject: &IdentityKey) -> Demand {
        self.by_subject.get(subject).copied().unwrap_or_default()
    }
}

impl Demand {
    fn add(&mut self, more: Self) {
        self.sequences += more.sequences;
        self.tokens = self.tokens.saturating_add(more.tokens);
    }

    fn take_away(&mut self, less: Self) {
        self.sequences -= less.sequences;
        self.tokens = self.tokens.saturating_sub(less.tokens);
    }
}

/// By how much `taken` and `more` are above `limit`.
fn over(taken: usize, more: usize, limit: usize) -> Option<usize> {
    let over = taken.saturating_add(more).saturating_sub(limit);
    (over > 0).then_some(over)
}

/// The same for tokens. A request larger than the whole bound may wait if it waits alone: it could never run otherwise.
fn over_unless_alone(taken: usize, more: usize, limit: usize) -> Option<usize> {
    over(taken, more, limit)
        .filter(|_| taken > 0)
        .map(|over| over.min(taken))
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
