//! Where a script is played: the scheduler, a pretended cache and model, and everybody who is there.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::memory::{Beginning, Circle, EOS, Memory};
use super::script::{Event, LONGEST, MAX_PROMPT, PEOPLE, Script, Size, Visit, tokens_of};
use crate::engine::scheduler::{Scheduler, StepPlan};
use crate::engine::sequence::{Arrival, SequenceId};
use crate::engine::{FinishReason, TokenId, Usage};

/// What a script has led to so far.
pub(super) struct Stage<'a> {
    pub(super) size: &'a Size,
    pub(super) scheduler: Scheduler,
    pub(super) memory: Memory,
    pub(super) guests: BTreeMap<SequenceId, Guest>,
    pub(super) now: Duration,
    pub(super) steps: u64,
    pub(super) tally: Tally,
    /// The step that runs while the next one is planned, and what it chooses.
    running: Option<(StepPlan, Vec<TokenId>)>,
    /// Texts of sequences that have ended, for others to continue.
    texts: Vec<Vec<TokenId>>,
    arrivals: u64,
    /// One line per event, if anybody wants to read it.
    log: Option<String>,
}

/// A sequence as its caller knows it.
pub(super) struct Guest {
    pub(super) circle: Circle,
    /// Leading tokens that may come from anybody.
    pub(super) public: usize,
    pub(super) prompt_len: usize,
    pub(super) max_tokens: usize,
    /// Its text, the token that is under way included.
    pub(super) tokens: Vec<TokenId>,
    /// Leading tokens that its caller knows.
    pub(super) told: usize,
    /// What each of the tokens and those before it come to.
    pub(super) beginnings: Vec<Beginning>,
    /// Set once it has been in a step.
    pub(super) cached: Option<usize>,
    /// Leading tokens that were computed for it and not taken away again.
    pub(super) computed: usize,
}

/// What happened, counted from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) events: u64,
    pub(super) generated: u64,
    pub(super) finished: [u64; 8],
    pub(super) preempted: u64,
    pub(super) hits: u64,
    pub(super) copies: u64,
    pub(super) evictions: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.generated += other.generated;
        self.preempted += other.preempted;
        self.hits += other.hits;
        self.copies += other.copies;
        self.evictions += other.evictions;
        for (sum, more) in self.finished.iter_mut().zip(other.finished) {
            *sum += more;
        }
    }
}

/// What broke, and at which event.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) event: usize,
    pub(super) what: String,
    pub(super) log: String,
}

/// Plays a script, then goes on without arrivals until everybody is served.
pub(super) fn play(script: &Script, with_log: bool) -> Result<Tally, Box<Failure>> {
    let mut stage = Stage::new(&script.size, with_log);
    for (at, event) in script.events.iter().enumerate() {
        stage.guarded(at, |stage| stage.happens(event))?;
    }
    stage.guarded(script.events.len(), Stage::drain)?;
    Ok(stage.tally)
}

impl<'a> Stage<'a> {
    fn new(size: &'a Size, with_log: bool) -> Self {
        Self {
            size,
            scheduler: Scheduler::new(size.capacity(), &size.config(), [EOS].into()),
            memory: Memory::new(size.num_blocks(), size.block_size),
            guests: BTreeMap::new(),
            now: Duration::ZERO,
            steps: 0,
            tally: Tally::default(),
            running: None,
            texts: Vec::new(),
            arrivals: 0,
            log: with_log.then(|| format!("{size}\n")),
        }
    }

