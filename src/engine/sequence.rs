//! One generation: its tokens, how far they are computed, and when it ends. Token ids only, no text.

mod store;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::block_manager::BlockId;
use super::fairness::{Queued, SubjectSlot};
use super::philox::RandomStream;
use super::prefix_cache::{BlockHash, Chain};
use super::request::{FinishReason, Request, SamplingParams, StopConditions, TokenId, Usage};
use crate::auth::{IdentityKey, Priority};

pub use store::{SequenceSlot, Sequences};

/// Names a sequence: the request that it belongs to, and which of the request's completions it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId {
    /// Number of the request, unique within an engine.
    pub request: u64,
    /// Which of its `n` sequences, from 0.
    pub index: u32,
}

/// A request on its way into the scheduler.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Unique within an engine, in order of submission.
    pub number: u64,
    /// What is asked.
    pub request: Request,
    /// Who asks, and when.
    pub standing: Standing,
    /// The names of the prompt's full blocks.
    pub chain: Chain,
    /// Used where the request brings no seed.
    pub seed: u64,
}

impl Arrival {
    /// Names the prompt's blocks of `block_size` tokens for the tenant of `standing`. That costs a hash per block, so
    /// it is done on the caller's thread.
    pub fn new(
        number: u64,
        request: Request,
        standing: Standing,
        block_size: usize,
        public_prefixes: &[Arc<[TokenId]>],
        seed: u64,
    ) -> Self {
        let owner = BlockHash::seed(&standing.tenant, request.cache_salt.as_deref());
        let public = public_prefixes.iter().map(|prefix| &**prefix);
        let chain = Chain::of(&request.prompt, block_size, owner, public);
        Self {
            number,
            request,
            standing,
            chain,
            seed,
        }
    }
}

/// Whose a sequence is and what that entitles it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Who is served: fairness is between subjects.
    pub subject: IdentityKey,
    /// Within which blocks are shared and quotas hold.
    pub tenant: IdentityKey,
    /// The subject's weight against others.
    pub weight: NonZeroU32,
    /// The request's class.
    pub priority: Priority,
    /// When the request came, since the engine's start.
    pub arrived: Duration,
}

/// A prompt that is being continued.
///
/// ```text
/// tokens  | prompt .................. | generated ........ | under way |
///         | computed: keys and values in the cache | not yet           |
/// ```
/// It is due a sample when nothing is "not yet". Preemption moves the second line back to the start and leaves the
/// first as it is.
///
/// A token is under way while a step runs that chooses it. Which one it will be is not known, but that there will be one
/// is: it has a position, is planned, and is computed by a device that takes it from where it was written.
#[derive(Debug, Clone)]
pub struct Sequence {
    id: SequenceId,
    tokens: Vec<TokenId>,
    prompt_len: usize,
    /// Its place among the tokens that the running step chooses, if that step chooses one for it.
    under_way: Option<u32>,
    pub(super) num_computed_tokens: usize,
    pub(super) block_table: Vec<BlockId>,
    pub(super) phase: Phase,
    /// The names of its full blocks, perhaps of more than are computed.
    pub(super) chain: Chain,
    /// Leading blocks of its table that are in the prefix cache, or may not be put there.
    pub(super) published_blocks: usize,
    /// Prompt tokens found in the prefix cache when it was first admitted; `None` before.
    pub(super) cached_tokens: Option<usize>,
    pub(super) subject: SubjectSlot,
    pub(super) standing: Standing,
    /// The class in which it was admitted or, if it had to wait after that, had its last chunk. Its prompt keeps it
    /// until it is computed.
    pub(super) class: Priority,
    /// When it was admitted or had a later chunk of its prompt, since the engine's start.
    pub(super) stepped: Duration,
    /// Sequences of its request that wait for it to compute the prompt that they share.
    pub(super) followers: Vec<SequenceSlot>,
    /// The sequence whose prompt it may take over.
    pub(super) leader: Option<(SequenceSlot, SequenceId)>,
    sampling: Arc<SamplingParams>,
    until: Arc<StopConditions>,
    /// The model's end-of-sequence ids; empty if the request ignores them.
    eos: Arc<[TokenId]>,
    random: RandomStream,
}

/// Where a sequence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// In its subject's queue.
    Waiting,
    /// In no queue until the first sequence of its request has computed their prompt.
    Following,
    /// Holds blocks and takes part in steps.
    Running,
    /// Waits for its last token, which is under way: it holds no blocks and takes part in no further step.
    Ending,
}

impl Sequence {
    /// The `n` sequences of a request, none of them computed.
    pub(super) fn all_of(
        arrival: Arrival,
        subject: SubjectSlot,
        eos: &Arc<[TokenId]>,
    ) -> impl Iterator<Item = Self> + use<> {
        let Arrival {
            number,
            request,
            standing,
            chain,
            seed,
        } = arrival;
        let Request {
            prompt,
            n,
            sampling,
            until,
            cache_salt: _,
        } = request;
        let eos = if until.ignore_eos {
            Arc::default()
        } else {
            Arc::clone(eos)
        };
        let seed = sampling.seed.unwrap_or(seed);
        let (sampling, until) = (Arc::new(sampling), Arc::new(until));
        (0..n).map(move |index| Self {
            id: SequenceId {
                request: number,
                index,
            },
            tokens: prompt.to_vec(),
            prompt_len: prompt.len(),
            under_way: None,
            num_computed_tokens: 0,
            block_table: Vec::new(),
            phase: Phase::Waiting,
            chain: chain.clone(),
            published_blocks: 0,
            cached_tokens: None,
            subject,
            standing,
            class: standing.priority,
            stepped: standing.arrived,
            followers: Vec::new(),
            leader: None,
            sampling: Arc::clone(&sampling),
            until: Arc::clone(&until),
            eos: Arc::clone(&eos),
            random: RandomStream::new(seed, index),
        })
    }

