use super::*;
use crate::auth::Permit;
use crate::engine::fake::{EOS, request, sequences};
use crate::engine::sequence::Sequences;

fn key(subject: &str) -> IdentityKey {
    Permit::for_tests(subject).identity().subject_key()
}

fn weight(weight: u32) -> NonZeroU32 {
    NonZeroU32::new(weight).unwrap()
}

/// A book, and slots for the sequences in it.
struct Desk {
    book: Book,
    slots: Vec<SequenceSlot>,
}

impl Desk {
    fn new(policy: SchedulingPolicy) -> Self {
        let mut store = Sequences::default();
        let slots = (0..16)
            .flat_map(|number| sequences(number, request(&[1], 1), EOS))
            .map(|sequence| store.insert(sequence))
            .collect();
        Self {
            book: Book::new(policy),
            slots,
        }
    }

    /// A sequence of `subject` comes at `arrived` seconds and waits.
    fn come(&mut self, subject: &str, number: usize, priority: Priority, arrived: u64) {
        let account = self.book.enter(key(subject), weight(1));
        let queued = Queued {
            id: SequenceId {
                request: number as u64,
                index: 0,
            },
            slot: self.slots[number],
            priority,
            arrived: Duration::from_secs(arrived),
        };
        self.book.enqueue(account, queued);
    }

    /// Takes the next one out; its number.
    fn go(&mut self, now: u64) -> usize {
        let next = self.book.next(Duration::from_secs(now), |_, _| true);
        let Candidate { slot, subject, .. } = next.unwrap();
        assert!(self.book.dequeue(subject, slot));
        self.slots.iter().position(|&other| other == slot).unwrap()
    }

    fn account(&mut self, subject: &str) -> SubjectSlot {
        self.book.by_key[&key(subject)]
    }

    fn serve(&mut self, subject: &str, prompt: usize, completion: usize) {
        let account = self.account(subject);
        self.book.serve(account, prompt, completion);
    }
}

const NORMAL: Priority = Priority::Normal;

#[test]
fn the_subject_that_was_served_least_goes_first() {
    let mut desk = Desk::new(SchedulingPolicy::Fair);
    for number in 0..3 {
        desk.come("heavy", number, NORMAL, 0);
    }
    desk.come("light", 3, NORMAL, 1);
    desk.serve("heavy", 10, 0);
    assert_eq!(desk.go(2), 3);
    assert_eq!(desk.go(2), 0);
}

#[test]
fn first_come_looks_at_nothing_but_arrival() {
    let mut desk = Desk::new(SchedulingPolicy::FirstCome);
    desk.come("heavy", 0, Priority::Low, 0);
    desk.come("light", 1, Priority::High, 1);
    desk.serve("heavy", 100, 100);
    assert_eq!((desk.go(2), desk.go(2)), (0, 1));
}

#[test]
fn completion_tokens_count_twice_and_weights_divide() {
    let mut book = Book::new(SchedulingPolicy::Fair);
    let one = book.enter(key("one"), weight(1));
    let two = book.enter(key("two"), weight(4));
    book.serve(one, 10, 5);
    book.serve(two, 40, 20);
    assert_eq!(book.served(one), book.served(two));
    book.refund(two, 40);
    assert_eq!(book.served(two), book.served(one) / 2);
}

#[test]
fn a_newcomer_is_lifted_to_the_least_served_and_so_is_who_comes_back() {
    let mut desk = Desk::new(SchedulingPolicy::Fair);
    desk.come("idle", 9, NORMAL, 0);
    let idle = desk.account("idle");
    desk.go(0);
    desk.book.leave(idle);
    desk.come("a", 0, NORMAL, 0);
    desk.come("b", 1, NORMAL, 0);
    desk.serve("a", 30, 0);
    desk.serve("b", 50, 0);
    let least = {
        let a = desk.account("a");
        desk.book.served(a)
    };
    for (number, subject) in [(2, "new"), (3, "idle")] {
        desk.come(subject, number, NORMAL, 0);
        let account = desk.account(subject);
        assert_eq!(desk.book.served(account), least);
    }
}

#[test]
fn leaving_pays_no_debt_as_long_as_others_are_there() {
    let mut desk = Desk::new(SchedulingPolicy::Fair);
    desk.come("heavy", 0, NORMAL, 0);
    desk.come("light", 1, NORMAL, 0);
    desk.serve("heavy", 1000, 0);
    let heavy = desk.account("heavy");
    let owed = desk.book.served(heavy);
    desk.book.dequeue(heavy, desk.slots[0]);
    desk.book.leave(heavy);
    desk.come("heavy", 2, NORMAL, 0);
    let heavy = desk.account("heavy");
    assert_eq!(desk.book.served(heavy), owed);
    assert_eq!(desk.go(0), 1);
}

