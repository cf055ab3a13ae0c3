//! What happens to a scheduler: a script of events, made at random and cut down to what matters.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::auth::{Identity, Priority};
use crate::engine::sequence::Standing;
use crate::engine::{
    Capacity, EngineConfig, FinishReason, Request, SamplingParams, SchedulingPolicy,
    StopConditions, TokenId,
};

/// A small scheduler and all that happens to it.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) size: Size,
    pub(super) events: Vec<Event>,
}

/// The sizes and switches of a scheduler.
#[derive(Debug, Clone)]
pub(super) struct Size {
    pub(super) block_size: usize,
    /// Beyond what the longest sequence takes.
    pub(super) spare_blocks: usize,
    pub(super) budget: usize,
    pub(super) max_prefill: usize,
    pub(super) max_num_seqs: usize,
    pub(super) policy: SchedulingPolicy,
    pub(super) prefix_caching: bool,
    pub(super) quota: Option<u8>,
    /// Whether [`PUBLIC`] is a public prefix.
    pub(super) public: bool,
    /// Whether a step is planned while the one before runs.
    pub(super) ahead: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Event {
    Arrive(Visit),
    /// A plan and the commit of the step that runs, which take a while.
    Step(Duration),
    /// The `pick`th of those that are there ends.
    End {
        pick: usize,
        reason: FinishReason,
    },
    Idle(Duration),
    /// The engine fails: everything ends at once.
    EndAll,
}

/// A request and who makes it.
#[derive(Debug, Clone)]
pub(super) struct Visit {
    /// Index in [`PEOPLE`].
    pub(super) who: usize,
    pub(super) weight: u32,
    pub(super) priority: Priority,
    /// Whether the prompt begins with the text that the `pick`th of the ended sequences came to.
    pub(super) continues: Option<usize>,
    /// The prompt, as letters that stand for [`STEM`] tokens each.
    pub(super) stems: String,
    pub(super) n: u32,
    pub(super) max_tokens: usize,
    pub(super) salt: Option<char>,
}

impl Size {
    pub(super) fn num_blocks(&self) -> usize {
        LONGEST.div_ceil(self.block_size) + self.spare_blocks
    }

    pub(super) fn capacity(&self) -> Capacity {
        Capacity {
            vocab_size: 256,
            max_model_len: LONGEST,
            num_blocks: self.num_blocks(),
            block_size: self.block_size,
        }
    }

    pub(super) fn config(&self) -> EngineConfig {
        EngineConfig {
            max_num_batched_tokens: self.budget,
            max_prefill_tokens: self.max_prefill,
            max_num_seqs: self.max_num_seqs,
            scheduling_policy: self.policy,
            prefix_caching: self.prefix_caching,
            max_tenant_blocks_percent: self.quota,
            public_prefixes: self.public_prefixes(),
            ..EngineConfig::default()
        }
    }

    pub(super) fn public_prefixes(&self) -> Vec<Arc<[TokenId]>> {
        let prefix = self.public.then(|| tokens_of(PUBLIC).into());
        prefix.into_iter().collect()
    }
}

impl Visit {
    pub(super) fn request(&self, prompt: Vec<TokenId>) -> Request {
        Request {
            prompt: prompt.into(),
            n: self.n,
            sampling: SamplingParams::default(),
            until: StopConditions {
                max_tokens: self.max_tokens,
                min_tokens: 0,
                stop_token_ids: Vec::new(),
                ignore_eos: false,
            },
            cache_salt: self.salt.map(|salt| salt.to_string().into()),
        }
    }

    pub(super) fn standing(&self, arrived: Duration) -> Standing {
        standing(self.who, self.weight, self.priority, arrived)
    }
}

pub(super) fn standing(who: usize, weight: u32, priority: Priority, arrived: Duration) -> Standing {
    let (name, tenant) = PEOPLE[who];
    let identity = Identity::of_tenant_for_tests(name, tenant);
    Standing {
        subject: identity.subject_key(),
        tenant: identity.tenant_key(),
        weight: NonZeroU32::new(weight).unwrap(),
        priority,
        arrived,
    }
}

/// The tokens that the letters stand for.
pub(super) fn tokens_of(stems: &str) -> Vec<TokenId> {
    let stem = |letter: u8| (0..STEM).map(move |at| 16 + u32::from(letter - b'A') * STEM + at);
    stems.bytes().flat_map(stem).collect()
}

pub(super) fn script(events: usize) -> impl Strategy<Value = Script> {
    let events = prop::collection::vec(event(), events);
    (size(), events).prop_map(|(size, events)| Script { size, events })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        80 => visit().prop_map(Event::Arrive),
        260 => (1_u64..100).prop_map(|ms| Event::Step(Duration::from_millis(ms))),
        25 => (any::<usize>(), reason()).prop_map(|(pick, reason)| Event::End { pick, reason }),
        4 => (1_u64..40).prop_map(|s| Event::Idle(Duration::from_secs(s))),
        1 => Just(Event::EndAll),
    ]
}

