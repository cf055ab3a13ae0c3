//! The counters and the requests that hold something of them: every decision is made here, under one lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::calendar;
use super::counters::{Count, Counters, Name};
use super::hold::{Bound, Held, Hold, SLICE};
use super::refusal::{self, Refusal};
use super::slab::Slab;
use super::{Charge, Limit, Measure, RateLimits, Standing};
use crate::auth::{Denied, TokensUsed, WhenShort};
use crate::ledger::BudgetRecord;

#[derive(Debug)]
pub(super) struct Book {
    counters: Counters,
    held: Slab<Held>,
}

impl Book {
    pub(super) fn new(counters: Counters) -> Self {
        Self {
            counters,
            held: Slab::default(),
        }
    }

    /// Goes on to this time.
    ///
    /// At midnight what is reserved moves to the new period, in which it is used, if at all: the old one keeps what was
    /// used in it. Both stay within their limit, since no more was ever reserved than fits one.
    pub(super) fn turn(&mut self, now: Duration, unix_seconds: u64) {
        if self.counters.turn(now, unix_seconds) {
            for (at, reserved) in self.reserved() {
                self.counters.roll(at, reserved);
            }
        }
    }

    /// Counts a request and takes its first place, or changes nothing.
    pub(super) fn admit(
        &mut self,
        wanted: Vec<(Name, &Limit)>,
    ) -> Result<(usize, Arc<Hold>), Denied> {
        let bounds = self.bind(&wanted)?;
        let mut refused = None;
        for bound in bounds.iter() {
            let amount = if bound.is_of_tokens() { LEAST } else { 1 };
            refused = refusal::worse(refused, self.lack(bound, amount, 0));
        }
        if let Some(Refusal { denied, .. }) = refused {
            self.unbind(&bounds);
            return Err(denied);
        }
        for bound in bounds.iter().filter(|bound| !bound.is_of_tokens()) {
            self.counters.take(bound.at, 1);
        }
        let held = Held::new(bounds);
        let hold = held.hold.clone();
        Ok((self.held.insert(held), hold))
    }

    /// Takes the other places and the tokens of a request, or changes nothing.
    pub(super) fn reserve(
        &mut self,
        id: usize,
        size: Size,
        when_short: WhenShort,
    ) -> Result<(), Denied> {
        if self.held[id].is_reserved() {
            return Ok(());
        }
        let Size {
            prompt,
            n,
            max_tokens,
            explicit,
        } = size;
        let full = prompt.saturating_add(max_tokens.saturating_mul(n));
        let (wanted, least) = match (explicit, when_short) {
            (true, WhenShort::Refuse) => (full, full),
            (true, WhenShort::Clamp) => (full, prompt.saturating_add(n)),
            (false, _) => {
                let slices = max_tokens.min(SLICE).saturating_mul(n);
                (prompt.saturating_add(slices), prompt.saturating_add(n))
            }
        };
        let bounds = self.held[id].bounds.clone();
        let mut refused = None;
        let mut granted = wanted;
        for bound in bounds.iter() {
            let refusal = match bound.measure {
                Measure::RequestsPerMinute => None,
                Measure::ConcurrentSequences => self.lack(bound, n - 1, 1),
                _ => {
                    granted = granted.min(self.available(bound));
                    self.lack(bound, least, 0)
                }
            };
            refused = refusal::worse(refused, refusal);
        }
        if let Some(Refusal { denied, .. }) = refused {
            return Err(denied);
        }
        for bound in bounds.iter() {
            match bound.measure {
                Measure::RequestsPerMinute => {}
                Measure::ConcurrentSequences => self.counters.take(bound.at, n - 1),
                _ => self.counters.take(bound.at, granted),
            }
        }
        let held = &mut self.held[id];
        held.begin(prompt, n, max_tokens, explicit);
        if bounds.iter().any(Bound::is_of_tokens) {
            held.grant(granted);
        }
        Ok(())
    }

    /// Takes tokens for the next steps of a request that has used what it had.
    pub(super) fn top_up(&mut self, id: usize) -> Charge {
        let held = &self.held[id];
        let (lack, room) = held.lacks();
        if lack == 0 || room == 0 {
            return Charge::Covered;
        }
        let bounds = held.bounds.clone();
        let mut granted = lack.max(SLICE).min(room);
        for bound in bounds.iter() {
            // The rate of a minute limits what starts: what runs is not cut by it, but leaves a debt.
            if !matches!(bound.measure, Measure::TokensPerMinute) && bound.is_of_tokens() {
                granted = granted.min(self.available(bound));
            }
        }
        for bound in bounds.iter().filter(|bound| bound.is_of_tokens()) {
            self.counters.take(bound.at, granted);
        }
        self.held[id].grant(granted);
        match granted >= lack {
            true => Charge::Covered,
            false => Charge::Spent,
        }
    }

    /// One sequence of a request has ended.
    pub(super) fn settle(&mut self, id: usize, used: TokensUsed) {
        let held = &mut self.held[id];
        let had_place = held.slots > 0;
        let (completion, prompt) = (used.completion as u64, used.prompt as u64);
        let spare = held.settle(completion, prompt + completion);
        let bounds = held.bounds.clone();
        for bound in bounds.iter() {
            match bound.measure {
                Measure::RequestsPerMinute => {}
                Measure::ConcurrentSequences => {
                    self.counters.give(bound.at, u64::from(had_place));
                }
                _ => self.counters.give(bound.at, spare),
            }
        }
    }

