//! The task that fetches one issuer's keys: when they are due, or when a token asks for newer ones. There is one per
//! issuer, so that no two fetches of one issuer ever run at the same time.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use aws_lc_rs::rand;
use tokio::time::sleep_until;

use super::fetch::{FetchError, Fetched, Outcome};
use super::set::{self, Parsed};
use super::{Last, Remote};

impl Remote {
    /// Fetches, for ever. To be spawned once.
    pub async fn run(self: Arc<Self>) {
        self.started.store(true, Ordering::Release);
        loop {
            let due = {
                let cache = self.read();
                (!cache.wants_fetch(self.now())).then(|| cache.due())
            };
            match due {
                None => self.refresh().await,
                Some(due) => tokio::select! {
                    () = sleep_until(self.since + due) => {}
                    () = self.wake.notified() => {}
                },
            }
        }
    }

    /// Marks that [`Remote::run`] was or will be spawned, so that tokens may wait for it.
    pub fn mark_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Fetches once, now.
    pub async fn refresh(&self) {
        let begun = self.now();
        self.write().begin(begun);
        let fetched = self.fetch.fetch().await.and_then(|fetched| {
            let Fetched { body, max_age } = fetched;
            match set::parse(&body, self.algorithms()) {
                Ok(parsed) => Ok((parsed, max_age)),
                Err(error) => Err(FetchError::Set(error)),
            }
        });
        let now = self.now();
        let outcome = match fetched {
            Ok((parsed, max_age)) => {
                let Parsed { keys, dropped } = parsed;
                let keys = Arc::new(keys);
                self.write().succeed(keys.clone(), max_age, now, jitter());
                self.report_success(keys.ids().map(str::to_owned).collect(), dropped);
                Outcome::Ok
            }
            Err(error) => {
                let outcome = error.outcome();
                self.fetch.failed();
                self.write().fail(now, jitter());
                self.report_failure(&error);
                outcome
            }
        };
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        let attempts = self.read().attempts();
        self.attempts.send_replace(attempts);
    }

    /// Says what is new, and nothing twice.
    fn report_success(&self, ids: Vec<String>, dropped: Vec<String>) {
        let mut last = self.last.write().unwrap_or_else(PoisonError::into_inner);
        let issuer = &*self.issuer;
        if last.fault.is_some() || last.ids != ids {
            tracing::info!(issuer, kids = ?ids, "fetched an issuer's keys");
        }
        if last.dropped != dropped {
            for fault in &dropped {
                tracing::warn!(issuer, fault, "a published key is not taken");
            }
        }
        *last = Last {
            fault: None,
            dropped,
            ids,
        };
    }

    fn report_failure(&self, error: &FetchError) {
        let fault = error.to_string();
        let (failures, serving) = {
            let cache = self.read();
            (cache.failures(), cache.keys(self.now()).is_some())
        };
        let issuer = &*self.issuer;
        let next = match serving {
            true => "those at hand go on serving",
            false => "its tokens are answered with 503",
        };
        tracing::warn!(
            issuer,
            fault,
            failures,
            next,
            "an issuer's keys could not be fetched"
        );
        let mut last = self.last.write().unwrap_or_else(PoisonError::into_inner);
        last.fault = Some(fault);
    }
}

/// From -1 to 1. Without randomness, 0: many servers then come at once, which is no reason not to come.
fn jitter() -> f64 {
    let mut bytes = [0; 4];
    match rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX) * 2.0 - 1.0,
        Err(_) => 0.0,
    }
}
