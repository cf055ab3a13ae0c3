//! How much of what a caller may do: rates, concurrency and budgets, by reservation.
//!
//! A request takes what it may use before it queues, all of it or nothing; it uses that up token by token, without a lock,
//! and what is left goes back when it ends, however it ends. What was used and what is reserved are both out of reach of
//! others, so that no number of requests at the same time goes over a budget, not by one token.
//!
//! - **Budgets** (day, month, by UTC) are never exceeded: whose next token is not covered ends. At midnight what is
//!   reserved moves to the new period.
//! - **Rates** (a minute) limit what starts: what runs is not cut by them, but what it takes beyond a full bucket delays
//!   its caller's next requests.
//! - **A refused request** is charged nothing if it was refused at admission. One that is refused when its prompt is
//!   known has been read and tokenised, and counts as a request.
//! - **A change of the policy** leaves the counts as they are; requests that are open keep the limits that they came with.
//!
//! Bookkeeping only: time comes from the clocks that it is given, nothing here waits.

mod bearer;
mod book;
mod bucket;
mod calendar;
mod counters;
mod hold;
mod refusal;
mod slab;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Denied, Identity, Rights, TokensUsed, WhenShort};
use crate::clock::{Clock, Uptime};
use crate::ledger::BudgetRecord;
use book::{Book, Size};
use counters::{Counters, Name};
use hold::Hold;

/// One limit: so much of a measure, counted for each bearer of a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limit {
    /// What is counted.
    pub measure: Measure,
    /// Whose use is counted together.
    pub per: Per,
    /// At most this many.
    pub most: u64,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Measure {
    /// Requests admitted, a bucket refilled over a minute.
    RequestsPerMinute,
    /// Prompt and completion tokens, a bucket refilled over a minute.
    TokensPerMinute,
    /// Sequences that wait or run at the same time.
    ConcurrentSequences,
    /// Prompt and completion tokens of one UTC day.
    TokensPerDay,
    /// Prompt and completion tokens of one UTC month.
    TokensPerMonth,
}

/// Whose use is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Per {
    /// Each subject of an issuer.
    Subject,
    /// Each tenant; a subject without tenant is one of its own.
    Tenant,
    /// Each client application; callers without one share a single count.
    Client,
    /// Each value of this claim (a name, or a path that starts with a slash); callers without it share a single count.
    Claim(Box<str>),
}

/// All counters.
pub struct Limits {
    clock: Clock,
    uptime: Uptime,
    book: Mutex<Book>,
}

impl Limits {
    /// None used yet. `clock` tells days and months, `uptime` refills the buckets.
    pub fn new(clock: Clock, uptime: Uptime) -> Self {
        Self::with_room(MOST_COUNTERS, clock, uptime)
    }

    fn with_room(most: usize, clock: Clock, uptime: Uptime) -> Self {
        let counters = Counters::new(most, uptime.now(), clock.unix_seconds());
        Self {
            clock,
            uptime,
            book: Mutex::new(Book::new(counters)),
        }
    }

    /// Counts one request against its caller's rate and takes one concurrency slot, before the body is read.
    ///
    /// # Errors
    /// 429 with the time after which it may come again, or that a budget is spent; nothing is charged then.
    pub(in crate::auth) fn admit(
        self: &Arc<Self>,
        identity: &Identity,
        rights: &Arc<Rights>,
    ) -> Result<Admission, Denied> {
        let hold = match rights.limits.is_empty() {
            true => None,
            false => Some(self.book().admit(named(identity, &rights.limits))?),
        };
        Ok(Admission {
            limits: self.clone(),
            when_short: rights.when_short,
            hold,
        })
    }

    /// Where whoever has these rights stands now, for response headers.
    pub fn standing(&self, identity: &Identity, rights: &Rights) -> RateLimits {
        if rights.limits.is_empty() {
            return RateLimits::default();
        }
        let named = named(identity, &rights.limits).into_iter();
        let limits = named.map(|(name, limit)| (name, limit.most));
        self.book().standing(limits, self.clock.since_epoch())
    }