    /// Its name.
    pub fn id(&self) -> SequenceId {
        self.id
    }

    /// Prompt and generated tokens, in order, as far as they are known.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// The tokens that the caller gave.
    pub fn prompt(&self) -> &[TokenId] {
        &self.tokens[..self.prompt_len]
    }

    /// The tokens generated so far.
    pub fn generated(&self) -> &[TokenId] {
        &self.tokens[self.prompt_len..]
    }

    /// Its place among the tokens that the running step chooses, if one of them will be its own.
    pub fn under_way(&self) -> Option<u32> {
        self.under_way
    }

    /// All its tokens, the one that is under way included.
    pub fn num_tokens(&self) -> usize {
        self.tokens.len() + usize::from(self.under_way.is_some())
    }

    /// Its tokens after the prompt, the one that is under way included.
    pub fn num_generated(&self) -> usize {
        self.num_tokens() - self.prompt_len
    }

    /// Leading tokens whose keys and values are in the cache, or will be once the running step has ended.
    pub fn num_computed_tokens(&self) -> usize {
        self.num_computed_tokens
    }

    /// Tokens that it has and that are not yet computed.
    pub fn num_uncomputed_tokens(&self) -> usize {
        self.num_tokens() - self.num_computed_tokens
    }

    /// Its blocks in the cache, in order of position. Empty while it waits.
    pub fn block_table(&self) -> &[BlockId] {
        &self.block_table
    }

    /// How its next token is chosen.
    pub fn sampling(&self) -> &SamplingParams {
        &self.sampling
    }

    /// The random number that decides the next token, in `[0, 1)`.
    pub fn uniform(&self) -> f64 {
        self.random.uniform(self.num_generated())
    }

    /// Its random numbers.
    pub fn random(&self) -> RandomStream {
        self.random
    }

    /// Ids that may not be chosen next, because they would end it before `min_tokens`.
    pub fn forbidden(&self) -> impl Iterator<Item = TokenId> + Clone {
        let too_short = self.num_generated() < self.until.min_tokens;
        let (eos, stop) = if too_short {
            (&*self.eos, &*self.until.stop_token_ids)
        } else {
            (&[][..], &[][..])
        };
        eos.iter().chain(stop).copied()
    }

    /// A step has begun that chooses its next token, as the `row`th of that step. The answer says whether it is the last
    /// one, whichever it is.
    pub(super) fn begin_token(&mut self, row: u32, max_model_len: usize) -> bool {
        debug_assert!(self.under_way.is_none(), "one token at a time");
        self.under_way = Some(row);
        self.is_full(max_model_len)
    }

    /// Appends the token that was under way. The answer says whether it ends the sequence; it counts either way.
    pub(super) fn push(&mut self, token: TokenId, max_model_len: usize) -> Option<FinishReason> {
        self.under_way = None;
        let long_enough = self.generated().len() >= self.until.min_tokens;
        self.tokens.push(token);
        if long_enough && (self.eos.contains(&token) || self.until.stop_token_ids.contains(&token))
        {
            Some(FinishReason::Stop)
        } else if self.is_full(max_model_len) {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    /// Whether it may have no further token.
    fn is_full(&self, max_model_len: usize) -> bool {
        self.num_generated() >= self.until.max_tokens || self.num_tokens() >= max_model_len
    }

    /// The tokens that it has used. The prompt counts with the first sequence of a request alone, and until there is a
    /// token only as far as it was computed or found: whoever leaves the queue has used nothing.
    pub fn usage(&self) -> Usage {
        let first = usize::from(self.id.index == 0);
        let cached = self.cached_tokens.unwrap_or(0);
        let prompt = match self.generated() {
            [] => self.num_computed_tokens.max(cached),
            _ => self.prompt_len,
        };
        Usage {
            prompt_tokens: prompt * first,
            cached_tokens: cached * first,
            completion_tokens: self.generated().len(),
        }
    }

    /// What its place in the queue depends on.
    pub(super) fn queued(&self, slot: SequenceSlot) -> Queued {
        Queued {
            id: self.id,
            slot,
            priority: self.standing.priority,
            arrived: self.standing.arrived,
        }
    }

    /// Names its `index`th block, all of whose tokens it must know by now.
    pub(super) fn block_name(&mut self, index: usize, block_size: usize) -> BlockHash {
        while self.chain.names().len() <= index {
            let start = self.chain.names().len() * block_size;
            self.chain.push(&self.tokens[start..start + block_size]);
        }
        self.chain.names()[index]
    }
}