    /// A panic is a failure like any other.
    fn guarded(
        &mut self,
        event: usize,
        act: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), Box<Failure>> {
        let result = catch_unwind(AssertUnwindSafe(|| act(self)));
        let result = result.unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| said.to_string()));
            Err(format!("panic: {}", said.unwrap_or_default()))
        });
        result.map_err(|what| {
            let log = self.log.take().unwrap_or_default();
            Box::new(Failure { event, what, log })
        })
    }

    fn happens(&mut self, event: &Event) -> Result<(), String> {
        self.tally.events += 1;
        match event {
            Event::Arrive(visit) => self.arrive(visit),
            Event::Step(takes) => {
                self.step()?;
                self.now += *takes;
            }
            Event::End { pick, reason } => self.end(*pick, *reason)?,
            Event::Idle(lasts) => {
                self.now += *lasts;
                self.note(|| format!("nothing for {} s", lasts.as_secs()));
            }
            Event::EndAll => self.end_all()?,
        }
        self.judge_books()
    }

    fn arrive(&mut self, visit: &Visit) {
        if self.guests.len() + visit.n as usize > MOST_GUESTS {
            self.note(|| format!("{visit}: turned away"));
            return;
        }
        self.arrivals += 1;
        let number = self.arrivals;
        let prompt = self.prompt(visit);
        let block_size = self.size.block_size;
        let public = self.size.public_prefixes();
        let from_public = public.iter().filter(|prefix| prompt.starts_with(prefix));
        let from_public = from_public.map(|prefix| prefix.len()).max().unwrap_or(0);
        let request = visit.request(prompt.clone());
        let standing = visit.standing(self.now);
        let arrival = Arrival::new(number, request, standing, block_size, &public, 0);
        self.scheduler.add(arrival);
        for index in 0..visit.n {
            let mut guest = Guest {
                circle: (PEOPLE[visit.who].1, visit.salt),
                public: from_public / block_size * block_size,
                prompt_len: prompt.len(),
                max_tokens: visit.max_tokens,
                tokens: Vec::new(),
                told: prompt.len(),
                beginnings: Vec::new(),
                cached: None,
                computed: 0,
            };
            prompt.iter().for_each(|&token| guest.learn(token));
            let request = number;
            self.guests.insert(SequenceId { request, index }, guest);
        }
        self.note(|| {
            let continued = prompt.len() - tokens_of(&visit.stems).len();
            match continued {
                0 => format!("{visit} as #{number}"),
                _ => format!("{visit} after {continued} tokens of an earlier text as #{number}"),
            }
        });
    }

    fn prompt(&self, visit: &Visit) -> Vec<TokenId> {
        let stems = tokens_of(&visit.stems);
        let text = visit.continues.filter(|_| !self.texts.is_empty());
        let mut prompt = match text {
            Some(pick) => self.texts[pick % self.texts.len()].clone(),
            None => Vec::new(),
        };
        prompt.truncate(MAX_PROMPT - stems.len());
        prompt.extend(stems);
        prompt
    }

    fn end(&mut self, pick: usize, reason: FinishReason) -> Result<(), String> {
        let Some(&id) = self.guests.keys().nth(pick % self.guests.len().max(1)) else {
            return Ok(());
        };
        self.note(|| format!("{} ends: {reason:?}", name(id)));
        let usage = self.scheduler.end(id, reason);
        let usage = usage.ok_or_else(|| format!("{} is unknown", name(id)))?;
        self.gone(id, reason, usage)?;
        match self.scheduler.end(id, reason) {
            None => Ok(()),
            Some(_) => Err(format!("{} ends twice", name(id))),
        }
    }

    fn end_all(&mut self) -> Result<(), String> {
        self.note(|| "the engine fails".to_owned());
        for (id, usage) in self.scheduler.end_all(FinishReason::Aborted) {
            self.gone(id, FinishReason::Aborted, usage)?;
        }
        match self.guests.keys().next() {
            None => Ok(()),
            Some(&id) => Err(format!("{} did not end with all others", name(id))),
        }
    }

    /// A sequence has ended: its usage must be what its caller saw.
    pub(super) fn gone(
        &mut self,
        id: SequenceId,
        reason: FinishReason,
        usage: Usage,
    ) -> Result<(), String> {
        let guest = self.guests.remove(&id);
        let mut guest = guest.ok_or_else(|| format!("{} ends twice", name(id)))?;
        let first = usize::from(id.index == 0);
        let cached = guest.cached.unwrap_or(0);
        // A prompt that was left behind counts as far as it was computed.
        let prompt = match guest.told > guest.prompt_len {
            true => guest.prompt_len,
            false => guest.computed.max(cached),
        };
        let seen = Usage {
            prompt_tokens: prompt * first,
            cached_tokens: cached * first,
            completion_tokens: guest.told - guest.prompt_len,
        };
        if usage != seen {
            return Err(format!(
                "{} used {seen:?}, reported are {usage:?}",
                name(id)
            ));
        }
        self.tally.finished[reason as usize] += 1;
        if self.texts.len() == MOST_TEXTS {
            self.texts.remove(0);
        }
        guest.tokens.truncate(guest.told);
        self.texts.push(guest.tokens);
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        let mut plan = StepPlan::default();
        let (first, decoding) = (self.first(), self.decoding());
        self.scheduler.plan(self.now, &mut plan);
        let (now, steps) = (self.now, self.steps);
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "t={:<7} step {steps}: {}", seconds(now), told(&plan));
        }
        self.judge_plan(&plan, first, &decoding)?;
        self.judge_books()?;
        self.compute(&plan)?;
        let due = plan.due().map(|part| {
            let guest = &self.guests[&part.id];
            guest.beginnings[guest.tokens.len() - 1].next_token(part.id.index)
        });
        let sampled: Vec<TokenId> = due.collect();
        self.land()?;
        self.scheduler.begin(&plan);
        for (part, &token) in plan.due().zip(&sampled) {
            // Unless its last token has ended it.
            if let Some(guest) = self.guests.get_mut(&part.id) {
                guest.learn(token);
            }
        }
        self.running = Some((plan, sampled));
        if !self.size.ahead {
            self.land()?;
        }
        self.judge_books()
    }

    /// The running step ends.
    fn land(&mut self) -> Result<(), String> {
        let Some((plan, sampled)) = self.running.take() else {
            return Ok(());
        };
        let mut outcomes = Vec::new();
        self.scheduler.commit(&plan, &sampled, &mut outcomes);
        self.judge_outcomes(&plan, &sampled, &outcomes)
    }

    /// Once nobody comes any more, everybody is served.
    fn drain(&mut self) -> Result<(), String> {
        self.note(|| "from here on nobody comes".to_owned());
        let mut left = self.longest_drain();
        while !self.scheduler.is_idle() {
            if left == 0 {
                return Err("no end in sight".to_owned());
            }
            left -= 1;
            self.step()?;
            self.now += Duration::from_millis(20);
        }
        match self.guests.keys().next() {
            None => Ok(()),
            Some(&id) => Err(format!("{} never ended", name(id))),
        }
    }

    /// Steps after which all must have ended. A step computes at least one token, but for the one after the last. Each
    /// sequence computes what it knows and will know once, and perhaps one token too many, and once more for each time that
    /// it is preempted. Others preempt it for a token that they generated or because they start: no more than
    /// `max_num_seqs` each time.
    fn longest_drain(&self) -> usize {
        let longest = |guest: &Guest| guest.prompt_len + guest.max_tokens + 1;
        let once: usize = self.guests.values().map(longest).sum();
        let longest = self.guests.values().map(longest).max().unwrap_or(0);
        1 + once + (once + self.guests.len()) * self.size.max_num_seqs * longest
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "t={:<7} {}", seconds(now), line());
        }
    }
}

