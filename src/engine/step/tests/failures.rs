//! What requests hear when the engine stops, on purpose or not.

use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::span::{Attributes, Id, Record};

use super::*;
use crate::engine::fake::Mishap;
use crate::engine::{Status, SubmitError};

/// Runs the thread's whole life on this one, with a model that fails in its third step.
fn fail_in_the_third_step(mishap: Mishap) -> (Engine, [Generation; 2], Arc<crate::auth::Identity>) {
    let mut model = FakeModel::new(8, 4);
    model.mishap = Some((2, mishap));
    let Bench {
        engine, stepper, ..
    } = Bench::with(model, &config(16, 1));
    let permit = Permit::for_tests("somebody");
    let identity = Arc::clone(permit.identity());
    let running = engine
        .submit(
            permit,
            Request {
                n: 2,
                ..request(&[5; 3], 9)
            },
        )
        .unwrap();
    let waiting = engine
        .submit(Permit::for_tests("other"), request(&[5; 3], 9))
        .unwrap();
    stepper.run();
    (engine, [running, waiting], identity)
}

#[test]
fn a_step_that_fails_or_panics_fails_every_request_and_the_engine() {
    for mishap in [Mishap::Panic, Mishap::Error, Mishap::ShortLogits] {
        let (engine, [mut running, mut waiting], identity) = fail_in_the_third_step(mishap);
        let running = whole(&mut running);
        assert!(matches!(
            running[..],
            [
                Event::Token { .. },
                Event::Token { .. },
                Event::Failed(EngineError::Failed)
            ]
        ));
        assert_eq!(whole(&mut waiting), [Event::Failed(EngineError::Failed)]);
        assert_eq!(engine.status(), Status::Failed);
        let stats = engine.stats();
        assert_eq!(
            (stats.running, stats.waiting, stats.kv_blocks_used),
            (0, 0, 0)
        );
        assert_eq!(stats.finished_total, [0, 0, 0, 3, 0, 0, 0, 0]);
        assert_eq!(Arc::strong_count(&identity), 1, "the permit is still held");
        let refused = engine
            .submit(Permit::for_tests("late"), request(&[5], 1))
            .map(drop);
        assert_eq!(refused, Err(SubmitError::Failed));
        engine.drain();
        engine.shutdown();
        assert_eq!(engine.status(), Status::Failed);
    }
}

/// Counts errors logged on this thread.
#[derive(Default)]
struct ErrorLog(Arc<AtomicUsize>);

impl tracing::Subscriber for ErrorLog {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn a_panic_is_logged_once_and_a_clean_run_logs_no_error() {
    let log = ErrorLog::default();
    let errors = Arc::clone(&log.0);
    // With a single subscriber, whichever thread comes by first decides for all whether a place in the code logs at all.
    let _second = tracing::Dispatch::new(ErrorLog::default());
    tracing::subscriber::with_default(log, || {
        let mut bench = Bench::new(5, 4, &config(64, 8));
        bench.run(&mixed_requests());
        assert_eq!(errors.load(Ordering::Relaxed), 0);
        fail_in_the_third_step(Mishap::Panic);
        assert_eq!(errors.load(Ordering::Relaxed), 1);
    });
}

/// The second step has ended when the third, begun before it was finished, fails.
#[test]
fn of_a_step_ahead_that_fails_everybody_hears_what_the_one_before_chose() {
    let mut model = FakeModel::new(8, 4);
    model.mishap = Some((2, Mishap::Error));
    let mut bench = Bench::with(model, &config(16, 1));
    bench.stepper.executor.overlaps = true;
    let mut running = bench.submit(&request(&[5; 3], 9));
    let Bench {
        engine, stepper, ..
    } = bench;
    stepper.run();
    let told = &alone(&request(&[5; 3], 9))[0].tokens[..2];
    let mut expected: Vec<Event> = (told.iter())
        .map(|&id| Event::Token { index: 0, id })
        .collect();
    expected.push(Event::Failed(EngineError::Failed));
    assert_eq!(whole(&mut running), expected);
    assert_eq!(engine.stats().kv_blocks_used, 0);
}

#[test]
fn shutdown_in_the_inbox_ends_everything_before_the_next_forward_pass() {
    let Bench {
        engine,
        mut stepper,
        ..
    } = Bench::new(8, 4, &config(16, 1));
    let mut running = engine
        .submit(Permit::for_tests("somebody"), request(&[5; 3], 9))
        .unwrap();
    stepper.step().unwrap();
    let mut late = engine
        .submit(Permit::for_tests("somebody"), request(&[5; 3], 9))
        .unwrap();
    engine.shutdown();
    stepper.run();
    let running = whole(&mut running);
    assert!(matches!(
        running[..],
        [
            Event::Token { .. },
            Event::Failed(EngineError::ShuttingDown)
        ]
    ));
    assert_eq!(whole(&mut late), [Event::Failed(EngineError::ShuttingDown)]);
    let refused = engine
        .submit(Permit::for_tests("late"), request(&[5], 1))
        .map(drop);
    assert_eq!(refused, Err(SubmitError::ShuttingDown));
    let stats = engine.stats();
    assert_eq!(
        (stats.waiting, stats.kv_blocks_used, stats.steps_total),
        (0, 0, 1)
    );
}

#[test]
fn a_request_lost_between_submission_and_the_end_still_hears_of_it() {
    let Bench {
        engine, stepper, ..
    } = Bench::new(8, 4, &config(16, 1));
    let mut generation = engine
        .submit(Permit::for_tests("somebody"), request(&[5; 3], 9))
        .unwrap();
    drop(stepper);
    assert_eq!(
        whole(&mut generation),
        [Event::Failed(EngineError::ShuttingDown)]
    );
}

#[test]
fn draining_refuses_newcomers_and_finishes_the_rest() {
    let mut bench = Bench::new(8, 4, &config(16, 1));
    let mut generation = bench.submit(&request(&[5; 3], 9));
    bench.engine.drain();
    assert_eq!(bench.engine.status(), Status::Draining);
    let refused = bench
        .engine
        .submit(Permit::for_tests("late"), request(&[5], 1))
        .map(drop);
    assert_eq!(refused, Err(SubmitError::ShuttingDown));
    bench.finish();
    assert_eq!(
        courses(1, &whole(&mut generation)),
        alone(&request(&[5; 3], 9))
    );
}
