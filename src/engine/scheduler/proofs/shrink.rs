//! Cuts a script that breaks something down to the events that it takes.

use std::cell::Cell;
use std::panic;
use std::sync::Once;

use super::script::{Event, Script, Visit};
use super::stage::{Failure, play};
use crate::auth::Priority;

/// The smallest script found that still breaks something, with what it breaks, as text.
pub(super) fn smallest(mut script: Script, failure: Failure) -> String {
    let _quiet = Quiet::start();
    cut_tail(&mut script, &failure);
    loop {
        let before = size(&script);
        drop_events(&mut script);
        simplify_events(&mut script);
        if size(&script) == before {
            break;
        }
    }
    let Failure { what, log, .. } = *play(&script, true).expect_err("it failed a moment ago");
    format!("\n{log}broken: {what}\n")
}

/// Replaces the script if the other one fails as well.
fn try_instead(script: &mut Script, other: Script) -> bool {
    match play(&other, false) {
        Ok(_) => false,
        Err(failure) => {
            *script = other;
            cut_tail(script, &failure);
            true
        }
    }
}

/// What came after the failure does not matter.
fn cut_tail(script: &mut Script, failure: &Failure) {
    script.events.truncate(failure.event + 1);
}

/// Leaves out halves, quarters, … down to single events.
fn drop_events(script: &mut Script) {
    let mut length = script.events.len().div_ceil(2);
    while length > 0 {
        let mut at = 0;
        while at < script.events.len() {
            let mut other = script.clone();
            let end = script.events.len().min(at + length);
            other.events.drain(at..end);
            if !try_instead(script, other) {
                at += length;
            }
        }
        length /= 2;
    }
}

/// Makes what is left of each event plainer.
fn simplify_events(script: &mut Script) {
    for at in 0..script.events.len() {
        for simpler in SIMPLER {
            let mut other = script.clone();
            if let Some(Event::Arrive(visit)) = other.events.get_mut(at) {
                simpler(visit);
                try_instead(script, other);
            }
        }
    }
}

const SIMPLER: [fn(&mut Visit); 7] = [
    |visit| visit.n = 1,
    |visit| visit.continues = None,
    |visit| visit.weight = 1,
    |visit| visit.priority = Priority::Normal,
    |visit| visit.salt = None,
    |visit| visit.stems.truncate(visit.stems.len().max(2) - 1),
    |visit| visit.max_tokens = visit.max_tokens.div_ceil(2),
];

/// What shrinks.
fn size(script: &Script) -> usize {
    let of = |event: &Event| match event {
        Event::Arrive(visit) => {
            let plain = [
                visit.weight > 1,
                visit.salt.is_some(),
                visit.continues.is_some(),
            ];
            let switches = plain.iter().filter(|&&on| on).count();
            let is_normal = visit.priority == Priority::Normal;
            1 + switches
                + usize::from(!is_normal)
                + visit.n as usize
                + visit.stems.len()
                + visit.max_tokens
        }
        _ => 1,
    };
    script.events.iter().map(of).sum()
}

/// As long as it lives, panics of this thread are not printed: a script is played thousands of times.
struct Quiet;

impl Quiet {
    fn start() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                if !QUIET.get() {
                    usual(info);
                }
            }));
        });
        QUIET.set(true);
        Self
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        QUIET.set(false);
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}
