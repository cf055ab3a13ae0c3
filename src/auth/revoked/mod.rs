//! Rights that were taken away, and the running requests that must hear of it.
//!
//! A request is registered before it is compared with the revocations in force, and new revocations are in force before
//! they are compared with the registered requests: whatever the order, no request slips through between.

mod books;
#[cfg(test)]
mod tests;
mod wording;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::denied::Reason;
use super::{Credential, Denied, Expiry, Identity, Revocation, Rights};
use crate::clock::{Clock, Uptime};
use crate::ledger::RevocationRecord;

use books::Books;
pub use wording::{REVOCABLE, RevocationError, revocation, revoked_name, revoked_words};

/// The revocations in force and the live requests.
#[derive(Debug)]
pub struct Revoked {
    books: RwLock<Arc<Books>>,
    live: Mutex<Live>,
    clock: Clock,
    uptime: Uptime,
}

#[derive(Debug, Default)]
struct Live {
    next: u64,
    requests: HashMap<u64, (Arc<Identity>, Revocation)>,
}

impl Default for Revoked {
    fn default() -> Self {
        Self::new(Clock::system(), Uptime::start())
    }
}

impl Revoked {
    /// Nothing is revoked. Credentials expire by `clock`; `uptime` keeps a step of that clock from ending requests.
    pub fn new(clock: Clock, uptime: Uptime) -> Self {
        Self {
            books: RwLock::default(),
            live: Mutex::default(),
            clock,
            uptime,
        }
    }

    /// Whether `identity` is still good. The same time, however many revocations there are.
    ///
    /// # Errors
    /// 401 `token_revoked`, or `invalid_api_key` for an API key.
    pub fn check(&self, identity: &Identity) -> Result<(), Denied> {
        let reason = match identity.credential() {
            Credential::ApiKey => Reason::InvalidApiKey,
            Credential::Token | Credential::Certificate => Reason::TokenRevoked,
        };
        match self.books().revokes(identity, self.clock.unix_seconds()) {
            None => Ok(()),
            Some(by) => Err(Denied::new(reason, format!("revoked by {by}"))),
        }
    }

    /// Puts these revocations in force, instead of all earlier ones, and ends what runs under them.
    pub fn replace(&self, records: Vec<RevocationRecord>) {
        let books = Arc::new(Books::new(records));
        *self.books.write().unwrap_or_else(PoisonError::into_inner) = books.clone();
        let now = self.clock.unix_seconds();
        for (identity, revocation) in self.live().requests.values() {
            if books.revokes(identity, now).is_some() {
                revocation.revoke();
            }
        }
    }

    /// Ends `revocation`'s request when `identity` is revoked, and tells when its credential has expired and `rights` do
    /// not let it go on; for as long as the result lives.
    pub fn watch(
        self: &Arc<Self>,
        identity: &Arc<Identity>,
        rights: &Arc<Rights>,
        revocation: Revocation,
    ) -> Watched {
        let number = {
            let mut live = self.live();
            let number = live.next;
            live.next += 1;
            let request = (identity.clone(), revocation.clone());
            live.requests.insert(number, request);
            number
        };
        // It may have been revoked since its caller was let in.
        if self
            .books()
            .revokes(identity, self.clock.unix_seconds())
            .is_some()
        {
            revocation.revoke();
        }
        let good_until = identity.good_until().map(|second| self.moment(second));
        Watched {
            ends: good_until.and_then(|moment| match rights.on_expiry {
                Expiry::Finish => None,
                Expiry::Grace(grace) => Some(moment.later(grace)),
                Expiry::Cut => Some(moment),
            }),
            good_until,
            revocation,
            of: self.clone(),
            number,
        }
    }

    /// Whether it is that late, by both clocks.
    fn has_come(&self, moment: Moment) -> bool {
        moment.since_epoch <= self.clock.since_epoch() && moment.uptime <= self.uptime.now()
    }

    fn moment(&self, unix_second: u64) -> Moment {
        let since_epoch = Duration::from_secs(unix_second);
        let left = since_epoch.saturating_sub(self.clock.since_epoch());
        Moment {
            since_epoch,
            uptime: self.uptime.now().saturating_add(left),
        }
    }

    fn books(&self) -> Arc<Books> {
        self.books
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A time by two clocks. The system's clock may be set forward by mistake, and that must not end a stream; the other one
/// only runs.
#[derive(Debug, Clone, Copy)]
struct Moment {
    since_epoch: Duration,
    uptime: Duration,
}

impl Moment {
    fn later(self, by: Duration) -> Self {
        Self {
            since_epoch: self.since_epoch.saturating_add(by),
            uptime: self.uptime.saturating_add(by),
        }
    }
}

/// Why a request must end that its caller did not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// Its right was taken away.
    Revoked,
    /// Its credential has expired.
    Expired,
}

/// A live request that will hear of its revocation. Dropping it forgets the request.
#[derive(Debug)]
pub struct Watched {
    of: Arc<Revoked>,
    number: u64,
    revocation: Revocation,
    /// When its credential expires: nothing begins after that.
    good_until: Option<Moment>,
    /// When it must end although it has begun.
    ends: Option<Moment>,
}

impl Watched {
    /// Whether the request must end now. `begun`: it has run before, so that its rights may let it go on.
    ///
    /// Asked in every step for every request: two loads, and the clocks only where there is an end.
    pub fn withdrawn(&self, begun: bool) -> Option<Withdrawn> {
        if self.revocation.is_revoked() {
            return Some(Withdrawn::Revoked);
        }
        let end = if begun { self.ends } else { self.good_until };
        end.filter(|&end| self.of.has_come(end))
            .map(|_| Withdrawn::Expired)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.of.live().requests.remove(&self.number);
    }
}
