//! Requests at given times, served in the virtual time of a roofline.

use std::collections::HashMap;
use std::time::Duration;

use super::script::standing;
use crate::auth::Priority;
use crate::engine::null::{NullName, Roofline};
use crate::engine::scheduler::{Scheduler, StepPlan};
use crate::engine::sequence::{Arrival, SequenceId};
use crate::engine::{
    Capacity, EngineConfig, Request, SamplingParams, StopConditions, TokenId, Usage,
};

/// A request and when it comes.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) at: Duration,
    /// Index in `PEOPLE`.
    pub(super) who: usize,
    pub(super) weight: u32,
    pub(super) priority: Priority,
    pub(super) prompt: Vec<TokenId>,
    pub(super) max_tokens: usize,
}

/// What became of it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) who: usize,
    pub(super) sent: Duration,
    /// When each token came.
    pub(super) tokens: Vec<Duration>,
    /// Set if it ended within the run.
    pub(super) usage: Option<Usage>,
}

pub(super) struct Run {
    pub(super) answers: Vec<Answer>,
    pub(super) lasted: Duration,
    pub(super) longest_step: Duration,
    pub(super) preemptions: u64,
}

impl Ask {
    /// One of `len` tokens that no other `text` begins with.
    pub(super) fn new(at: Duration, who: usize, text: u32, len: usize, max_tokens: usize) -> Self {
        let token = |at: usize| text * 31 + at as u32 % 29;
        Self {
            at,
            who,
            weight: 1,
            priority: Priority::Normal,
            prompt: (0..len).map(token).collect(),
            max_tokens,
        }
    }
}

impl Answer {
    /// Time to first token.
    pub(super) fn ttft(&self) -> Duration {
        self.tokens[0] - self.sent
    }

    /// Times between tokens, with the moment at which each of them was over.
    pub(super) fn gaps(&self) -> impl Iterator<Item = (Duration, Duration)> {
        self.tokens
            .windows(2)
            .map(|pair| (pair[1], pair[1] - pair[0]))
    }
}

/// Serves the requests until all have ended, or for as long as `lasts`.
pub(super) fn run(config: &EngineConfig, mut asks: Vec<Ask>, lasts: Duration) -> Run {
    let name = NullName::parse("mixtral-8x7b@a100-w4a16").unwrap();
    let (card, precision) = name.on.unwrap();
    let roofline = Roofline::new(name.shape, card, precision);
    let block_size = 16;
    let capacity = Capacity {
        vocab_size: 1 << 20,
        max_model_len: 32_768,
        num_blocks: name.kv_cache_tokens().unwrap().unwrap() / block_size,
        block_size,
    };
    asks.sort_by_key(|ask| ask.at);
    let mut scheduler = Scheduler::new(capacity, config, [].into());
    let mut answers: Vec<Answer> = Vec::new();
    let mut asks = asks.into_iter().peekable();
    let (mut now, mut longest_step) = (Duration::ZERO, Duration::ZERO);
    let (mut plan, mut outcomes) = (StepPlan::default(), Vec::new());
    let mut live: HashMap<SequenceId, usize> = HashMap::new();
    loop {
        if let (true, Some(next)) = (scheduler.is_idle(), asks.peek()) {
            now = now.max(next.at);
        }
        while let Some(ask) = asks.next_if(|ask| ask.at <= now) {
            let request = answers.len() as u64;
            live.insert(SequenceId { request, index: 0 }, answers.len());
            answers.push(Answer {
                who: ask.who,
                sent: ask.at,
                tokens: Vec::new(),
                usage: None,
            });
            scheduler.add(arrival(request, ask, &config.public_prefixes));
        }
        if scheduler.is_idle() || now >= lasts {
            break;
        }
        scheduler.plan(now, &mut plan);
        let takes = roofline.step_time(&plan);
        longest_step = longest_step.max(takes);
        now += takes;
        scheduler.begin(&plan);
        scheduler.commit(&plan, &vec![7; plan.num_due()], &mut outcomes);
        for outcome in &outcomes {
            let answer = &mut answers[live[&outcome.id]];
            answer.tokens.push(now);
            answer.usage = outcome.finished.map(|(_, usage)| usage);
        }
    }
    Run {
        answers,
        lasted: now,
        longest_step,
        preemptions: scheduler.stats().preemptions_total,
    }
}

fn arrival(number: u64, ask: Ask, public: &[std::sync::Arc<[TokenId]>]) -> Arrival {
    let request = Request {
        prompt: ask.prompt.into(),
        n: 1,
        sampling: SamplingParams::default(),
        until: StopConditions {
            max_tokens: ask.max_tokens,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
            ignore_eos: true,
        },
        cache_salt: None,
    };
    let standing = standing(ask.who, ask.weight, ask.priority, ask.at);
    Arrival::new(number, request, standing, 16, public, 0)
}

/// The value below which `percent` of the values lie.
pub(super) fn percentile(values: impl IntoIterator<Item = Duration>, percent: usize) -> Duration {
    let mut values: Vec<Duration> = values.into_iter().collect();
    values.sort();
    values[(values.len() * percent).div_ceil(100).max(1) - 1]
}
