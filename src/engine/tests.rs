//! The engine on its thread. What a step does is tested without one, in `step`.

use super::fake::{EOS, FakeModel, Mishap, alone, config, courses, request, seeded};
use super::*;

fn start(model: FakeModel) -> Engine {
    Engine::start(ModelRunner::new(model), config(16, 4), vec![EOS])
}

fn submit(engine: &Engine, request: Request) -> Generation {
    engine
        .submit(Permit::for_tests("somebody"), request)
        .unwrap()
}

async fn rest_of(generation: &mut Generation) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = generation.next().await {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn requests_run_on_the_thread_as_they_do_alone() {
    let engine = start(FakeModel::new(16, 4));
    let requests: Vec<_> = (0..8)
        .map(|seed| Request {
            n: 2,
            ..seeded(&[5, 6, 7], 20, seed)
        })
        .collect();
    let generations: Vec<_> = requests
        .iter()
        .map(|request| submit(&engine, request.clone()))
        .collect();
    for (request, mut generation) in requests.iter().zip(generations) {
        assert_eq!(courses(2, &rest_of(&mut generation).await), alone(request));
    }
    // An idle thread wakes up again.
    let mut generation = submit(&engine, requests[0].clone());
    assert_eq!(
        courses(2, &rest_of(&mut generation).await),
        alone(&requests[0])
    );
    let stats = engine.stats();
    assert_eq!(
        (stats.running, stats.waiting, stats.kv_blocks_used),
        (0, 0, 0)
    );
    engine.shutdown();
}

#[tokio::test]
async fn blocks_of_a_dropped_generation_are_back_before_the_next_request_ends() {
    let engine = start(FakeModel::new(50_000, 4));
    let mut endless = submit(&engine, request(&[5; 9], 100_000));
    assert!(matches!(endless.next().await, Some(Event::Token { .. })));
    drop(endless);
    let mut next = submit(&engine, request(&[5; 9], 3));
    assert_eq!(rest_of(&mut next).await.len(), 4);
    let stats = engine.stats();
    assert_eq!(
        (stats.kv_blocks_used, stats.finished_total),
        (0, [0, 1, 1, 0, 0, 0, 0])
    );
    engine.shutdown();
}

#[tokio::test]
async fn shutdown_ends_what_runs_and_returns_twice() {
    let engine = start(FakeModel::new(50_000, 4));
    let mut endless = submit(&engine, request(&[5; 9], 100_000));
    assert!(matches!(endless.next().await, Some(Event::Token { .. })));
    engine.shutdown();
    engine.shutdown();
    let last = rest_of(&mut endless).await.pop();
    assert_eq!(last, Some(Event::Failed(EngineError::ShuttingDown)));
    assert_eq!(engine.stats().kv_blocks_used, 0);
}

#[tokio::test]
async fn a_panic_on_the_thread_leaves_a_handle_that_answers() {
    let mut model = FakeModel::new(16, 4);
    model.mishap = Some((3, Mishap::Panic));
    let engine = start(model);
    let mut generation = submit(&engine, request(&[5; 9], 30));
    assert_eq!(
        rest_of(&mut generation).await.pop(),
        Some(Event::Failed(EngineError::Failed))
    );
    assert_eq!(engine.status(), Status::Failed);
    let refused = engine
        .submit(Permit::for_tests("late"), request(&[5], 1))
        .map(drop);
    assert_eq!(refused, Err(SubmitError::Failed));
    engine.shutdown();
}

#[tokio::test]
async fn the_thread_ends_with_the_last_handle() {
    let engine = start(FakeModel::new(16, 4));
    let mut generation = submit(&engine, request(&[5; 9], 3));
    let shared = Arc::clone(&engine.shared);
    drop(engine);
    // A generation that outlives the handles is served to its end.
    assert_eq!(rest_of(&mut generation).await.len(), 4);
    drop(generation);
    let thread = lock(&shared.thread).take().unwrap();
    thread.join().unwrap();
}

#[tokio::test]
async fn a_draining_engine_reserves_no_place() {
    let engine = start(FakeModel::new(8, 4));
    let reserve = |n| {
        let permit = Permit::for_tests("somebody");
        engine.reserve(permit, n, 1).map(drop)
    };
    assert_eq!(reserve(1), Ok(()));
    engine.drain();
    assert_eq!(reserve(1), Err(SubmitError::ShuttingDown));
}
