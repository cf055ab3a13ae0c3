//! A token bucket that is full at first and refills evenly over a minute. Exact: whole numbers, no drift.

use std::time::Duration;

/// What was taken and is not refilled yet. A debt rather than a level, so that a new limit applies to what is counted
/// already.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    /// In units of which a token has [`TOKEN`]; each nanosecond pays back `most` of them.
    debt: u128,
    /// When `debt` was right, by the uptime.
    at: Duration,
    most: u64,
}

impl Bucket {
    pub(super) fn full(now: Duration, most: u64) -> Self {
        Self {
            debt: 0,
            at: now,
            most,
        }
    }

    /// Refills up to now, by the limit that was in force; from now on `most` is.
    pub(super) fn turn(&mut self, now: Duration, most: u64) {
        self.refill(now);
        self.most = most;
    }

    /// Refills up to now.
    pub(super) fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        let paid = passed.as_nanos().saturating_mul(self.most.into());
        self.debt = self.debt.saturating_sub(paid);
        self.at = self.at.max(now);
    }

    /// Takes so many, whether or not they are there: what is missing delays who comes next.
    pub(super) fn take(&mut self, tokens: u64) {
        let debt = u128::from(tokens).saturating_mul(TOKEN);
        self.debt = self.debt.saturating_add(debt);
    }

    /// Puts back what was taken and not used.
    pub(super) fn give(&mut self, tokens: u64) {
        let debt = u128::from(tokens).saturating_mul(TOKEN);
        self.debt = self.debt.saturating_sub(debt);
    }

    /// Whole tokens that are there.
    pub(super) fn level(&self) -> u64 {
        let level = (u128::from(self.most) * TOKEN).saturating_sub(self.debt) / TOKEN;
        u64::try_from(level).unwrap_or(u64::MAX)
    }

    /// Until so many are there, if the bucket holds that many.
    pub(super) fn wait(&self, tokens: u64) -> Duration {
        let wanted = u128::from(tokens).saturating_mul(TOKEN);
        let missing = self.debt.saturating_add(wanted);
        self.time_for(missing.saturating_sub(u128::from(self.most) * TOKEN))
    }

    /// Until it is full.
    pub(super) fn reset(&self) -> Duration {
        self.time_for(self.debt)
    }

    pub(super) fn is_full(&self) -> bool {
        self.debt == 0
    }

    fn time_for(&self, debt: u128) -> Duration {
        let nanos = debt.div_ceil(self.most.max(1).into());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Units of a token: one for each nanosecond of a minute.
const TOKEN: u128 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills_evenly_and_no_further_than_full() {
        let second = Duration::from_secs(1);
        let mut bucket = Bucket::full(Duration::ZERO, 120);
        bucket.take(120);
        assert_eq!((bucket.level(), bucket.wait(1)), (0, second / 2));
        assert_eq!(bucket.reset(), 60 * second);
        bucket.refill(second / 2 - Duration::from_nanos(1));
        assert_eq!(
            (bucket.level(), bucket.wait(1)),
            (0, Duration::from_nanos(1))
        );
        bucket.refill(second / 2);
        assert_eq!((bucket.level(), bucket.wait(1)), (1, Duration::ZERO));
        bucket.refill(1000 * second);
        assert!(bucket.is_full());
        assert_eq!(bucket.level(), 120);
        // Time that seems to go back changes nothing.
        bucket.take(1);
        bucket.refill(second);
        assert_eq!(bucket.level(), 119);
    }

    #[test]
    fn a_new_limit_applies_to_what_was_taken_before() {
        let mut bucket = Bucket::full(Duration::ZERO, 60);
        bucket.take(60);
        // Ten seconds at one per second, then a larger bucket.
        bucket.turn(Duration::from_secs(10), 600);
        assert_eq!(bucket.level(), 550);
        bucket.turn(Duration::from_secs(10), 40);
        assert_eq!(bucket.level(), 0);
        bucket.take(100);
        assert_eq!(bucket.wait(1), Duration::from_nanos(111 * 1_500_000_000));
        bucket.give(150);
        assert_eq!(bucket.reset(), Duration::ZERO);
    }

    #[test]
    fn the_largest_numbers_overflow_nothing() {
        let mut bucket = Bucket::full(Duration::ZERO, u64::MAX);
        bucket.take(u64::MAX);
        bucket.take(u64::MAX);
        assert_eq!(bucket.level(), 0);
        assert_eq!(bucket.wait(u64::MAX), 2 * Duration::from_secs(60));
        bucket.refill(Duration::MAX);
        assert!(bucket.is_full());
    }
}
