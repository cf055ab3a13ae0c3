//! What limits do to one caller and to many, by clocks that stand still.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::auth::denied::Reason;
use crate::clock::{ManualClock, ManualUptime};

mod keys;
mod model;

/// Limits and the hands on their clocks.
struct Desk {
    limits: Arc<Limits>,
    clock: ManualClock,
    uptime: ManualUptime,
}

impl Desk {
    /// Noon of 2026-11-30, UTC.
    fn open() -> Self {
        Self::with_room(MOST_COUNTERS)
    }

    fn with_room(most: usize) -> Self {
        let (clock, hand) = Clock::manual(NOON);
        let (uptime, running) = Uptime::manual();
        Self {
            limits: Arc::new(Limits::with_room(most, clock, uptime)),
            clock: hand,
            uptime: running,
        }
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.uptime.advance(time);
    }

    fn admit(&self, subject: &str, rights: &Arc<Rights>) -> Result<Admission, Denied> {
        self.limits.admit(&Identity::for_tests(subject), rights)
    }

    fn remaining(&self, rights: &Rights) -> u64 {
        let standing = self.limits.standing(&ann(), rights);
        standing.tokens.unwrap().remaining
    }

    /// Used, by period.
    fn changed(&self) -> Vec<(String, u64)> {
        let changed = self.limits.changed_budgets();
        let mut changed: Vec<_> = changed
            .into_iter()
            .map(|record| (record.period, record.tokens))
            .collect();
        changed.sort();
        changed
    }
}

const NOON: u64 = 1_796_040_000;
const SECOND: Duration = Duration::from_secs(1);

fn ann() -> Identity {
    Identity::for_tests("ann")
}

fn rights(limits: &[(Measure, u64)]) -> Arc<Rights> {
    let limit = |&(measure, most)| Limit {
        measure,
        per: Per::Subject,
        most,
    };
    Arc::new(Rights {
        limits: limits.iter().map(limit).collect(),
        ..Rights::default()
    })
}

fn strict(limits: &[(Measure, u64)]) -> Arc<Rights> {
    Arc::new(Rights {
        when_short: WhenShort::Refuse,
        ..Rights::clone(&rights(limits))
    })
}

fn used(prompt: usize, completion: usize) -> TokensUsed {
    TokensUsed {
        prompt,
        cached: 0,
        completion,
    }
}

fn reason(denied: Denied) -> Reason {
    denied.reason()
}

/// Charges until it is spent, `most` times at most; how often.
fn drink(admission: &Admission, most: usize) -> usize {
    (1..=most)
        .find(|_| admission.charge() == Charge::Spent)
        .unwrap_or(most)
}

#[test]
fn without_limits_nothing_is_counted() {
    let desk = Desk::open();
    let admission = desk.admit("ann", &Arc::default()).unwrap();
    admission
        .reserve(usize::MAX, u32::MAX, usize::MAX, true)
        .unwrap();
    assert_eq!(admission.charge(), Charge::Covered);
    assert_eq!(admission.standing(), RateLimits::default());
    assert_eq!(desk.limits.book().num_counters(), 0);
}

#[test]
fn a_request_over_the_rate_hears_exactly_when_it_may_come_again() {
    let desk = Desk::open();
    let rights = rights(&[(Measure::RequestsPerMinute, 3)]);
    for _ in 0..3 {
        desk.admit("ann", &rights).unwrap();
    }
    let over = |retry_after| Reason::RateLimit {
        of: "requests",
        limit: 3,
        retry_after,
    };
    let denied = desk.admit("ann", &rights).unwrap_err();
    assert_eq!(reason(denied), over(20 * SECOND));
    assert!(desk.admit("bob", &rights).is_ok());
    desk.pass(5 * SECOND);
    // The refusal was free of charge.
    let denied = desk.admit("ann", &rights).unwrap_err();
    assert_eq!(reason(denied), over(15 * SECOND));
    desk.pass(15 * SECOND);
    assert!(desk.admit("ann", &rights).is_ok());
    assert!(desk.admit("ann", &rights).is_err());
}

