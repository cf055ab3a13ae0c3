//! A device that repeats one answer: exact text, without weights, at a pace that tests control.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mixgate::engine::TokenId;
use mixgate::engine::executor::{Capacity, ExecuteError, Executor};
use mixgate::engine::scheduler::StepPlan;
use mixgate::engine::sequence::Sequences;

/// A request with this seed makes the device panic.
pub const PANIC_SEED: u64 = 13;

/// Says `reply` to everything, then ends.
pub struct Parrot {
    pub capacity: Capacity,
    pub reply: Vec<TokenId>,
    pub eos: TokenId,
    pub brake: Arc<Brake>,
    /// How long a step takes.
    pub pace: Duration,
    /// What the step that was begun last chose.
    pub chosen: Vec<TokenId>,
}

impl Executor for Parrot {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn start(&mut self, plan: &StepPlan, sequences: &Sequences) -> Result<(), ExecuteError> {
        self.brake.step();
        if !self.pace.is_zero() {
            std::thread::sleep(self.pace);
        }
        let next = |part: &mixgate::engine::scheduler::Part| {
            let sequence = &sequences[part.slot];
            assert_ne!(
                sequence.sampling().seed,
                Some(PANIC_SEED),
                "the test asked for this panic"
            );
            let said = sequence.generated().len();
            if said == self.reply.len() && !sequence.forbidden().any(|id| id == self.eos) {
                self.eos
            } else {
                self.reply[said % self.reply.len()]
            }
        };
        self.chosen = plan.due().map(next).collect();
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<TokenId>, ExecuteError> {
        Ok(std::mem::take(&mut self.chosen))
    }
}

/// Lets steps through: all of them, or as many as a test allows.
#[derive(Default)]
pub struct Brake {
    allowed: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Brake {
    /// From now on only `steps` steps run.
    pub fn allow(&self, steps: usize) {
        self.set(Some(steps));
    }

    /// Whether no further step may run.
    pub fn is_down(&self) -> bool {
        *self.allowed.lock().unwrap() == Some(0)
    }

    pub fn release(&self) {
        self.set(None);
    }

    fn set(&self, allowed: Option<usize>) {
        *self.allowed.lock().unwrap() = allowed;
        self.changed.notify_all();
    }

    fn step(&self) {
        let allowed = self.allowed.lock().unwrap();
        let mut allowed = self
            .changed
            .wait_while(allowed, |allowed| *allowed == Some(0))
            .unwrap();
        if let Some(left) = &mut *allowed {
            *left -= 1;
        }
    }
}
