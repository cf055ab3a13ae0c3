//! One generation: its tokens, how far they are computed, and when it ends. Token ids only, no text.

use std::collections::HashMap;
use std::ops::Index;
use std::sync::Arc;

use super::block_manager::BlockId;
use super::philox::RandomStream;
use super::request::{FinishReason, Request, SamplingParams, StopConditions, TokenId, Usage};

/// Names a sequence: the request that it belongs to, and which of the request's completions it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId {
    /// Number of the request, unique within an engine.
    pub request: u64,
    /// Which of its `n` sequences, from 0.
    pub index: u32,
}

/// A prompt that is being continued.
///
/// ```text
/// tokens  | prompt .................. | generated ........ |
///         | computed: keys and values in the cache | not yet |
/// ```
/// It is due a sample when nothing is "not yet". Preemption moves the second line back to the start and leaves the
/// first as it is.
#[derive(Debug, Clone)]
pub struct Sequence {
    id: SequenceId,
    tokens: Vec<TokenId>,
    prompt_len: usize,
    pub(super) num_computed_tokens: usize,
    pub(super) block_table: Vec<BlockId>,
    sampling: Arc<SamplingParams>,
    until: Arc<StopConditions>,
    /// The model's end-of-sequence ids; empty if the request ignores them.
    eos: Arc<[TokenId]>,
    random: RandomStream,
}

impl Sequence {
    /// The `n` sequences of `request`, none of them computed. `seed` is used where the request brings none.
    pub fn all_of(
        number: u64,
        request: Request,
        eos: &Arc<[TokenId]>,
        seed: u64,
    ) -> impl Iterator<Item = Self> + use<> {
        let Request {
            prompt,
            n,
            sampling,
            until,
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
            num_computed_tokens: 0,
            block_table: Vec::new(),
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

    /// Prompt and generated tokens, in order.
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

    /// Leading tokens whose keys and values are in the cache.
    pub fn num_computed_tokens(&self) -> usize {
        self.num_computed_tokens
    }

    /// Tokens known and not yet computed.
    pub fn num_uncomputed_tokens(&self) -> usize {
        self.tokens.len() - self.num_computed_tokens
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
        self.random.uniform(self.generated().len())
    }

    /// Ids that may not be chosen next, because they would end it before `min_tokens`.
    pub fn forbidden(&self) -> impl Iterator<Item = TokenId> + Clone {
        let too_short = self.generated().len() < self.until.min_tokens;
        let (eos, stop) = if too_short {
            (&*self.eos, &*self.until.stop_token_ids)
        } else {
            (&[][..], &[][..])
        };
        eos.iter().chain(stop).copied()
    }

    /// Appends a generated token. The answer says whether it ends the sequence; it counts either way.
    pub(super) fn push(&mut self, token: TokenId, max_model_len: usize) -> Option<FinishReason> {
        let long_enough = self.generated().len() >= self.until.min_tokens;
        self.tokens.push(token);
        if long_enough && (self.eos.contains(&token) || self.until.stop_token_ids.contains(&token))
        {
            Some(FinishReason::Stop)
        } else if self.generated().len() >= self.until.max_tokens
            || self.tokens.len() >= max_model_len
        {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    /// The tokens that it has used.
    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_len,
            cached_tokens: 0,
            completion_tokens: self.generated().len(),
        }
    }
}

/// The sequences that an engine holds, by name.
#[derive(Debug, Clone, Default)]
pub struct Sequences(HashMap<SequenceId, Sequence>);

impl Sequences {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sequence of that name, if there is one.
    pub fn find(&self, id: SequenceId) -> Option<&Sequence> {
        self.0.get(&id)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Sequence> {
        self.0.values()
    }

    pub(super) fn insert(&mut self, sequence: Sequence) {
        let known = self.0.insert(sequence.id, sequence);
        assert!(
            known.is_none(),
            "request numbers are used once. This is a bug."
        );
    }

    pub(super) fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        self.0.remove(&id)
    }

    pub(super) fn at(&mut self, id: SequenceId) -> &mut Sequence {
        self.0.get_mut(&id).expect(UNKNOWN)
    }
}

impl Index<SequenceId> for Sequences {
    type Output = Sequence;

    fn index(&self, id: SequenceId) -> &Sequence {
        self.0.get(&id).expect(UNKNOWN)
    }
}

const UNKNOWN: &str = "plans and queues name only sequences that exist. This is a bug.";
