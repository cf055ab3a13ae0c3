//! Keeps the first step of a caller short.
//!
//! A subject that has nothing running and begins now would wait, first for the step in progress, then for its own: and
//! that one would be filled up with the prompts of those who keep the machine busy. So a step in which somebody begins
//! takes no prompts of subjects that have something running already; the step after it may be full again, so that nobody
//! is held up for more than every other step.

use crate::engine::fairness::SubjectSlot;

#[derive(Debug, Clone, Default)]
pub(super) struct Express {
    /// Subjects that begin in the step in the making.
    aboard: Vec<SubjectSlot>,
    /// Whether that step leaves somebody behind for their sake.
    left_behind: bool,
    /// Whether the step before did.
    rests: bool,
}

impl Express {
    /// A new step begins.
    pub(super) fn start(&mut self) {
        self.aboard.clear();
        self.rests = std::mem::take(&mut self.left_behind);
    }

    /// A subject that had nothing running begins.
    pub(super) fn board(&mut self, subject: SubjectSlot) {
        self.aboard.push(subject);
    }

    /// Whether the step leaves somebody behind who would have found room.
    #[cfg(test)]
    pub(super) fn leaves_behind(&self) -> bool {
        self.left_behind
    }

    /// Whether the step may leave nobody behind.
    #[cfg(test)]
    pub(super) fn rests(&self) -> bool {
        self.rests
    }

    /// Whether a prompt of `subject`, which has `running` sequences, may come along.
    pub(super) fn takes(&mut self, subject: SubjectSlot, running: usize) -> bool {
        let takes =
            self.rests || self.aboard.is_empty() || running == 0 || self.aboard.contains(&subject);
        self.left_behind |= !takes;
        takes
    }
}