impl Guest {
    /// Whether it can have no further token.
    pub(super) fn is_full(&self) -> bool {
        let generated = self.tokens.len() - self.prompt_len;
        generated == self.max_tokens || self.tokens.len() == LONGEST
    }

    /// Whether its last token is under way.
    pub(super) fn is_ending(&self) -> bool {
        self.is_full() && self.told < self.tokens.len()
    }

    pub(super) fn learn(&mut self, token: TokenId) {
        let last = self.beginnings.last().copied();
        let beginning = last.unwrap_or(Beginning::EMPTY).then(token);
        self.tokens.push(token);
        self.beginnings.push(beginning);
    }
}

/// A sequence's name in a script: `#7` for the first of a request, `#7.1` for the second.
pub(super) fn name(id: SequenceId) -> String {
    match id.index {
        0 => format!("#{}", id.request),
        index => format!("#{}.{index}", id.request),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2}s", time.as_secs_f64())
}

fn told(plan: &StepPlan) -> String {
    let mut line = String::new();
    for &id in &plan.preempted {
        let _ = write!(line, "{} gives way, ", name(id));
    }
    for copy in &plan.copies {
        let _ = write!(line, "block {} copied to {}, ", copy.from.0, copy.to.0);
    }
    for part in &plan.parts {
        let due = if part.due { "+1" } else { "" };
        let end = part.start + part.num_tokens;
        let _ = write!(line, "{} {}..{end}{due}, ", name(part.id), part.start);
    }
    line.truncate(line.len().saturating_sub(2));
    line
}

/// Sequences that may be there; more are turned away, as the engine's queue would do.
const MOST_GUESTS: usize = 16;
const MOST_TEXTS: usize = 8;