    /// Takes over what the ledger knew when the process started. What is not of the current day or month is left out.
    pub fn restore(&self, budgets: &[BudgetRecord]) {
        self.book().restore(budgets);
    }

    /// The budgets that have changed since the last call, for the ledger: what was used by now, running requests
    /// included, in the whole of the period.
    pub fn changed_budgets(&self) -> Vec<BudgetRecord> {
        self.book().changed_budgets()
    }

    /// The counters as of now. Held for a few look-ups at a time, never across a wait.
    fn book(&self) -> MutexGuard<'_, Book> {
        // Plain numbers, whole at all times: a panic elsewhere does not spoil them.
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.turn(self.uptime.now(), self.clock.unix_seconds());
        book
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

/// Each counter once: where two limits have the same, the smaller.
fn named<'a>(identity: &Identity, limits: &'a [Limit]) -> Vec<(Name, &'a Limit)> {
    let mut named: Vec<(Name, &Limit)> = Vec::with_capacity(limits.len());
    for limit in limits {
        let name = Name::new(limit.measure, limit.per.bearer(identity));
        match named.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) if known.most <= limit.most => {}
            Some((_, known)) => *known = limit,
            None => named.push((name, limit)),
        }
    }
    named
}

/// What one admitted request holds of its caller's limits. Dropping it gives back what is left.
#[derive(Debug)]
pub(in crate::auth) struct Admission {
    limits: Arc<Limits>,
    when_short: WhenShort,
    /// `None`: nothing limits it.
    hold: Option<(usize, Arc<Hold>)>,
}

impl Admission {
    /// Reserves `prompt` tokens and up to `max_tokens` for each of `n` sequences. `explicit`: the caller has named
    /// `max_tokens`; otherwise completions are reserved piece by piece as they grow. Called once.
    pub fn reserve(
        &self,
        prompt: usize,
        n: u32,
        max_tokens: usize,
        explicit: bool,
    ) -> Result<(), Denied> {
        let Some((id, _)) = self.hold else {
            return Ok(());
        };
        let size = Size {
            prompt: prompt as u64,
            n: n.max(1).into(),
            max_tokens: max_tokens.max(1) as u64,
            explicit,
        };
        self.limits.book().reserve(id, size, self.when_short)
    }

    /// One token was generated by one of the sequences. A few nanoseconds while what was reserved lasts.
    pub fn charge(&self) -> Charge {
        match &self.hold {
            Some((id, hold)) if !hold.charge() => self.limits.book().top_up(*id),
            _ => Charge::Covered,
        }
    }

    /// One sequence has ended and has used this; the prompt is in the first one's number.
    pub fn settle(&self, used: TokensUsed) {
        if let Some((id, _)) = self.hold {
            self.limits.book().settle(id, used);
        }
    }

    /// Where the caller stands now, for response headers.
    pub fn standing(&self) -> RateLimits {
        let standing = |&(id, _)| {
            let since_epoch = self.limits.clock.since_epoch();
            self.limits.book().standing_of(id, since_epoch)
        };
        self.hold.as_ref().map(standing).unwrap_or_default()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some((id, _)) = self.hold {
            self.limits.book().release(id);
        }
    }
}

/// Whether a sequence may go on after a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// Its next token is covered too.
    Covered,
    /// The token just generated was its last: a budget is spent.
    Spent,
}

/// The numbers of `x-ratelimit-*`, outstanding reservations included; `None` where nothing limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// Of requests.
    pub requests: Option<Standing>,
    /// Of tokens.
    pub tokens: Option<Standing>,
}

/// Where a caller stands with one limit, the tightest of its measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The most.
    pub limit: u64,
    /// What is left.
    pub remaining: u64,
    /// Until the limit is whole again.
    pub reset: Duration,
}

/// About 200 MiB at worst, of callers who all have something to count: 2²⁰ × (some 120 B + 56 B to find them by). Idle
/// counters are forgotten long before. Beyond it new callers are refused rather than let through uncounted.
const MOST_COUNTERS: usize = 1 << 20;