fn reason() -> impl Strategy<Value = FinishReason> {
    prop_oneof![
        Just(FinishReason::Cancelled),
        Just(FinishReason::Stop),
        Just(FinishReason::Revoked),
        Just(FinishReason::Expired),
        Just(FinishReason::DeadlineExceeded),
        Just(FinishReason::BudgetSpent),
    ]
}

prop_compose! {
    fn size()(
        block_size in 1_usize..6,
        spare_blocks in 0_usize..16,
        budget in 1_usize..24,
        max_prefill in 1_usize..16,
        max_num_seqs in 1_usize..7,
        policy in prop_oneof![
            2 => Just(SchedulingPolicy::Fair), 1 => Just(SchedulingPolicy::FirstCome),
        ],
        prefix_caching in prop_oneof![3 => Just(true), 1 => Just(false)],
        quota in proptest::option::weighted(0.3, 0_u8..=100),
        public in any::<bool>(),
        ahead in any::<bool>(),
    ) -> Size {
        Size {
            block_size, spare_blocks, budget, max_prefill, max_num_seqs, policy, prefix_caching, quota, public, ahead,
        }
    }
}

prop_compose! {
    fn visit()(
        who in 0..PEOPLE.len(),
        weight in 1_u32..4,
        priority in prop_oneof![
            1 => Just(Priority::Low), 4 => Just(Priority::Normal), 1 => Just(Priority::High),
        ],
        continues in proptest::option::weighted(0.3, any::<usize>()),
        stems in "(PP?)?[AB]{1,3}[A-D]?",
        n in prop_oneof![3 => Just(1_u32), 1 => 2_u32..5],
        max_tokens in 1..=MAX_TOKENS,
        salt in proptest::option::weighted(0.2, prop_oneof![Just('s'), Just('t')]),
    ) -> Visit {
        Visit { who, weight, priority, continues, stems, n, max_tokens, salt }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            block_size,
            budget,
            max_prefill,
            max_num_seqs,
            policy,
            ..
        } = self;
        let blocks = self.num_blocks();
        write!(
            f,
            "{blocks} blocks of {block_size} tokens, at most {budget} tokens a step, "
        )?;
        write!(
            f,
            "{max_prefill} of prefill beside decodes, {max_num_seqs} sequences, {policy:?}"
        )?;
        write!(
            f,
            ", prefixes {}",
            if self.prefix_caching {
                "kept"
            } else {
                "not kept"
            }
        )?;
        if self.public {
            write!(f, ", {PUBLIC:?} public")?;
        }
        match self.quota {
            Some(percent) => write!(f, ", {percent} % per tenant"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, tenant) = PEOPLE[self.who];
        write!(f, "{name}/{tenant} sends {:?} (n={}, ", self.stems, self.n)?;
        write!(f, "max_tokens={}", self.max_tokens)?;
        if self.weight != 1 {
            write!(f, ", weight={}", self.weight)?;
        }
        if self.priority != Priority::Normal {
            write!(f, ", {:?}", self.priority)?;
        }
        if let Some(salt) = self.salt {
            write!(f, ", salt={salt:?}")?;
        }
        write!(f, ")")
    }
}

/// Who may come: subject and tenant.
pub(super) const PEOPLE: [(&str, &str); 6] = [
    ("alice", "acme"),
    ("bob", "acme"),
    ("carol", "bolt"),
    ("dave", "bolt"),
    ("erin", "coil"),
    ("frank", "coil"),
];
/// Longest sequence, prompt and completion.
pub(super) const LONGEST: usize = 40;
/// Longest prompt.
pub(super) const MAX_PROMPT: usize = LONGEST - MAX_TOKENS;
const MAX_TOKENS: usize = 12;
/// Tokens that a letter stands for: no multiple of a usual block size, so that prompts part within blocks.
const STEM: u32 = 3;
/// A declared prefix: six tokens.
pub(super) const PUBLIC: &str = "PP";
