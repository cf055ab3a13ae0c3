//! The counters, each under the name of what it counts and for whom. Bounded in number: those that stand at nothing are
//! forgotten.

use std::collections::HashMap;
use std::time::Duration;

use super::Measure;
use super::bucket::Bucket;
use super::calendar::{self, Span, Today};
use super::slab::Slab;
use crate::auth::IdentityKey;
use crate::ledger::BudgetRecord;

/// What a counter is found by. The limit is no part of it: the count outlives a change of policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) measure: Measure,
    pub(super) bearer: [u8; 32],
}

impl Name {
    pub(super) fn new(measure: Measure, bearer: IdentityKey) -> Self {
        Self {
            measure,
            bearer: *bearer.as_bytes(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Counter {
    name: Name,
    /// Requests that hold something of it.
    pins: usize,
    pub(super) count: Count,
}

#[derive(Debug, Clone)]
pub(super) enum Count {
    Bucket(Bucket),
    /// Sequences that wait or run.
    Slots(u64),
    Budget(Budget),
}

/// What was taken of a day's or a month's budget.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    pub(super) span: Span,
    /// Which day or month.
    number: u64,
    /// Used, and reserved by requests that are open.
    pub(super) taken: u64,
    /// Used, as the ledger knows it.
    told: u64,
    /// Whether it stands in `dirty`.
    dirty: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Counters {
    ids: HashMap<Name, usize>,
    list: Slab<Counter>,
    /// Where to look next for one to forget.
    cursor: usize,
    most: usize,
    now: Duration,
    today: Today,
    /// Budgets that may have changed since the ledger heard of them.
    dirty: Vec<usize>,
    /// Budgets of periods that are over, of which the ledger has not heard the last.
    past: Vec<BudgetRecord>,
}

impl Counters {
    pub(super) fn new(most: usize, now: Duration, unix_seconds: u64) -> Self {
        Self {
            ids: HashMap::new(),
            list: Slab::default(),
            cursor: 0,
            most,
            now,
            today: Today::at(unix_seconds),
            dirty: Vec::new(),
            past: Vec::new(),
        }
    }

    /// Goes on to this time. `true` if another day has begun: then [`Self::roll`] wants to be told what is reserved.
    pub(super) fn turn(&mut self, now: Duration, unix_seconds: u64) -> bool {
        self.now = self.now.max(now);
        self.today.turn(unix_seconds)
    }

    /// The counter of this name, kept until [`Self::unpin`]. `None`: there are too many, and none of those looked at
    /// stands at nothing.
    pub(super) fn pin(&mut self, name: Name, most: u64) -> Option<usize> {
        let at = match self.ids.get(&name) {
            Some(&at) => at,
            None => self.insert(name, most)?,
        };
        if self.list[at].pins == 0 {
            self.roll(at, 0);
        }
        self.list[at].pins += 1;
        Some(at)
    }

    pub(super) fn unpin(&mut self, at: usize) {
        let counter = &mut self.list[at];
        counter.pins = counter.pins.saturating_sub(1);
        self.forget_if_idle(at);
    }

    /// What it stands at, with buckets refilled and under this limit from now on.
    pub(super) fn count(&mut self, at: usize, most: u64) -> &mut Count {
        let count = &mut self.list[at].count;
        if let Count::Bucket(bucket) = count {
            bucket.turn(self.now, most);
        }
        count
    }

    /// What the counter of this name would stand at now, if there is one.
    pub(super) fn peek(&self, name: &Name, most: u64) -> Option<Count> {
        let counter = &self.list[*self.ids.get(name)?];
        let mut count = counter.count.clone();
        match &mut count {
            Count::Bucket(bucket) => bucket.turn(self.now, most),
            Count::Budget(budget) if budget.number != self.today.number(budget.span) => {
                return None;
            }
            Count::Budget(_) | Count::Slots(_) => {}
        }
        Some(count)
    }

    pub(super) fn name(&self, at: usize) -> Name {
        self.list[at].name
    }

    /// Takes so many tokens or slots.
    pub(super) fn take(&mut self, at: usize, amount: u64) {
        match &mut self.list[at].count {
            Count::Bucket(bucket) => bucket.take(amount),
            Count::Slots(taken) => *taken = taken.saturating_add(amount),
            Count::Budget(budget) => {
                budget.taken = budget.taken.saturating_add(amount);
                self.note(at);
            }
        }
    }

    /// Puts so many back.
    pub(super) fn give(&mut self, at: usize, amount: u64) {
        let now = self.now;
        match &mut self.list[at].count {
            Count::Bucket(bucket) => {
                bucket.refill(now);
                bucket.give(amount);
            }
            Count::Slots(taken) => *taken = taken.saturating_sub(amount),
            Count::Budget(budget) => {
                budget.taken = budget.taken.saturating_sub(amount);
                self.note(at);
            }
        }
    }

    /// Begins the current period of a budget, if it is in an earlier one. What is `reserved` moves along: it is used
    /// in the new one, if at all.
    pub(super) fn roll(&mut self, at: usize, reserved: u64) {
        let Counter { name, count, .. } = &mut self.list[at];
        let Count::Budget(budget) = count else { return };
        let number = self.today.number(budget.span);
        if budget.number == number {
            return;
        }
        let used = budget.taken.saturating_sub(reserved);
        if used != budget.told && self.past.len() < MOST_PAST {
            self.past.push(record(name, budget, used));
        }
        budget.number = number;
        budget.taken = reserved;
        budget.told = 0;
    }

    /// Takes over what was used before the process started.
    pub(super) fn restore(&mut self, budget: &BudgetRecord) {
        for (span, measure) in [
            (Span::Day, Measure::TokensPerDay),
            (Span::Month, Measure::TokensPerMonth),
        ] {
            if calendar::name(span, self.today.number(span)) != budget.period {
                continue;
            }
            let name = Name {
                measure,
                bearer: budget.key,
            };
            let at = match self.ids.get(&name) {
                Some(&at) => at,
                None => self.add(name, 0),
            };
            self.roll(at, 0);
            if let Count::Budget(known) = &mut self.list[at].count {
                known.taken = known.taken.max(budget.tokens);
                known.told = budget.tokens;
            }
        }
    }

    /// The budgets that have changed since the last call; `reserved` says what open requests hold of them.
    pub(super) fn changed(&mut self, reserved: &HashMap<usize, u64>) -> Vec<BudgetRecord> {
        let mut changed = std::mem::take(&mut self.past);
        let dirty = std::mem::take(&mut self.dirty);
        for &at in &dirty {
            if let Count::Budget(budget) = &mut self.list[at].count {
                budget.dirty = false;
            }
        }
        // Those of running requests change without a word.
        for at in dirty.iter().chain(reserved.keys()).copied() {
            let Counter { name, count, .. } = &mut self.list[at];
            let Count::Budget(budget) = count else {
                continue;
            };
            let held = reserved.get(&at).copied().unwrap_or(0);
            let used = budget.taken.saturating_sub(held);
            if used != budget.told {
                budget.told = used;
                changed.push(record(name, budget, used));
            }
        }
        self.sweep(SWEPT_PER_CALL);
        changed
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    fn note(&mut self, at: usize) {
        if let Count::Budget(budget) = &mut self.list[at].count
            && !std::mem::replace(&mut budget.dirty, true)
        {
            self.dirty.push(at);
        }
    }

    fn insert(&mut self, name: Name, most: u64) -> Option<usize> {
        // Twice as many are looked at as are added, so that idle ones never pile up.
        self.sweep(SWEPT_PER_INSERT);
        if self.list.len() >= self.most {
            self.sweep(SWEPT_WHEN_FULL);
        }
        (self.list.len() < self.most).then(|| self.add(name, most))
    }

    fn add(&mut self, name: Name, most: u64) -> usize {
        let budget = |span| {
            Count::Budget(Budget {
                span,
                number: self.today.number(span),
                taken: 0,
                told: 0,
                dirty: false,
            })
        };
        let count = match name.measure {
            Measure::RequestsPerMinute | Measure::TokensPerMinute => {
                Count::Bucket(Bucket::full(self.now, most))
            }
            Measure::ConcurrentSequences => Count::Slots(0),
            Measure::TokensPerDay => budget(Span::Day),
            Measure::TokensPerMonth => budget(Span::Month),
        };
        let at = self.list.insert(Counter {
            name,
            pins: 0,
            count,
        });
        self.ids.insert(name, at);
        at
    }

    fn sweep(&mut self, places: usize) {
        for _ in 0..places.min(self.list.places()) {
            self.cursor = (self.cursor + 1) % self.list.places();
            self.forget_if_idle(self.cursor);
        }
    }

    fn forget_if_idle(&mut self, at: usize) {
        let Some(counter) = self.list.at(at) else {
            return;
        };
        let idle = counter.pins == 0
            && match &mut counter.count {
                Count::Bucket(bucket) => {
                    bucket.refill(self.now);
                    bucket.is_full()
                }
                Count::Slots(taken) => *taken == 0,
                Count::Budget(budget) => {
                    let over = budget.number != self.today.number(budget.span);
                    !budget.dirty && (over || budget.taken == 0)
                }
            };
        if idle && let Some(counter) = self.list.remove(at) {
            self.ids.remove(&counter.name);
        }
    }
}

fn record(name: &Name, budget: &Budget, tokens: u64) -> BudgetRecord {
    BudgetRecord {
        key: name.bearer,
        period: calendar::name(budget.span, budget.number),
        tokens,
    }
}

const SWEPT_PER_INSERT: usize = 2;
const SWEPT_WHEN_FULL: usize = 64;
const SWEPT_PER_CALL: usize = 1024;
/// Of periods that are over; only a process without a ledger ever has as many.
const MOST_PAST: usize = 1 << 20;
