//! The keys that an issuer publishes: fetched in the background, kept while they serve, replaced whole.
//!
//! A token whose key is at hand never waits and never causes a fetch. `cache` decides when to fetch, `fetch` does,
//! `set` reads what came, `refresh` is the one task per issuer that drives them.

mod cache;
pub(super) mod fetch;
mod refresh;
mod resolve;
mod set;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use self::cache::{Cache, Miss};
use self::fetch::{Fetch, Outcome};
use super::keys::KeySet;

/// One issuer's published keys. Shared by the requests that read them and the task that fetches them.
#[derive(Debug)]
pub(in crate::auth) struct Remote {
    /// As configured, for logs.
    issuer: String,
    required: bool,
    /// As configured; without, the keys themselves say.
    algorithms: Option<Vec<Algorithm>>,
    fetch: Box<dyn Fetch>,
    cache: RwLock<Cache>,
    /// Wakes the task before its time.
    wake: Notify,
    /// How many fetches have ended.
    attempts: watch::Sender<u64>,
    /// Whether there is a task that will fetch.
    started: AtomicBool,
    since: Instant,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    last: RwLock<Last>,
}

/// What to say about the last fetch.
#[derive(Debug, Default)]
struct Last {
    fault: Option<String>,
    /// Said once, not at each fetch.
    dropped: Vec<String>,
    ids: Vec<String>,
}

/// How an issuer's published keys are doing, for metrics. Numbers and fixed words only.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyStats {
    /// The issuer's place in the configuration, counted from 1.
    pub issuer: usize,
    /// Fetches by how they ended: `ok`, `unreachable`, `refused` or `invalid`.
    pub fetches: [(&'static str, u64); 4],
    /// Keys that may verify now.
    pub keys: usize,
    /// Since they were fetched; `None` if they never were.
    pub age: Option<Duration>,
    /// Failed fetches since the last good one.
    pub failures: u32,
    /// Tokens refused without a fetch because they name a key that nobody has.
    pub unknown_keys: u64,
}

impl Remote {
    /// No keys yet, and nobody to fetch them: see [`Remote::run`].
    pub fn new(
        issuer: String,
        required: bool,
        algorithms: Option<Vec<Algorithm>>,
        stale_if_error: Duration,
        fetch: Box<dyn Fetch>,
    ) -> Self {
        Self {
            issuer,
            required,
            algorithms,
            fetch,
            cache: RwLock::new(Cache::new(stale_if_error)),
            wake: Notify::new(),
            attempts: watch::Sender::new(0),
            started: AtomicBool::new(false),
            since: Instant::now(),
            outcomes: Default::default(),
            last: RwLock::default(),
        }
    }

    /// The keys that serve now.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.read().keys(self.now()).cloned()
    }

    /// The algorithms that the configuration names.
    pub fn algorithms(&self) -> Option<&[Algorithm]> {
        self.algorithms.as_deref()
    }

    /// Whether any key of this issuer could serve `algorithm`.
    pub fn might_take(&self, algorithm: Algorithm) -> bool {
        match &self.algorithms {
            Some(taken) => taken.contains(&algorithm),
            None => algorithm.family() != AlgorithmFamily::Hmac,
        }
    }

    /// Where the keys come from.
    pub fn url(&self) -> String {
        self.fetch.url()
    }

    /// The issuer as configured, if `/readyz` has to wait for it.
    pub fn unready(&self) -> Option<&str> {
        (self.required && !self.read().had_keys()).then_some(self.issuer.as_str())
    }

    /// Why there are no keys, for the operator.
    pub fn complaint(&self) -> String {
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
        match &last.fault {
            Some(fault) => format!("this issuer's keys could not be fetched: {fault}"),
            None => "this issuer's keys were not fetched yet".to_owned(),
        }
    }

    /// How it is doing; `issuer` is its number.
    pub fn stats(&self, issuer: usize) -> KeyStats {
        let now = self.now();
        let cache = self.read();
        let count = |outcome: Outcome| {
            let tally = &self.outcomes[outcome as usize];
            (outcome.word(), tally.load(Ordering::Relaxed))
        };
        KeyStats {
            issuer,
            fetches: Outcome::ALL.map(count),
            keys: cache.keys(now).map_or(0, |keys| keys.len()),
            age: cache.age(now),
            failures: cache.failures(),
            unknown_keys: cache.refused_ids(),
        }
    }

    /// Returns once keys are at hand that can judge a token with this `kid`, or once it is settled that there are
    /// none, and after [`MAX_WAIT`] in any case.
    pub async fn learn(&self, kid: Option<&str>) {
        let known = |keys: Option<Arc<KeySet>>| keys.is_some_and(|keys| keys.knows(kid));
        if known(self.keys()) || !self.started.load(Ordering::Acquire) {
            return;
        }
        let mut attempts = self.attempts.subscribe();
        let miss = self.write().miss(kid, self.now());
        let Miss::Wait { after, wake } = miss else {
            return;
        };
        if wake {
            self.wake.notify_one();
        }
        let ended = attempts.wait_for(|attempts| *attempts > after);
        if let Ok(Ok(_)) = timeout(MAX_WAIT, ended).await
            && let Some(kid) = kid
        {
            let now = self.now();
            self.write().waited(kid, now);
        }
    }

    /// Time since it was made: the cache's time. Tests may move tokio's clock.
    fn now(&self) -> Duration {
        self.since.elapsed()
    }

    fn read(&self) -> RwLockReadGuard<'_, Cache> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Cache> {
        self.cache.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names and the algorithms of the keys that this JWK set gives, if it gives any, for the fuzz targets.
#[doc(hidden)]
pub fn fuzz_key_set(bytes: &[u8]) -> Option<(Vec<String>, Vec<Algorithm>)> {
    match set::parse(bytes, None) {
        Ok(set::Parsed { keys, .. }) => {
            let names = keys.ids().map(str::to_owned).collect();
            Some((names, keys.algorithms().to_vec()))
        }
        Err(error) => {
            // An error is logged: writing it down must work too.
            drop(error.to_string());
            None
        }
    }
}

/// The longest that a token waits for a fetch.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