#[test]
fn a_request_that_one_limit_refuses_costs_nothing_of_the_others() {
    let desk = Desk::open();
    let rights = rights(&[
        (Measure::RequestsPerMinute, 10),
        (Measure::ConcurrentSequences, 1),
    ]);
    let first = desk.admit("ann", &rights).unwrap();
    for _ in 0..20 {
        let denied = desk.admit("ann", &rights).unwrap_err();
        assert_eq!(reason(denied), Reason::Concurrency { limit: 1 });
    }
    drop(first);
    let standing = desk.admit("ann", &rights).unwrap().standing();
    assert_eq!(standing.requests.unwrap().remaining, 8);
    assert_eq!(standing.tokens, None);
}

#[test]
fn each_sequence_has_a_place_until_it_ends() {
    let desk = Desk::open();
    let rights = rights(&[(Measure::ConcurrentSequences, 3)]);
    let three = desk.admit("ann", &rights).unwrap();
    three.reserve(5, 3, 10, true).unwrap();
    assert!(desk.admit("ann", &rights).is_err());
    three.settle(used(5, 1));
    let fourth = desk.admit("ann", &rights).unwrap();
    let denied = fourth.reserve(5, 2, 10, true).unwrap_err();
    assert_eq!(reason(denied), Reason::Concurrency { limit: 3 });
    three.settle(used(0, 1));
    fourth.reserve(5, 2, 10, true).unwrap();
    drop((three, fourth));
    let denied = desk.admit("ann", &rights).unwrap().reserve(5, 4, 10, true);
    let never = Reason::ParameterNotAllowed {
        param: "n",
        most: Some(3),
    };
    assert_eq!(reason(denied.unwrap_err()), never);
    assert_eq!(desk.limits.book().num_counters(), 0);
}

#[test]
fn what_is_named_is_reserved_whole_and_what_is_left_comes_back() {
    let desk = Desk::open();
    let rights = rights(&[(Measure::TokensPerDay, 1000)]);
    let admission = desk.admit("ann", &rights).unwrap();
    admission.reserve(100, 2, 200, true).unwrap();
    assert_eq!(desk.remaining(&rights), 500);
    assert_eq!(drink(&admission, 30), 30);
    assert_eq!(desk.remaining(&rights), 500);
    // The one that ends gives back what it cannot use any more.
    admission.settle(used(100, 10));
    assert_eq!(desk.remaining(&rights), 690);
    admission.settle(used(0, 20));
    assert_eq!(desk.remaining(&rights), 870);
    drop(admission);
    assert_eq!(desk.remaining(&rights), 870);
    assert_eq!(desk.changed(), [("2026-11-30".to_owned(), 130)]);
    assert_eq!(desk.changed(), []);
}

#[test]
fn what_is_not_named_is_reserved_piece_by_piece() {
    let desk = Desk::open();
    let rights = rights(&[(Measure::TokensPerDay, 1000)]);
    let admission = desk.admit("ann", &rights).unwrap();
    admission.reserve(100, 1, 30_000, false).unwrap();
    assert_eq!(desk.remaining(&rights), 1000 - 100 - 256);
    assert_eq!(drink(&admission, 255), 255);
    assert_eq!(desk.remaining(&rights), 644);
    assert_eq!(admission.charge(), Charge::Covered);
    assert_eq!(desk.remaining(&rights), 644 - 256);
    assert_eq!(drink(&admission, 10_000), 900 - 256);
    admission.settle(used(100, 900));
    drop(admission);
    assert_eq!(desk.remaining(&rights), 0);
    let quota = Reason::InsufficientQuota {
        period: "day",
        limit: 1000,
    };
    assert_eq!(reason(desk.admit("ann", &rights).unwrap_err()), quota);
}

#[test]
fn a_budget_that_covers_a_part_is_used_to_the_last_token() {
    let desk = Desk::open();
    let limits = [(Measure::TokensPerMonth, 100)];
    let refused = desk
        .admit("ann", &strict(&limits))
        .unwrap()
        .reserve(50, 2, 40, true);
    let quota = Reason::InsufficientQuota {
        period: "month",
        limit: 100,
    };
    assert_eq!(reason(refused.unwrap_err()), quota);
    let rights = rights(&limits);
    let admission = desk.admit("ann", &rights).unwrap();
    admission.reserve(50, 2, 40, true).unwrap();
    assert_eq!(desk.remaining(&rights), 0);
    // One of two is cut when there is one token left, which the other has.
    assert_eq!(drink(&admission, 80), 49);
    admission.settle(used(50, 25));
    assert_eq!(admission.charge(), Charge::Spent);
    admission.settle(used(0, 25));
    drop(admission);
    assert_eq!(desk.changed(), [("2026-11".to_owned(), 100)]);
    let small = desk.admit("ann", &strict(&limits)).unwrap_err();
    assert_eq!(reason(small), quota);
}