#[test]
fn debts_are_forgotten_once_nobody_is_left_and_never_grow_without_bound() {
    let mut book = Book::new(SchedulingPolicy::Fair);
    let stays = book.enter(key("stays"), weight(1));
    for number in 0..3 * MANY_DEBTS {
        let account = book.enter(key(&number.to_string()), weight(1));
        book.serve(account, number % 7 + 1, 0);
        book.leave(account);
        assert!(book.debts.len() <= MANY_DEBTS);
    }
    assert_eq!(book.accounts.len(), 2, "closed accounts are used again");
    book.leave(stays);
    assert!(book.debts.is_empty());
}

#[test]
fn a_higher_class_goes_first_and_waiting_lifts_a_lower_one() {
    let mut desk = Desk::new(SchedulingPolicy::Fair);
    desk.come("batch", 0, Priority::Low, 0);
    desk.come("user", 1, NORMAL, 8);
    desk.serve("user", 100, 0);
    assert_eq!(desk.go(9), 1, "the lower class waits, though served less");
    desk.come("user", 2, NORMAL, 9);
    assert_eq!(desk.go(11), 0, "after ten seconds it is of the same class");
    assert_eq!(desk.go(11), 2);
    desk.come("batch", 3, Priority::Low, 12);
    desk.come("boss", 4, Priority::High, 25);
    desk.serve("boss", 500, 0);
    assert_eq!(desk.go(31), 4);
    desk.come("boss", 5, Priority::High, 31);
    assert_eq!(desk.go(32), 3, "after twenty seconds of the highest");
}

#[test]
fn who_comes_back_after_a_preemption_has_its_old_place() {
    let mut desk = Desk::new(SchedulingPolicy::Fair);
    for number in 0..3 {
        desk.come("a", number, NORMAL, number as u64);
    }
    assert_eq!(desk.go(3), 0);
    desk.come("a", 0, NORMAL, 0);
    assert_eq!((desk.go(3), desk.go(3), desk.go(3)), (0, 1, 2));
    assert_eq!(desk.book.num_waiting(), 0);
    assert_eq!(desk.book.next(Duration::ZERO, |_, _| true), None);
}

#[test]
fn the_newest_of_the_most_served_gives_way_but_never_the_first_of_all() {
    let mut book = Book::new(SchedulingPolicy::Fair);
    let [a, b] = ["a", "b"].map(|subject| book.enter(key(subject), weight(1)));
    book.serve(a, 10, 0);
    assert_eq!(book.gives_way([a, b, a, b].into_iter()), Some(2));
    assert_eq!(book.gives_way([a, b, b].into_iter()), Some(2));
    assert_eq!(book.gives_way([a].into_iter()), None);
    let first_come = Book {
        policy: SchedulingPolicy::FirstCome,
        ..book
    };
    assert_eq!(first_come.gives_way([a, b, a, b].into_iter()), Some(3));
}

#[test]
fn only_who_has_several_running_shares_with_who_has_none() {
    let mut book = Book::new(SchedulingPolicy::Fair);
    let [rich, poor] = ["rich", "poor"].map(|subject| book.enter(key(subject), weight(1)));
    book.serve(rich, 10, 0);
    book.starts(rich, Priority::Normal, Duration::ZERO);
    assert_eq!(book.most_served(), None);
    book.starts(rich, Priority::Normal, Duration::ZERO);
    assert_eq!(book.most_served(), Some(rich));
    assert!(book.must_share(rich, poor));
    book.starts(poor, Priority::Normal, Duration::ZERO);
    assert!(!book.must_share(rich, poor));
}

#[test]
fn a_queue_that_is_served_does_not_grow_old_and_pass_who_was_served_less() {
    let mut desk = Desk::new(SchedulingPolicy::Fair);
    desk.come("heavy", 1, Priority::Normal, 0);
    desk.come("heavy", 2, Priority::Normal, 0);
    assert_eq!(desk.go(25), 1);
    let heavy = desk.account("heavy");
    let now = Duration::from_secs(25);
    desk.book.starts(heavy, Priority::Normal, now);
    desk.come("light", 3, Priority::Normal, 26);
    desk.serve("heavy", 100, 0);
    assert_eq!(desk.go(27), 3);
    // Were it not served for ten seconds, it would rise.
    desk.come("light", 4, Priority::Normal, 30);
    assert_eq!(desk.go(36), 2);
}
