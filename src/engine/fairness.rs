//! Who goes first and who has to give way.
//!
//! First come, first served: the oldest waiting sequence is admitted next, the one admitted last is preempted first.
//! The scheduler asks here and nowhere else, so that another policy changes this file alone.

use std::collections::VecDeque;

use super::sequence::SequenceId;

/// Index in `waiting` of the sequence to admit next. If it does not fit now, nobody is let past it: a stream of short
/// prompts must not starve a long one.
pub fn next_to_admit(waiting: &VecDeque<SequenceId>) -> Option<usize> {
    (!waiting.is_empty()).then_some(0)
}

/// Index in `running` (in order of admission) of the sequence whose blocks are taken when there are too few.
pub fn next_to_preempt(running: &[SequenceId]) -> Option<usize> {
    running.len().checked_sub(1)
}