#[test]
fn what_others_have_reserved_may_come_back_soon() {
    let desk = Desk::open();
    let rights = rights(&[(Measure::TokensPerDay, 100)]);
    let first = desk.admit("ann", &rights).unwrap();
    let second = desk.admit("ann", &rights).unwrap();
    first.reserve(10, 1, 80, true).unwrap();
    let denied = second.reserve(20, 1, 5, true).unwrap_err();
    let reserved = Reason::BudgetReserved {
        period: "day",
        limit: 100,
    };
    assert_eq!((denied.status(), reason(denied)), (429, reserved));
    assert_eq!(drink(&first, 5), 5);
    first.settle(used(10, 5));
    drop(first);
    second.reserve(20, 1, 5, true).unwrap();
    let denied = desk.admit("ann", &rights).unwrap().reserve(90, 1, 5, true);
    let quota = Reason::InsufficientQuota {
        period: "day",
        limit: 100,
    };
    assert_eq!(reason(denied.unwrap_err()), quota);
}

#[test]
fn a_completion_goes_on_with_what_another_gave_back() {
    let desk = Desk::open();
    let rights = rights(&[(Measure::TokensPerDay, 100)]);
    let first = desk.admit("ann", &rights).unwrap();
    first.reserve(10, 1, 50, true).unwrap();
    let second = desk.admit("ann", &rights).unwrap();
    second.reserve(10, 1, 50, true).unwrap();
    assert_eq!(drink(&second, 29), 29);
    drop(first);
    assert_eq!(drink(&second, 21), 21);
}

#[test]
fn the_rate_of_a_minute_delays_what_starts_and_cuts_nothing_that_runs() {
    let desk = Desk::open();
    let rights = rights(&[(Measure::TokensPerMinute, 600)]);
    let admission = desk.admit("ann", &rights).unwrap();
    admission.reserve(100, 1, 5000, true).unwrap();
    assert_eq!(desk.remaining(&rights), 0);
    assert_eq!(drink(&admission, 1000), 1000);
    admission.settle(used(100, 1000));
    drop(admission);
    // 500 tokens below nothing, ten per second come back.
    let rate = |seconds| Reason::RateLimit {
        of: "tokens",
        limit: 600,
        retry_after: Duration::from_millis(seconds),
    };
    assert_eq!(
        reason(desk.admit("ann", &rights).unwrap_err()),
        rate(50_200)
    );
    desk.pass(60 * SECOND);
    let admission = desk.admit("ann", &rights).unwrap();
    let denied = admission.reserve(149, 1, 5, true).unwrap_err();
    assert_eq!(reason(denied), rate(5_000));
    let denied = admission.reserve(600, 1, 5, true).unwrap_err();
    let never = Reason::InsufficientQuota {
        period: "minute",
        limit: 600,
    };
    assert_eq!(reason(denied), never);
    admission.reserve(99, 1, 5, true).unwrap();
}

#[test]
fn tokens_are_taken_of_all_limits_or_of_none() {
    let desk = Desk::open();
    let limits = [
        (Measure::TokensPerMinute, 10_000),
        (Measure::TokensPerDay, 1000),
        (Measure::TokensPerMonth, 150),
        (Measure::ConcurrentSequences, 5),
    ];
    let all = rights(&limits);
    let admission = desk.admit("ann", &all).unwrap();
    assert!(admission.reserve(150, 4, 10, true).is_err());
    for limit in &limits[..3] {
        assert_eq!(desk.remaining(&rights(&[*limit])), limit.1);
    }
    // Nor were the places taken.
    let others: Vec<_> = (0..4).map(|_| desk.admit("ann", &all)).collect();
    assert!(others.iter().all(Result::is_ok));
    drop(others);
    admission.reserve(100, 1, 500, true).unwrap();
    for (limit, left) in limits.iter().zip([9850, 850, 0]) {
        assert_eq!(desk.remaining(&rights(&[*limit])), left);
    }
}

