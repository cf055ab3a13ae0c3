//! When to fetch keys, and how long those at hand serve. Pure: time is an argument, and nothing here fetches.
//!
//! ```text
//!  fetched            due (± 10 %)                        due + stale_if_error
//!     |---- serve --------|---- serve, and try to fetch ------------|---- 503
//! ```

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::super::keys::KeySet;

/// The state of one issuer's fetched keys.
#[derive(Debug)]
pub(super) struct Cache {
    keys: Option<Arc<KeySet>>,
    fetched: Option<Duration>,
    /// From when on the keys at hand are too old to serve.
    serve_until: Duration,
    stale_if_error: Duration,
    /// When the next fetch is due by itself.
    due: Duration,
    /// A token has asked for a fetch before that.
    asked: bool,
    in_flight: bool,
    /// Fetches that have ended.
    attempts: u64,
    /// Failures since the last success.
    failures: u32,
    asking: Bucket,
    unknown: Unknown,
    /// Tokens refused for a key id that nobody has.
    refused_ids: u64,
}

/// What to do about a token whose key is not at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Miss {
    /// Refuse it now.
    Refuse,
    /// A fetch is under way or due: wait until more than `after` have ended. `wake` whoever fetches, if so told.
    Wait { after: u64, wake: bool },
}

impl Cache {
    /// Empty, with the first fetch due at once.
    pub fn new(stale_if_error: Duration) -> Self {
        Self {
            keys: None,
            fetched: None,
            serve_until: Duration::ZERO,
            stale_if_error,
            due: Duration::ZERO,
            asked: false,
            in_flight: false,
            attempts: 0,
            failures: 0,
            asking: Bucket::default(),
            unknown: Unknown::default(),
            refused_ids: 0,
        }
    }

    /// The keys that serve at `now`.
    pub fn keys(&self, now: Duration) -> Option<&Arc<KeySet>> {
        self.keys.as_ref().filter(|_| now < self.serve_until)
    }

    /// Whether there ever were any.
    pub fn had_keys(&self) -> bool {
        self.fetched.is_some()
    }

    /// Age of the keys at hand.
    pub fn age(&self, now: Duration) -> Option<Duration> {
        self.fetched.map(|fetched| now.saturating_sub(fetched))
    }

    /// Whether to fetch at `now`.
    pub fn wants_fetch(&self, now: Duration) -> bool {
        !self.in_flight && (self.asked || self.due <= now)
    }

    /// When the next fetch is due by itself.
    pub fn due(&self) -> Duration {
        self.due
    }

    pub fn refused_ids(&self) -> u64 {
        self.refused_ids
    }

    /// What to do about a token with this `kid`, which is not among the keys at `now`.
    pub fn miss(&mut self, kid: Option<&str>, now: Duration) -> Miss {
        if kid.is_some_and(|kid| self.unknown.has(kid, now)) {
            self.refused_ids += 1;
            return Miss::Refuse;
        }
        let after = self.attempts;
        if self.in_flight || self.wants_fetch(now) {
            return Miss::Wait { after, wake: false };
        }
        // After a failure the schedule alone decides: tokens must not make an ailing provider's day worse.
        if self.failures > 0 || !self.asking.take(now) {
            self.refused_ids += 1;
            return Miss::Refuse;
        }
        self.asked = true;
        Miss::Wait { after, wake: true }
    }

    /// A fetch begins.
    pub fn begin(&mut self, now: Duration) {
        if !self.asked {
            self.asking.charge(now);
        }
        self.asked = false;
        self.in_flight = true;
    }

    /// A fetch has brought these keys, which replace all earlier ones. `max_age` is what the provider says of them,
    /// `jitter` is from -1 to 1.
    pub fn succeed(
        &mut self,
        keys: Arc<KeySet>,
        max_age: Option<Duration>,
        now: Duration,
        jitter: f64,
    ) {
        let interval = max_age.unwrap_or(MIN_REFRESH);
        let interval = spread(interval.clamp(MIN_REFRESH, MAX_REFRESH), jitter);
        self.keys = Some(keys);
        self.fetched = Some(now);
        self.failures = 0;
        self.due = now + interval;
        self.serve_until = self.due + self.stale_if_error;
        self.end();
    }

    /// A fetch has failed. Earlier keys go on serving for their time.
    pub fn fail(&mut self, now: Duration, jitter: f64) {
        let back_off = FIRST_RETRY * (1 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        self.due = now + spread(back_off.min(LAST_RETRY), jitter);
        self.end();
    }

    /// A token has waited for a fetch, which has ended: if its key is still not there, others of its `kid` need not
    /// wait.
    pub fn waited(&mut self, kid: &str, now: Duration) {
        if self.failures > 0 || self.keys.as_ref().is_some_and(|keys| keys.knows(Some(kid))) {
            return;
        }
        self.unknown.add(kid, now);
    }

    fn end(&mut self) {
        self.in_flight = false;
        self.attempts += 1;
    }

    /// Fetches that have ended.
    pub fn attempts(&self) -> u64 {
        self.attempts
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

fn spread(interval: Duration, jitter: f64) -> Duration {
    interval.mul_f64(1.0 + JITTER * jitter.clamp(-1.0, 1.0))
}

/// Lets tokens of unknown keys cause one fetch per [`ASK_EVERY`], two after a pause.
#[derive(Debug, Default)]
struct Bucket {
    /// When it will be full again.
    full: Duration,
}

impl Bucket {
    fn take(&mut self, now: Duration) -> bool {
        let free = self.full <= now + ASK_EVERY * (ASK_BURST - 1);
        if free {
            self.full = self.full.max(now) + ASK_EVERY;
        }
        free
    }

    /// A fetch that no token asked for counts as one, if there is one left.
    fn charge(&mut self, now: Duration) {
        self.take(now);
    }
}

/// Key ids that a fetch has just shown to be nobody's.
#[derive(Debug, Default)]
struct Unknown {
    ids: HashSet<Arc<str>>,
    /// The same, oldest first, with the end of their time.
    order: VecDeque<(Duration, Arc<str>)>,
}

impl Unknown {
    fn has(&mut self, kid: &str, now: Duration) -> bool {
        while let Some((until, _)) = self.order.front()
            && *until <= now
        {
            self.drop_oldest();
        }
        self.ids.contains(kid)
    }

    fn add(&mut self, kid: &str, now: Duration) {
        if self.has(kid, now) {
            return;
        }
        if self.order.len() >= MAX_UNKNOWN {
            self.drop_oldest();
        }
        let kid: Arc<str> = kid.into();
        self.ids.insert(kid.clone());
        self.order.push_back((now + UNKNOWN_FOR, kid));
    }

    fn drop_oldest(&mut self) {
        if let Some((_, kid)) = self.order.pop_front() {
            self.ids.remove(&kid);
        }
    }
}

/// Keys are fetched anew after their `max-age`, within these bounds; after the least where nothing is said.
pub(super) const MIN_REFRESH: Duration = Duration::from_secs(5 * 60);
pub(super) const MAX_REFRESH: Duration = Duration::from_secs(3600);
/// Part of an interval by which it is longer or shorter, so that many servers do not come at once.
const JITTER: f64 = 0.1;
/// After a failure: 1, 2, 4 … 60 s.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_secs(30);
const ASK_BURST: u32 = 2;
const MAX_UNKNOWN: usize = 1024;
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
