//! Who goes first and who has to give way.
//!
//! Each subject has a virtual token counter (VTC; Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024):
//! what it was served, completion tokens counting more than prompt tokens, divided by its weight. The subject that was
//! served least goes first. A subject that comes back from idleness is lifted to the least of those that are active,
//! so that idling earns no credit; and it keeps what it owes, so that leaving pays no debt.
//!
//! Above the counters stand priority classes. What has waited rises through them, counted from the last time that one of
//! the same subject and class started: a long queue of one subject, which is being served, does not grow old and pass
//! those who were served less. Pure: time is an argument.

mod account;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::SchedulingPolicy;
use super::sequence::{SequenceId, SequenceSlot};
use crate::auth::{IdentityKey, Priority};
use account::Account;

/// Where a subject's account stands in the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectSlot(u32);

/// A sequence's place in the order: the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    class: Reverse<Priority>,
    served: u64,
    /// Of two subjects that were served alike, the one that has less running is first.
    running: usize,
    arrived: Duration,
    id: SequenceId,
}

impl Turn {
    /// Its class, after ageing.
    pub fn class(&self) -> Priority {
        self.class.0
    }

    /// Whether it ranks, after ageing, no lower than `priority`.
    pub fn is_at_least(&self, priority: Priority) -> bool {
        self.class.0 >= priority
    }
}

/// A sequence that could be admitted next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in the order.
    pub turn: Turn,
    /// The sequence.
    pub slot: SequenceSlot,
    /// Whose it is.
    pub subject: SubjectSlot,
}

/// What the order of a sequence depends on, besides its subject's counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// The sequence: names go up, so that of two that came at the same moment the one submitted first is first.
    pub id: SequenceId,
    /// Where it is kept.
    pub slot: SequenceSlot,
    /// Its class, before ageing.
    pub priority: Priority,
    /// When its request came.
    pub arrived: Duration,
}

/// The accounts of all subjects, and their waiting sequences.
#[derive(Debug, Clone)]
pub struct Book {
    policy: SchedulingPolicy,
    accounts: Vec<Account>,
    by_key: HashMap<IdentityKey, SubjectSlot>,
    /// Accounts of subjects without sequences, for others to use.
    closed: Vec<SubjectSlot>,
    /// Subjects that have waiting sequences.
    waiting: Vec<SubjectSlot>,
    num_waiting: usize,
    /// What subjects without sequences were served, as long as it is more than they would be lifted to.
    debts: HashMap<IdentityKey, u64>,
}

impl Book {
    /// A book without accounts.
    pub fn new(policy: SchedulingPolicy) -> Self {
        Self {
            policy,
            accounts: Vec::new(),
            by_key: HashMap::new(),
            closed: Vec::new(),
            waiting: Vec::new(),
            num_waiting: 0,
            debts: HashMap::new(),
        }
    }