#[test]
fn two_limits_on_one_counter_are_one_and_the_smaller_holds() {
    let desk = Desk::open();
    let rights = rights(&[(Measure::TokensPerDay, 1000), (Measure::TokensPerDay, 300)]);
    let admission = desk.admit("ann", &rights).unwrap();
    admission.reserve(100, 1, 100, true).unwrap();
    assert_eq!(desk.remaining(&rights), 100);
}

#[test]
fn counts_outlive_a_change_of_the_policy() {
    let desk = Desk::open();
    let (before, after) = (
        [(Measure::TokensPerDay, 1000)],
        [(Measure::TokensPerDay, 150)],
    );
    let admission = desk.admit("ann", &rights(&before)).unwrap();
    admission.reserve(100, 1, 500, true).unwrap();
    assert_eq!(desk.remaining(&rights(&after)), 0);
    assert!(desk.admit("ann", &rights(&after)).is_err());
    // The open one keeps what it came with.
    assert_eq!(drink(&admission, 400), 400);
    admission.settle(used(100, 400));
    drop(admission);
    assert_eq!(desk.remaining(&rights(&before)), 500);
    assert!(desk.admit("ann", &rights(&after)).is_err());
}

#[test]
fn at_midnight_what_is_reserved_moves_to_the_new_day() {
    let desk = Desk::open();
    let day = rights(&[(Measure::TokensPerDay, 1000)]);
    let both = rights(&[
        (Measure::TokensPerDay, 1000),
        (Measure::TokensPerMonth, 5000),
    ]);
    let admission = desk.admit("ann", &both).unwrap();
    admission.reserve(100, 1, 900, true).unwrap();
    assert_eq!(drink(&admission, 50), 50);
    // 2026-12-01: a new month as well.
    desk.pass(12 * 3600 * SECOND);
    assert_eq!(
        desk.changed(),
        [("2026-11".to_owned(), 150), ("2026-11-30".to_owned(), 150)]
    );
    assert_eq!(desk.remaining(&day), 1000 - 850);
    assert_eq!(drink(&admission, 20), 20);
    let today = [("2026-12".to_owned(), 20), ("2026-12-01".to_owned(), 20)];
    assert_eq!(desk.changed(), today);
    admission.settle(used(100, 70));
    drop(admission);
    assert_eq!(desk.changed(), []);
    assert_eq!(desk.remaining(&day), 980);
}

#[test]
fn what_was_used_until_midnight_is_told_after_it() {
    let desk = Desk::open();
    let rights = rights(&[(Measure::TokensPerDay, 1000)]);
    let admission = desk.admit("ann", &rights).unwrap();
    admission.reserve(100, 1, 10, true).unwrap();
    assert_eq!(drink(&admission, 10), 10);
    admission.settle(used(100, 10));
    drop(admission);
    desk.pass(13 * 3600 * SECOND);
    // Somebody asks before the ledger does.
    desk.admit("ann", &rights).unwrap();
    assert_eq!(desk.changed(), [("2026-11-30".to_owned(), 110)]);
    assert_eq!(desk.remaining(&rights), 1000);
}

#[test]
fn running_streams_are_in_what_the_ledger_hears() {
    let desk = Desk::open();
    let rights = rights(&[(Measure::TokensPerDay, 1000)]);
    let admission = desk.admit("ann", &rights).unwrap();
    admission.reserve(100, 1, 500, false).unwrap();
    assert_eq!(desk.changed(), []);
    assert_eq!(drink(&admission, 3), 3);
    let day = "2026-11-30".to_owned();
    assert_eq!(desk.changed(), [(day.clone(), 103)]);
    assert_eq!(drink(&admission, 4), 4);
    let records = desk.limits.changed_budgets();
    assert_eq!((records.len(), records[0].tokens), (1, 107));

    // A new process knows what the ledger knows, and forgets what is over.
    let next = Desk::open();
    let old = BudgetRecord {
        period: "2026-11-29".to_owned(),
        ..records[0].clone()
    };
    next.limits.restore(&[old, records[0].clone()]);
    assert_eq!(next.remaining(&rights), 893);
    assert_eq!(next.changed(), []);
    let admission = next.admit("ann", &rights).unwrap();
    admission.reserve(1, 1, 1, true).unwrap();
    admission.charge();
    admission.settle(used(1, 1));
    drop(admission);
    assert_eq!(next.changed(), [(day, 109)]);
}

