//! Proofs by trial: random events on random small schedulers, in virtual time, without a model.
//!
//! `script` is what happens, `stage` plays it and `memory` stands for the KV cache: each slot remembers which text was
//! computed there and for whom. `judge` says what must be true. A script that breaks something is cut down to the
//! events that matter and printed, one line per event.
//!
//! `scenarios` are what is promised to callers, in the virtual time of a null model.

mod judge;
mod memory;
mod scenarios;
mod script;
mod shrink;
mod simulation;
mod stage;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};

use script::script;
use shrink::smallest;
use stage::{Tally, play};

#[test]
fn a_million_random_events_leak_nothing_mix_nothing_up_and_starve_nobody() {
    let scripts = script(EVENTS);
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::default()
    });
    let mut sum = Tally::default();
    for _ in 0..SCRIPTS {
        let script = scripts.new_tree(&mut runner).unwrap().current();
        match play(&script, false) {
            Ok(tally) => sum += tally,
            Err(failure) => panic!("{}", smallest(script, *failure)),
        }
    }
    assert_eq!(sum.events, (SCRIPTS * EVENTS) as u64);
    // What is to be proved must have happened.
    let happened = [sum.preempted, sum.hits, sum.copies, sum.evictions];
    assert!(happened.iter().all(|&times| times > 1000), "{sum:?}");
    assert!(sum.finished.iter().all(|&times| times > 100), "{sum:?}");
}

const SCRIPTS: usize = 1000;
const EVENTS: usize = 1000;
