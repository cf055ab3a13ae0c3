//! Which requests are taken.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::engine::SubmitError;

#[test]
fn the_queue_bound_counts_what_waits_and_not_what_runs() {
    let mut bench = Bench::new(
        64,
        4,
        &EngineConfig {
            max_waiting: 2,
            ..config(64, 2)
        },
    );
    let submit = |bench: &Bench, n| {
        bench
            .engine
            .submit(
                Permit::for_tests("somebody"),
                Request {
                    n,
                    ..request(&[5; 3], 3)
                },
            )
            .map(drop)
    };
    let is_full = |refused| matches!(refused, Err(SubmitError::QueueFull { limit: 2, .. }));
    let _one = bench.submit(&Request {
        n: 2,
        ..request(&[5; 3], 3)
    });
    assert!(is_full(submit(&bench, 1)));
    bench.step();
    // Its place is free, though its second sequence waits for the first to compute their prompt.
    assert_eq!(bench.engine.stats().waiting, 1);
    bench.step();
    assert_eq!(bench.engine.stats().waiting, 0);
    let _two = bench.submit(&request(&[5; 3], 3));
    assert!(is_full(submit(&bench, 2)));
    let _three = bench.submit(&request(&[5; 3], 3));
    assert!(is_full(submit(&bench, 1)));
    bench.finish();
    assert_eq!(bench.engine.stats().waiting, 0);
}

#[test]
fn the_queue_bound_is_exact_when_many_submit_at_once() {
    let bench = Bench::new(
        64,
        4,
        &EngineConfig {
            max_waiting: 40,
            ..config(64, 2)
        },
    );
    let accepted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let engine = bench.engine.clone();
            let accepted = &accepted;
            scope.spawn(move || {
                for _ in 0..20 {
                    if engine
                        .submit(Permit::for_tests("somebody"), request(&[5; 3], 3))
                        .is_ok()
                    {
                        accepted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(accepted.into_inner(), 40);
    assert_eq!(bench.engine.stats().waiting, 40);
}

#[test]
fn a_request_that_can_never_fit_is_refused_at_once() {
    let bench = Bench::new(4, 4, &config(16, 1));
    let submit = |prompt_len, max_tokens| {
        let request = request(&vec![5; prompt_len], max_tokens);
        bench
            .engine
            .submit(Permit::for_tests("somebody"), request)
            .map(drop)
    };
    assert_eq!(submit(10, 6), Ok(()));
    assert_eq!(
        submit(10, 7),
        Err(SubmitError::TooLong {
            needed: 17,
            limit: 16
        })
    );
    assert_eq!(
        submit(16, 0),
        Err(SubmitError::TooLong {
            needed: 17,
            limit: 16
        })
    );
    assert_eq!(
        submit(10, usize::MAX),
        Err(SubmitError::TooLong {
            needed: usize::MAX,
            limit: 16
        })
    );
}

#[test]
fn a_request_may_fill_the_cache_to_its_last_slot() {
    let full = request(&[5; 3], 13);
    let mut bench = Bench::new(4, 4, &config(5, 1));
    assert_eq!(bench.run(std::slice::from_ref(&full)), [alone(&full)]);
}