#[test]
fn a_prompt_that_was_never_computed_is_not_charged() {
    let desk = Desk::open();
    let rights = rights(&[(Measure::TokensPerDay, 1000)]);
    let reserved = || {
        let admission = desk.admit("ann", &rights).unwrap();
        admission.reserve(100, 2, 50, true).unwrap();
        admission
    };
    drop(reserved());
    assert_eq!(desk.remaining(&rights), 1000);
    let cancelled = reserved();
    cancelled.settle(used(0, 0));
    cancelled.settle(used(0, 0));
    drop(cancelled);
    assert_eq!(desk.remaining(&rights), 1000);
    let halfway = reserved();
    halfway.settle(used(64, 0));
    halfway.settle(used(0, 0));
    drop(halfway);
    assert_eq!(desk.remaining(&rights), 936);
    // One whose sequences never said how they ended.
    let lost = reserved();
    assert_eq!(drink(&lost, 5), 5);
    drop(lost);
    assert_eq!(desk.remaining(&rights), 936 - 105);
}

#[test]
fn the_tightest_limit_is_the_one_that_is_shown() {
    let desk = Desk::open();
    let rights = rights(&[
        (Measure::RequestsPerMinute, 60),
        (Measure::TokensPerMinute, 600),
        (Measure::TokensPerDay, 1000),
    ]);
    let untouched = desk.limits.standing(&ann(), &rights);
    assert_eq!(untouched.tokens.unwrap().limit, 600);
    let admission = desk.admit("ann", &rights).unwrap();
    admission.reserve(90, 1, 10, true).unwrap();
    let requests = Standing {
        limit: 60,
        remaining: 59,
        reset: SECOND,
    };
    let tokens = Standing {
        limit: 600,
        remaining: 500,
        reset: 10 * SECOND,
    };
    let standing = RateLimits {
        requests: Some(requests),
        tokens: Some(tokens),
    };
    assert_eq!(admission.standing(), standing);
    desk.pass(10 * SECOND);
    let second = desk.admit("ann", &rights).unwrap();
    second.reserve(400, 1, 200, true).unwrap();
    let tokens = admission.standing().tokens.unwrap();
    assert_eq!((tokens.limit, tokens.remaining), (600, 0));
    desk.pass(60 * SECOND);
    let tokens = admission.standing().tokens.unwrap();
    let until_midnight = 12 * 3600 * SECOND - 70 * SECOND;
    assert_eq!(
        (tokens.limit, tokens.remaining, tokens.reset),
        (1000, 300, until_midnight)
    );
}

#[test]
fn many_callers_are_forgotten_once_they_stand_at_nothing() {
    let desk = Desk::with_room(100);
    let requests = rights(&[(Measure::RequestsPerMinute, 60)]);
    for caller in 0..10_000 {
        // Whole again after a second.
        desk.pass(SECOND / 10);
        desk.admit(&caller.to_string(), &requests).unwrap();
        assert!(desk.limits.book().num_counters() <= 100);
    }
    for caller in 0..200 {
        let _ = desk.admit(&format!("{caller} again"), &requests);
    }
    let full = desk.admit("one more", &requests).unwrap_err();
    assert_eq!((full.status(), reason(full)), (503, Reason::TooManyCallers));
    // Nobody who is counted is forgotten for those who come.
    let both = rights(&[(Measure::RequestsPerMinute, 60), (Measure::TokensPerDay, 5)]);
    assert!(desk.admit("one more", &both).is_err());
    desk.pass(SECOND);
    assert!(desk.admit("one more", &both).is_ok());
}

#[test]
fn a_budget_in_use_is_not_forgotten_before_its_period_is_over() {
    let desk = Desk::with_room(10);
    let rights = rights(&[(Measure::TokensPerDay, 50)]);
    let spend = |subject: &str| {
        let admission = desk.admit(subject, &rights)?;
        admission.reserve(10, 1, 10, true)?;
        admission.charge();
        admission.settle(used(10, 1));
        Ok::<_, Denied>(())
    };
    for caller in 0..10 {
        spend(&caller.to_string()).unwrap();
    }
    assert_eq!(reason(spend("late").unwrap_err()), Reason::TooManyCallers);
    assert_eq!(desk.changed().len(), 10);
    assert!(spend("late").is_err());
    desk.pass(12 * 3600 * SECOND);
    spend("late").unwrap();
    assert!(desk.limits.book().num_counters() <= 10);
}
