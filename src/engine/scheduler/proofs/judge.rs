//! What must be true of a plan, of the cache that it relies on, and of what came of it.

use std::collections::HashSet;

use super::memory::{Content, EOS};
use super::stage::{Guest, Stage, name};
use crate::engine::scheduler::{Outcome, Part, StepPlan};
use crate::engine::sequence::{Phase, SequenceId};
use crate::engine::{FinishReason, TokenId};

/// Ends the function with what is wrong unless the condition holds.
macro_rules! holds {
    ($condition:expr, $($wrong:tt)+) => {
        if !$condition {
            return Err(format!($($wrong)+));
        }
    };
}

impl Stage<'_> {
    /// The running sequence that was admitted first.
    pub(super) fn first(&self) -> Option<SequenceId> {
        let first = self.scheduler.running.first();
        first.map(|&slot| self.scheduler.sequences[slot].id())
    }

    /// Running sequences that miss one token.
    pub(super) fn decoding(&self) -> HashSet<SequenceId> {
        let running = self.scheduler.running.iter();
        let sequences = running.map(|&slot| &self.scheduler.sequences[slot]);
        let decoding = sequences.filter(|sequence| sequence.num_uncomputed_tokens() == 1);
        decoding.map(|sequence| sequence.id()).collect()
    }

    /// The scheduler's books agree with each other and with what was seen from outside.
    pub(super) fn judge_books(&self) -> Result<(), String> {
        self.scheduler
            .check()
            .map_err(|broken| broken.to_string())?;
        let (stats, tally) = (self.scheduler.stats(), &self.tally);
        let ending = self.guests.values().filter(|guest| guest.is_ending());
        let ending = ending.count();
        holds!(
            stats.running + stats.waiting + ending == self.guests.len(),
            "{} run and {} wait and {ending} end, {} are there",
            stats.running,
            stats.waiting,
            self.guests.len()
        );
        holds!(
            stats.running <= self.size.max_num_seqs,
            "{} run at once",
            stats.running
        );
        let counted = (
            stats.generation_tokens_total,
            stats.finished_total,
            stats.preemptions_total,
        );
        let seen = (tally.generated, tally.finished, tally.preempted);
        holds!(
            counted == seen,
            "counted are {counted:?}, seen were {seen:?}"
        );
        Ok(())
    }

    /// The plan keeps to the limits, and does as much as they allow.
    pub(super) fn judge_plan(
        &mut self,
        plan: &StepPlan,
        first: Option<SequenceId>,
        decoding: &HashSet<SequenceId>,
    ) -> Result<(), String> {
        let size = self.size;
        let sum: usize = plan.parts.iter().map(|part| part.num_tokens).sum();
        holds!(
            plan.num_tokens() == sum && plan.num_due() == plan.due().count(),
            "the plan's sums are wrong"
        );
        holds!(sum <= size.budget, "{sum} tokens are over the budget");
        let has_one = plan.is_empty() == self.guests.values().all(Guest::is_ending);
        holds!(has_one, "an empty plan although somebody is there");
        for id in &plan.preempted {
            self.tally.preempted += 1;
            holds!(self.guests.contains_key(id), "preempted one that has ended");
        }
        if let Some(first) = first {
            // Everything else may have to wait for it.
            holds!(
                !plan.preempted.contains(&first),
                "{}, the first of all, gives way",
                name(first)
            );
            holds!(
                !decoding.contains(&first) || plan.parts.iter().any(|part| part.id == first),
                "{}, the first of all, sits out",
                name(first)
            );
        }
        let mut seen = HashSet::new();
        for part in &plan.parts {
            holds!(seen.insert(part.id), "{} is in it twice", name(part.id));
            self.judge_part(part)?;
        }
        let decodes =
            |part: &&Part| decoding.contains(&part.id) && !plan.preempted.contains(&part.id);
        let decodes = plan.parts.iter().filter(decodes).count();
        let limit = match decodes {
            0 => size.budget,
            _ => size.budget.min(decodes + size.max_prefill),
        };
        holds!(
            sum <= limit,
            "{} tokens of prefill beside {decodes} decodes",
            sum - decodes
        );
        for &id in &plan.admitted {
            let sequence = self.scheduler.sequences.find(id);
            let cached = sequence.and_then(|sequence| sequence.cached_tokens);
            let Some(guest) = self.guests.get_mut(&id) else {
                return Err(format!("{} is admitted after its end", name(id)));
            };
            holds!(guest.cached.is_none(), "{} is admitted twice", name(id));
            let cached = cached.ok_or("admitted, and nobody looked what is cached")?;
            holds!(
                cached < guest.prompt_len,
                "{} has nothing to compute",
                name(id)
            );
            guest.cached = Some(cached);
            self.tally.hits += u64::from(cached > 0);
        }
        self.tally.copies += plan.copies.len() as u64;
        self.tally.evictions = self.scheduler.stats().prefix_evictions_total;
        // A short first step for somebody leaves others behind, but not twice in a row.
        let express = &self.scheduler.express;
        let leaves_behind = express.leaves_behind();
        holds!(
            !(leaves_behind && express.rests()),
            "a short step follows a short step"
        );
        if sum < limit && plan.preempted.is_empty() && !leaves_behind {
            let next = self.scheduler.next_waiting(self.now);
            let next = next.filter(|next| self.scheduler.has_room(next.slot));
            if let Some(next) = next {
                let id = self.scheduler.sequences[next.slot].id();
                return Err(format!("{} waits although there is room", name(id)));
            }
        }
        Ok(())
    }

    fn judge_part(&self, part: &Part) -> Result<(), String> {
        let who = name(part.id);
        let sequence = self.scheduler.sequences.find(part.id);
        let sequence = sequence.ok_or_else(|| format!("{who} has a part after its end"))?;
        let guest = &self.guests[&part.id];
        let end = part.start + part.num_tokens;
        let room = sequence.block_table().len() * self.size.block_size;
        holds!(
            sequence.tokens() == &guest.tokens[..guest.told]
                && sequence.num_tokens() == guest.tokens.len(),
            "{who} has other tokens than it was given"
        );
        holds!(
            sequence.phase == Phase::Running,
            "{who} has a part and does not run"
        );
        holds!(
            part.start == sequence.num_computed_tokens() && part.num_tokens > 0,
            "{who} computes {}..{end} and has {} computed",
            part.start,
            sequence.num_computed_tokens()
        );
        holds!(
            end <= guest.tokens.len() && part.due == (end == guest.tokens.len()),
            "{who} computes up to {end} of {}, due: {}",
            guest.tokens.len(),
            part.due
        );
        holds!(
            end <= room,
            "{who} computes {end} tokens in room for {room}"
        );
        Ok(())
    }

    /// Carries the plan out: what every running sequence relies on must be there, computed for it or for those with
    /// whom it may share, and nobody may write where somebody else reads.
    pub(super) fn compute(&mut self, plan: &StepPlan) -> Result<(), String> {
        plan.copies.iter().for_each(|&copy| self.memory.copy(copy));
        let scheduler = &self.scheduler;
        for &slot in &scheduler.running {
            let sequence = &scheduler.sequences[slot];
            let (guest, who) = (&self.guests[&sequence.id()], name(sequence.id()));
            for position in 0..sequence.num_computed_tokens() {
                let content = self.memory.read(sequence.block_table(), position);
                let right = guest.beginnings[position];
                match content {
                    Some(Content { beginning, circle }) if beginning == right => holds!(
                        circle == guest.circle || position < guest.public,
                        "{who} of {:?} reads token {position} of {circle:?}",
                        guest.circle
                    ),
                    Some(_) => return Err(format!("{who} reads another's token at {position}")),
                    None => return Err(format!("{who} reads nothing at {position}")),
                }
            }
        }
        for part in &plan.parts {
            let table = scheduler.sequences[part.slot].block_table();
            let guest = &self.guests[&part.id];
            for position in part.start..part.start + part.num_tokens {
                let block = table[position / self.size.block_size];
                let content = Content {
                    beginning: guest.beginnings[position],
                    circle: guest.circle,
                };
                let alone = scheduler.blocks.held_alone(&[block], &[]) == 1;
                let once = self.memory.write(table, position, content, self.steps);
                holds!(
                    alone && once,
                    "{} writes into block {}, which others read",
                    name(part.id),
                    block.0
                );
            }
        }
        for id in &plan.preempted {
            if let Some(guest) = self.guests.get_mut(id) {
                guest.computed = 0;
            }
        }
        for part in &plan.parts {
            if let Some(guest) = self.guests.get_mut(&part.id) {
                guest.computed = part.start + part.num_tokens;
            }
        }
        Ok(())
    }

    /// Everybody who was due a token got it, and ended if it was the last one.
    pub(super) fn judge_outcomes(
        &mut self,
        plan: &StepPlan,
        sampled: &[TokenId],
        outcomes: &[Outcome],
    ) -> Result<(), String> {
        let due: Vec<(&Part, TokenId)> = (plan.due().zip(sampled))
            .filter(|(part, _)| self.guests.contains_key(&part.id))
            .map(|(part, &token)| (part, token))
            .collect();
        holds!(outcomes.len() == due.len(), "tokens were lost");
        for ((part, token), outcome) in due.into_iter().zip(outcomes) {
            let who = name(part.id);
            holds!(
                (outcome.id, outcome.token) == (part.id, token),
                "{who} got another's token"
            );
            let Some(guest) = self.guests.get_mut(&part.id) else {
                return Err(format!("{who} got a token after its end"));
            };
            guest.told += 1;
            holds!(
                guest.told == guest.tokens.len() && guest.tokens.last() == Some(&token),
                "{who} got another token than was computed on"
            );
            self.tally.generated += 1;
            let is_full = guest.is_full();
            let expected = match (token == EOS, is_full) {
                (true, _) => Some(FinishReason::Stop),
                (false, true) => Some(FinishReason::Length),
                (false, false) => None,
            };
            let finished = outcome.finished.map(|(reason, _)| reason);
            holds!(
                finished == expected,
                "{who} ends with {finished:?}, not {expected:?}"
            );
            if let Some((reason, usage)) = outcome.finished {
                self.gone(part.id, reason, usage)?;
            }
        }
        Ok(())
    }
}