    /// A request is over: gives back all that it did not use.
    pub(super) fn release(&mut self, id: usize) {
        let Some(held) = self.held.remove(id) else {
            return;
        };
        let unused = held.close();
        for bound in held.bounds.iter() {
            match bound.measure {
                Measure::RequestsPerMinute => {}
                Measure::ConcurrentSequences => self.counters.give(bound.at, held.slots),
                _ if unused >= 0 => self.counters.give(bound.at, unused.unsigned_abs()),
                _ => self.counters.take(bound.at, unused.unsigned_abs()),
            }
        }
        self.unbind(&held.bounds);
    }

    /// Where a request's caller stands.
    pub(super) fn standing_of(&self, id: usize, since_epoch: Duration) -> RateLimits {
        let bounds = self.held[id].bounds.iter();
        self.standing(
            bounds.map(|bound| (self.counters.name(bound.at), bound.most)),
            since_epoch,
        )
    }

    /// Where whoever is bound by these limits stands.
    pub(super) fn standing(
        &self,
        limits: impl Iterator<Item = (Name, u64)>,
        since_epoch: Duration,
    ) -> RateLimits {
        let mut standing = RateLimits::default();
        for (name, limit) in limits {
            let (remaining, reset) = match (name.measure, self.counters.peek(&name, limit)) {
                (Measure::ConcurrentSequences, _) => continue,
                (_, Some(Count::Bucket(bucket))) => (bucket.level(), bucket.reset()),
                (_, Some(Count::Budget(budget))) => (
                    limit.saturating_sub(budget.taken),
                    calendar::rest(budget.span, since_epoch),
                ),
                (Measure::TokensPerDay, _) => {
                    (limit, calendar::rest(calendar::Span::Day, since_epoch))
                }
                (Measure::TokensPerMonth, _) => {
                    (limit, calendar::rest(calendar::Span::Month, since_epoch))
                }
                _ => (limit, Duration::ZERO),
            };
            let kind = match name.measure {
                Measure::RequestsPerMinute => &mut standing.requests,
                _ => &mut standing.tokens,
            };
            let next = Standing {
                limit,
                remaining,
                reset,
            };
            let tightest = |other: Standing| (other.remaining, other.limit);
            if kind.is_none_or(|known| tightest(next) < tightest(known)) {
                *kind = Some(next);
            }
        }
        standing
    }

    pub(super) fn restore(&mut self, budgets: &[BudgetRecord]) {
        for budget in budgets {
            self.counters.restore(budget);
        }
    }

    pub(super) fn changed_budgets(&mut self) -> Vec<BudgetRecord> {
        let reserved = self.reserved();
        self.counters.changed(&reserved)
    }

    /// Counters that are kept, for tests of their number.
    #[cfg(test)]
    pub(super) fn num_counters(&self) -> usize {
        self.counters.len()
    }

    /// Tokens that open requests hold of counters and have not used, by counter.
    fn reserved(&self) -> HashMap<usize, u64> {
        let mut reserved = HashMap::new();
        for held in self.held.iter() {
            let left = held.hold.left().max(0).unsigned_abs();
            for bound in held.bounds.iter().filter(|bound| bound.is_of_tokens()) {
                *reserved.entry(bound.at).or_default() += left;
            }
        }
        reserved
    }

    fn reserved_of(&self, at: usize) -> u64 {
        let holders = self.held.iter().filter(|held| {
            let mut bounds = held.bounds.iter();
            bounds.any(|bound| bound.at == at)
        });
        holders
            .map(|held| held.hold.left().max(0).unsigned_abs())
            .sum()
    }

    /// What can be taken of a limit of tokens now.
    fn available(&mut self, bound: &Bound) -> u64 {
        match self.counters.count(bound.at, bound.most) {
            Count::Bucket(bucket) => bucket.level(),
            Count::Budget(budget) => bound.most.saturating_sub(budget.taken),
            Count::Slots(taken) => bound.most.saturating_sub(*taken),
        }
    }

    /// Why `amount` more cannot be had, if it cannot. `own`: what of it the request has already.
    fn lack(&mut self, bound: &Bound, amount: u64, own: u64) -> Option<Refusal> {
        if self.available(bound) >= amount {
            return None;
        }
        let reserved = match bound.measure {
            Measure::TokensPerDay | Measure::TokensPerMonth => self.reserved_of(bound.at),
            _ => 0,
        };
        let count = self.counters.count(bound.at, bound.most);
        Some(refusal::of(bound, count, amount, own, reserved))
    }

    fn bind(&mut self, wanted: &[(Name, &Limit)]) -> Result<Arc<[Bound]>, Denied> {
        let mut bounds = Vec::with_capacity(wanted.len());
        for (name, limit) in wanted {
            let Some(at) = self.counters.pin(*name, limit.most) else {
                self.unbind(&bounds);
                return Err(refusal::table_full(self.counters.len()));
            };
            bounds.push(Bound {
                at,
                measure: limit.measure,
                most: limit.most,
                per: limit.per.word(),
            });
        }
        Ok(bounds.into())
    }

    fn unbind(&mut self, bounds: &[Bound]) {
        for bound in bounds {
            self.counters.unpin(bound.at);
        }
    }
}

/// What a request may come to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) prompt: u64,
    /// At least 1.
    pub(super) n: u64,
    /// At least 1.
    pub(super) max_tokens: u64,
    /// Whether its caller has named it.
    pub(super) explicit: bool,
}

/// Tokens of the smallest request: one of prompt, one of completion.
const LEAST: u64 = 2;
