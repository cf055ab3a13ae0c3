//! What a caller hears whom a limit stops.

use std::time::Duration;

use super::Measure;
use super::counters::Count;
use super::hold::Bound;
use crate::auth::Denied;
use crate::auth::denied::Reason;

/// A refusal, and how bad it is.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Coming again does not help.
    lasting: bool,
    wait: Duration,
    pub(super) denied: Denied,
}

/// The one to be told: of what lasts and what passes, what lasts; of what passes, what passes last.
pub(super) fn worse(one: Option<Refusal>, other: Option<Refusal>) -> Option<Refusal> {
    let rank = |refusal: &Refusal| (refusal.lasting, refusal.wait);
    match (one, other) {
        (Some(one), Some(other)) if rank(&other) > rank(&one) => Some(other),
        (Some(one), _) => Some(one),
        (None, other) => other,
    }
}

/// Why `bound` does not give `amount`. `own`: what the request has of it already; `reserved`: what open requests hold
/// of it and may give back.
pub(super) fn of(bound: &Bound, count: &Count, amount: u64, own: u64, reserved: u64) -> Refusal {
    let limit = bound.most;
    let detail = |left: u64, of: &str| {
        let per = bound.per;
        format!("{amount} more {of} of this {per}, {left} of {limit} left")
    };
    let passes = |wait, reason, detail| Refusal {
        lasting: false,
        wait,
        denied: Denied::new(reason, detail),
    };
    let lasts = |reason, detail| Refusal {
        lasting: true,
        wait: Duration::ZERO,
        denied: Denied::new(reason, detail),
    };
    match count {
        Count::Bucket(bucket) => {
            let of = match bound.measure {
                Measure::RequestsPerMinute => "requests",
                _ => "tokens",
            };
            let detail = detail(bucket.level(), of);
            if amount > limit && of == "tokens" {
                let period = "minute";
                return lasts(Reason::InsufficientQuota { period, limit }, detail);
            }
            let retry_after = bucket.wait(amount);
            let reason = Reason::RateLimit {
                of,
                limit,
                retry_after,
            };
            passes(retry_after, reason, detail)
        }
        Count::Slots(taken) => {
            let detail = detail(limit.saturating_sub(*taken), "sequences");
            if amount + own > limit && own > 0 {
                let reason = Reason::ParameterNotAllowed {
                    param: "n",
                    most: Some(limit),
                };
                return lasts(reason, detail);
            }
            passes(SOON, Reason::Concurrency { limit }, detail)
        }
        Count::Budget(budget) => {
            let period = budget.span.word();
            let used = budget.taken.saturating_sub(reserved);
            let detail = detail(limit.saturating_sub(budget.taken), "tokens");
            if amount > limit.saturating_sub(used) {
                return lasts(Reason::InsufficientQuota { period, limit }, detail);
            }
            passes(SOON, Reason::BudgetReserved { period, limit }, detail)
        }
    }
}

/// Nothing is wrong with the caller; there is no room to count it.
pub(super) fn table_full(counters: usize) -> Denied {
    let detail = format!("{counters} limits are being counted, which is the most");
    Denied::new(Reason::TooManyCallers, detail)
}

/// When somebody else's end may have made room: nobody knows better.
const SOON: Duration = Duration::from_secs(1);