    /// A book of the same kind without accounts.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self::new(self.policy)
    }

    /// A sequence of the subject has come: opens its account if it has none.
    pub fn enter(&mut self, key: IdentityKey, weight: NonZeroU32) -> SubjectSlot {
        let slot = match self.by_key.get(&key) {
            Some(&slot) => slot,
            None => self.open(key),
        };
        let account = &mut self.accounts[slot.0 as usize];
        // A changed policy holds from the subject's next request on.
        account.weight = weight;
        account.sequences += 1;
        slot
    }

    /// A sequence of the subject has gone: closes its account with the last one.
    pub fn leave(&mut self, subject: SubjectSlot) {
        let account = &mut self.accounts[subject.0 as usize];
        account.sequences -= 1;
        if account.sequences > 0 {
            return;
        }
        let (key, served) = (account.key, account.served);
        self.by_key.remove(&key);
        self.closed.push(subject);
        self.debts.insert(key, served);
        self.forgive();
    }

    /// Counts tokens that a sequence of the subject was given.
    pub fn serve(&mut self, subject: SubjectSlot, prompt_tokens: usize, completion_tokens: usize) {
        let account = &mut self.accounts[subject.0 as usize];
        account.served += account.price(prompt_tokens, completion_tokens);
    }

    /// Takes back what was counted for prompt tokens that were never computed.
    pub fn refund(&mut self, subject: SubjectSlot, prompt_tokens: usize) {
        let account = &mut self.accounts[subject.0 as usize];
        account.served = account
            .served
            .saturating_sub(account.price(prompt_tokens, 0));
    }

    /// Whether subjects are compared at all.
    pub fn is_fair(&self) -> bool {
        self.policy == SchedulingPolicy::Fair
    }

    /// What the subject was served, in virtual tokens of weight 1.
    pub fn served(&self, subject: SubjectSlot) -> u64 {
        self.accounts[subject.0 as usize].served
    }

    /// Sequences of the subject that run.
    pub fn running(&self, subject: SubjectSlot) -> usize {
        self.accounts[subject.0 as usize].running
    }

    /// Counts a sequence of class `priority` (before ageing) that was admitted.
    pub fn starts(&mut self, subject: SubjectSlot, priority: Priority, now: Duration) {
        let account = &mut self.accounts[subject.0 as usize];
        account.running += 1;
        account.started[priority as usize] = now;
    }

    /// Counts a running sequence that ended or was preempted.
    pub fn stops(&mut self, subject: SubjectSlot) {
        self.accounts[subject.0 as usize].running -= 1;
    }

    /// Sequences of the subject, of any state, and those of them that run.
    pub fn counts(&self, subject: SubjectSlot) -> (usize, usize) {
        let account = &self.accounts[subject.0 as usize];
        (account.sequences, account.running)
    }

    /// Whether the sequence stands in its subject's queue.
    pub fn is_queued(&self, subject: SubjectSlot, slot: SequenceSlot) -> bool {
        self.accounts[subject.0 as usize].has(slot)
    }

    /// Subjects that have sequences.
    pub fn num_subjects(&self) -> usize {
        self.by_key.len()
    }

    /// Sequences that wait.
    pub fn num_waiting(&self) -> usize {
        self.num_waiting
    }

    /// Puts a sequence into its subject's queue, behind those that came before it.
    pub fn enqueue(&mut self, subject: SubjectSlot, queued: Queued) {
        let account = &mut self.accounts[subject.0 as usize];
        if account.num_waiting() == 0 {
            self.waiting.push(subject);
        }
        account.insert(queued);
        self.num_waiting += 1;
    }

    /// Takes a sequence out of its subject's queue. `false` if it is not there.
    pub fn dequeue(&mut self, subject: SubjectSlot, slot: SequenceSlot) -> bool {
        let account = &mut self.accounts[subject.0 as usize];
        if !account.take(slot) {
            return false;
        }
        self.num_waiting -= 1;
        if account.num_waiting() == 0 {
            self.waiting.retain(|&other| other != subject);
        }
        true
    }

    /// The sequence to admit next, of those subjects that `may` be served now. If it does not fit, nobody of its
    /// circle is let past it: a stream of short prompts must not starve a long one.
    pub fn next(
        &self,
        now: Duration,
        mut may: impl FnMut(SubjectSlot, SequenceSlot) -> bool,
    ) -> Option<Candidate> {
        let mut best: Option<Candidate> = None;
        for &subject in &self.waiting {
            for queued in self.accounts[subject.0 as usize].heads() {
                let turn = self.turn(subject, queued, now);
                let is_better = best.is_none_or(|best| turn < best.turn);
                if is_better && may(subject, queued.slot) {
                    best = Some(Candidate {
                        turn,
                        slot: queued.slot,
                        subject,
                    });
                }
            }
        }
        best
    }

    /// Where a waiting sequence stands in the order at present.
    fn turn(&self, subject: SubjectSlot, queued: Queued, now: Duration) -> Turn {
        let started = self.accounts[subject.0 as usize].started[queued.priority as usize];
        let since = queued.arrived.max(started);
        self.turn_since(since, now, queued.priority, subject, queued)
    }

    /// Where a sequence stands in the order that has waited in `class` since then.
    pub fn turn_since(
        &self,
        since: Duration,
        now: Duration,
        class: Priority,
        subject: SubjectSlot,
        queued: Queued,
    ) -> Turn {
        let class = aged(class, now.saturating_sub(since));
        self.turn_in(class, subject, queued)
    }

    /// Where a sequence stands in the order if it belongs to `class`.
    fn turn_in(&self, class: Priority, subject: SubjectSlot, queued: Queued) -> Turn {
        let Queued { id, arrived, .. } = queued;
        match self.policy {
            SchedulingPolicy::Fair => Turn {
                class: Reverse(class),
                served: self.served(subject),
                running: self.running(subject),
                arrived,
                id,
            },
            SchedulingPolicy::FirstCome => Turn {
                class: Reverse(Priority::Normal),
                served: 0,
                running: 0,
                arrived,
                id,
            },
        }
    }

    /// Index in `running` (subjects in order of admission) of the sequence that gives way when memory is short: the
    /// newest of the subject that was served most, never the first of all. Everything else may have to wait for that
    /// one, so it must get on.
    pub fn gives_way(&self, running: impl ExactSizeIterator<Item = SubjectSlot>) -> Option<usize> {
        let by_rank = |(at, subject): (usize, SubjectSlot)| match self.policy {
            SchedulingPolicy::Fair => (self.served(subject), at),
            SchedulingPolicy::FirstCome => (0, at),
        };
        running
            .enumerate()
            .skip(1)
            .map(by_rank)
            .max()
            .map(|(_, at)| at)
    }

    /// The subject that was served most, of those that have more than one sequence running.
    pub fn most_served(&self) -> Option<SubjectSlot> {
        let subjects = self.by_key.values().copied();
        subjects
            .filter(|&subject| self.running(subject) > 1)
            .max_by_key(|&subject| (self.served(subject), subject))
    }

    /// The subjects that [must share](Book::must_share) with `starved`, the most served first.
    pub fn must_share_with(&self, starved: SubjectSlot) -> impl Iterator<Item = SubjectSlot> {
        let subjects = self.by_key.values().copied();
        let mut rich: Vec<SubjectSlot> = subjects
            .filter(|&subject| self.running(subject) > 1 && self.must_share(subject, starved))
            .collect();
        rich.sort_unstable_by_key(|&subject| Reverse((self.served(subject), subject)));
        rich.into_iter()
    }

    /// Whether `most`, which has several sequences running, has to give one up so that `starved` can start its first.
    pub fn must_share(&self, most: SubjectSlot, starved: SubjectSlot) -> bool {
        self.policy == SchedulingPolicy::Fair
            && self.running(starved) == 0
            && self.served(most) >= self.served(starved)
    }

    fn open(&mut self, key: IdentityKey) -> SubjectSlot {
        let owed = self.debts.remove(&key).unwrap_or(0);
        let account = Account::new(key, owed.max(self.least_served().unwrap_or(0)));
        let slot = match self.closed.pop() {
            Some(slot) => {
                self.accounts[slot.0 as usize] = account;
                slot
            }
            None => {
                self.accounts.push(account);
                SubjectSlot((self.accounts.len() - 1) as u32)
            }
        };
        self.by_key.insert(key, slot);
        slot
    }

    /// The counter of the subject that was served least, of those that have sequences.
    fn least_served(&self) -> Option<u64> {
        self.by_key.values().map(|&slot| self.served(slot)).min()
    }

    /// Drops debts that mean nothing any more: those below the least counter, and all once nobody is left to compare
    /// with. Looked at only now and then, so that leaving stays cheap.
    fn forgive(&mut self) {
        match self.least_served() {
            None => self.debts.clear(),
            Some(least) if self.debts.len() >= MANY_DEBTS => {
                self.debts.retain(|_, served| *served > least);
                if self.debts.len() >= MANY_DEBTS {
                    let mut served: Vec<u64> = self.debts.values().copied().collect();
                    let (_, &mut median, _) = served.select_nth_unstable(MANY_DEBTS / 2);
                    self.debts.retain(|_, served| *served > median);
                }
            }
            Some(_) => {}
        }
    }
}

/// The class that a sequence has after it has waited.
fn aged(priority: Priority, waited: Duration) -> Priority {
    match (priority, waited.as_secs() / AGEING.as_secs()) {
        (priority, 0) => priority,
        (Priority::Low, 1) => Priority::Normal,
        _ => Priority::High,
    }
}

/// Waiting this long lifts a sequence by one class.
pub const AGEING: Duration = Duration::from_secs(10);
/// What a prompt token costs, in virtual tokens.
pub const PROMPT_WEIGHT: u64 = 1;
/// What a completion token costs: as in the VTC paper, which follows what services charge.
pub const COMPLETION_WEIGHT: u64 = 2;
/// Debts that are kept without looking whether they still matter; 4096 × 40 B = 160 KiB.
const MANY_DEBTS: usize = 4096;
