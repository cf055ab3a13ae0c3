//! Who comes, what for, and to what engine: the property's random choices.

use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use crate::auth::{Priority, Share};
use crate::engine::fake::{VOCAB, config};
use crate::engine::{
    EngineConfig, Request, SamplingParams, SchedulingPolicy, StopConditions, TokenId,
};

#[derive(Debug, Clone)]
pub(super) struct Visit {
    /// Step before which it is submitted.
    pub(super) arrives: usize,
    pub(super) subject: &'static str,
    pub(super) tenant: &'static str,
    pub(super) share: Share,
    pub(super) request: Request,
    /// What cuts it short, and how many steps after its arrival.
    pub(super) leaves: Option<(Leaving, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Leaving {
    Drop,
    Finish,
    Revoked,
}

#[derive(Debug, Clone)]
pub(super) struct Size {
    pub(super) budget: usize,
    pub(super) max_prefill_tokens: usize,
    pub(super) max_num_seqs: usize,
    pub(super) block_size: usize,
    /// Beyond what the longest sequence takes.
    pub(super) spare_blocks: usize,
    pub(super) policy: SchedulingPolicy,
    pub(super) prefix_caching: bool,
    pub(super) max_tenant_blocks_percent: Option<u8>,
    /// Tokens of [`PUBLIC`] that are declared so.
    pub(super) public: usize,
    /// Whether tokens go out while the next step runs.
    pub(super) overlaps: bool,
    /// What passes between two steps.
    pub(super) pace: Duration,
}

impl Size {
    pub(super) fn config(&self) -> EngineConfig {
        EngineConfig {
            max_prefill_tokens: self.max_prefill_tokens,
            scheduling_policy: self.policy,
            prefix_caching: self.prefix_caching,
            max_tenant_blocks_percent: self.max_tenant_blocks_percent,
            public_prefixes: vec![PUBLIC[..self.public].into()],
            ..config(self.budget, self.max_num_seqs)
        }
    }
}

prop_compose! {
    pub(super) fn visit()(
        arrives in 0_usize..20,
        (subject, tenant) in select(&CALLERS),
        weight in 1_u32..4,
        priority in select(&[Priority::Low, Priority::Normal, Priority::High]),
        request in request(),
        leaves in proptest::option::weighted(0.3, (
            select(&[Leaving::Drop, Leaving::Finish, Leaving::Revoked]),
            0_usize..12,
        )),
    ) -> Visit {
        let weight = NonZeroU32::new(weight).unwrap();
        let share = Share { weight, priority, deadline: None };
        Visit { arrives, subject, tenant, share, request, leaves }
    }
}

prop_compose! {
    pub(super) fn size()(
        budget in 1_usize..24,
        max_prefill_tokens in 1_usize..24,
        max_num_seqs in 1_usize..6,
        block_size in 1_usize..6,
        spare_blocks in 0_usize..6,
        policy in select(&[SchedulingPolicy::Fair, SchedulingPolicy::FirstCome]),
        prefix_caching in prop::bool::weighted(0.8),
        max_tenant_blocks_percent in proptest::option::weighted(0.3, 1_u8..100),
        public in prop_oneof![2 => Just(0), 1 => Just(3), 1 => Just(PUBLIC.len())],
        pace in select(vec![Duration::ZERO, Duration::from_millis(20), Duration::from_secs(9)]),
        overlaps in any::<bool>(),
    ) -> Size {
        Size {
            budget, max_prefill_tokens, max_num_seqs, block_size, spare_blocks, policy, prefix_caching,
            max_tenant_blocks_percent, public, overlaps, pace,
        }
    }
}

/// Many begin alike, some are alike, few are like no other.
fn prompt() -> impl Strategy<Value = Vec<TokenId>> {
    let of_stems = prop::collection::vec(select(&STEMS), 1..5).prop_map(|stems| {
        let mut prompt = stems.concat();
        prompt.truncate(MAX_PROMPT);
        prompt
    });
    prop_oneof![
        4 => of_stems,
        1 => prop::collection::vec(0..VOCAB as TokenId, 1..=MAX_PROMPT),
    ]
}

prop_compose! {
    fn request()(
        prompt in prompt(),
        n in select(&[1_u32, 1, 2, 4]),
        max_tokens in 1..=MAX_TOKENS,
        min_tokens in 0_usize..4,
        stop_token_ids in prop::collection::vec(0..VOCAB as TokenId, 0..2),
        ignore_eos in any::<bool>(),
        temperature in prop_oneof![Just(0.0_f32), Just(0.8), Just(1.5)],
        top_k in proptest::option::of(1_u32..20),
        top_p in prop_oneof![Just(1.0_f32), Just(0.7)],
        frequency_penalty in prop_oneof![Just(0.0_f32), Just(0.5)],
        seed in any::<u64>(),
        salt in proptest::option::weighted(0.2, select(&["a", "b"])),
    ) -> Request {
        let sampling =
            SamplingParams { temperature, top_k, top_p, frequency_penalty, seed: Some(seed), ..SamplingParams::default() };
        let until = StopConditions { max_tokens, min_tokens, stop_token_ids, ignore_eos };
        Request { prompt: prompt.into(), n, sampling, until, cache_salt: salt.map(Into::into) }
    }
}

pub(super) const CALLERS: [(&str, &str); 4] = [
    ("ann", "garden"),
    ("ben", "garden"),
    ("cyd", "field"),
    ("ann", "field"),
];
const STEMS: [&[TokenId]; 4] = [&PUBLIC, &[5, 6, 7], &[5, 6, 8, 8], &[9]];
pub(super) const PUBLIC: [TokenId; 5] = [5, 6, 7, 8, 5];
pub(super) const MAX_PROMPT: usize = 12;
pub(super) const MAX_TOKENS: usize = 10;
