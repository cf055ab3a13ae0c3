use super::*;
use crate::auth::Permit;

fn key(subject: &str) -> IdentityKey {
    Permit::for_tests(subject).identity().subject_key()
}

fn queue(max_waiting: usize, max_waiting_tokens: usize, per_subject: usize) -> Queue {
    Queue::new(&EngineConfig {
        max_waiting,
        max_waiting_tokens,
        max_waiting_per_subject: per_subject,
        ..EngineConfig::default()
    })
}

fn demand(sequences: usize, tokens: usize) -> Demand {
    Demand { sequences, tokens }
}

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn a_full_queue_names_its_bound_and_a_place_given_back_is_a_place() {
    let mut queue = queue(2, usize::MAX, 2);
    let one = demand(1, 10);
    assert_eq!(queue.join(key("a"), one, None, at(0.0)), Ok(()));
    assert_eq!(queue.join(key("b"), one, None, at(0.0)), Ok(()));
    let refused = queue.join(key("c"), one, None, at(0.0));
    let retry_after = UNKNOWN;
    assert_eq!(
        refused,
        Err(SubmitError::QueueFull {
            limit: 2,
            retry_after
        })
    );
    queue.leave(&key("a"), one, at(1.0));
    assert_eq!(queue.join(key("c"), one, None, at(1.0)), Ok(()));
    assert_eq!(queue.taken(), demand(2, 20));
}

#[test]
fn reserved_tokens_are_bounded_but_a_large_request_may_wait_alone() {
    let mut queue = queue(10, 100, 10);
    assert_eq!(queue.join(key("a"), demand(1, 150), None, at(0.0)), Ok(()));
    let refused = queue.join(key("a"), demand(1, 1), None, at(0.0));
    assert!(matches!(
        refused,
        Err(SubmitError::QueueTokens { limit: 100, .. })
    ));
    queue.leave(&key("a"), demand(1, 150), at(0.0));
    let mut first = demand(1, 60);
    assert_eq!(queue.join(key("a"), first, None, at(0.0)), Ok(()));
    assert!(queue.join(key("b"), demand(1, 60), None, at(0.0)).is_err());
    queue.correct(&key("a"), &mut first, 40);
    assert_eq!(queue.join(key("b"), demand(1, 60), None, at(0.0)), Ok(()));
    queue.correct(&key("a"), &mut first, 90);
    assert_eq!(
        queue.taken(),
        demand(2, 150),
        "counted, though it is too much"
    );
}

#[test]
fn one_subject_at_its_share_leaves_room_for_others() {
    let mut queue = queue(4, usize::MAX, 3);
    for _ in 0..3 {
        assert_eq!(queue.join(key("a"), demand(1, 1), None, at(0.0)), Ok(()));
    }
    let refused = queue.join(key("a"), demand(1, 1), None, at(0.0));
    assert!(matches!(
        refused,
        Err(SubmitError::OverShare { limit: 3, .. })
    ));
    assert_eq!(queue.join(key("b"), demand(1, 1), None, at(0.0)), Ok(()));
    let refused = queue.join(key("b"), demand(4, 1), None, at(0.0));
    assert_eq!(refused, Err(SubmitError::TooMany { n: 4, limit: 3 }));
}

#[test]
fn the_wait_is_what_the_measured_pace_says() {
    let mut queue = queue(100, usize::MAX, 100);
    for _ in 0..100 {
        queue.join(key("a"), demand(1, 10), None, at(0.0)).unwrap();
    }
    // Four places per second, refilled at once.
    for step in 1..=80 {
        let now = at(f64::from(step) * 0.25);
        queue.leave(&key("a"), demand(1, 10), now);
        queue.join(key("a"), demand(1, 10), None, now).unwrap();
    }
    let wait = |sequences| match queue
        .clone()
        .join(key("b"), demand(sequences, 1), None, at(20.0))
    {
        Err(SubmitError::QueueFull { retry_after, .. }) => retry_after.as_secs_f64(),
        other => panic!("{other:?}"),
    };
    for (sequences, expected) in [(1, 0.25), (4, 1.0), (20, 5.0)] {
        let given = wait(sequences);
        assert!(
            (given / expected - 1.0).abs() < 0.02,
            "{given} for {sequences}"
        );
    }
}

#[test]
fn a_standstill_lengthens_the_wait_and_an_empty_queue_does_not() {
    let mut queue = queue(1, usize::MAX, 1);
    let one = demand(1, 1);
    queue.join(key("a"), one, None, at(0.0)).unwrap();
    queue.leave(&key("a"), one, at(1.0));
    queue.join(key("a"), one, None, at(100.0)).unwrap();
    let wait = |now| match queue.clone().join(key("b"), one, None, at(now)) {
        Err(SubmitError::QueueFull { retry_after, .. }) => retry_after.as_secs_f64(),
        other => panic!("{other:?}"),
    };
    assert!((wait(100.0) - 1.0).abs() < 0.01, "{}", wait(100.0));
    assert!(wait(110.0) > 10.0);
    assert_eq!(wait(1000.0), LONGEST.as_secs_f64());
}

#[test]
fn who_would_start_after_its_deadline_is_told_so_at_once() {
    let mut queue = queue(100, usize::MAX, 100);
    let one = demand(1, 1);
    for _ in 0..10 {
        queue.join(key("a"), one, None, at(0.0)).unwrap();
    }
    queue.leave(&key("a"), one, at(2.0));
    // Nine wait, one leaves each two seconds.
    let deadline = at(10.0);
    let refused = queue.join(key("b"), one, Some(deadline), at(2.0));
    let Err(SubmitError::TooLate { retry_after, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        (retry_after.as_secs_f64() - 8.0).abs() < 0.1,
        "{retry_after:?}"
    );
    assert_eq!(queue.join(key("b"), one, Some(at(30.0)), at(2.0)), Ok(()));
}

#[test]
fn places_that_were_never_used_do_not_quicken_the_pace() {
    let mut queue = queue(4, usize::MAX, 4);
    let one = demand(1, 10);
    for _ in 0..4 {
        queue.join(key("a"), one, None, at(0.0)).unwrap();
    }
    queue.leave(&key("a"), one, at(5.0));
    for _ in 0..100 {
        queue.join(key("b"), one, None, at(5.0)).unwrap();
        queue.forgo(&key("b"), one);
    }
    queue.join(key("b"), one, None, at(5.0)).unwrap();
    let retry_after = at(5.0);
    assert_eq!(
        queue.join(key("c"), one, None, at(5.0)),
        Err(SubmitError::QueueFull {
            limit: 4,
            retry_after
        })
    );
}

#[test]
fn one_subject_reserves_its_share_of_the_tokens_and_leaves_the_rest() {
    let mut queue = queue(8, 100, 6);
    queue.join(key("a"), demand(1, 60), None, at(0.0)).unwrap();
    let refused = queue.join(key("a"), demand(1, 20), None, at(0.0));
    assert!(matches!(
        refused,
        Err(SubmitError::OverShareTokens { limit: 75, .. })
    ));
    assert_eq!(queue.join(key("b"), demand(1, 40), None, at(0.0)), Ok(()));
    queue.leave(&key("a"), demand(1, 60), at(1.0));
    assert_eq!(queue.join(key("a"), demand(1, 20), None, at(1.0)), Ok(()));
}
