//! What a caller asks of the engine and what it hears back: token ids only, never text.

use std::sync::Arc;
use std::time::Duration;

/// Index of a token in the model's vocabulary.
pub type TokenId = u32;

/// A prompt and how to continue it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Prompt token ids, BOS included; never empty.
    pub prompt: Arc<[TokenId]>,
    /// How many independent completions to generate (OpenAI's `n`); at least 1.
    pub n: u32,
    /// How each next token is chosen.
    pub sampling: SamplingParams,
    /// When generation ends.
    pub until: StopConditions,
    /// Narrows the circle with whom cached prefixes are shared from the tenant to those of it who give the same words.
    pub cache_salt: Option<Arc<str>>,
}

impl Request {
    /// Tokens that it may come to: its prompt once, and its longest completions.
    pub(super) fn most_tokens(&self) -> usize {
        let completions = self.until.max_tokens.saturating_mul(self.n as usize);
        self.prompt.len().saturating_add(completions)
    }
}

/// How one sequence chooses its next token. The defaults change nothing: plain sampling at temperature 1.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy; otherwise logits are divided by it. `0.0..=2.0` on the wire, any finite value ≥ 0 here.
    pub temperature: f32,
    /// Keep the smallest set of tokens whose probabilities sum to at least this; 1 keeps all. In `(0, 1]`.
    pub top_p: f32,
    /// Keep the `k` most likely tokens; `None` keeps all.
    pub top_k: Option<u32>,
    /// Keep tokens at least this fraction as likely as the likeliest; 0 keeps all. In `[0, 1]`.
    pub min_p: f32,
    /// Divide (positive) or multiply (negative) logits of tokens in prompt or output; 1 does nothing. Above 0.
    pub repetition_penalty: f32,
    /// Subtracted once per occurrence in the output. `-2..=2`.
    pub frequency_penalty: f32,
    /// Subtracted once if the token occurs in the output. `-2..=2`.
    pub presence_penalty: f32,
    /// Added to single logits before anything else; every id is below the vocabulary size.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Fixes the random stream: the same seed and request give the same tokens. `None`: the engine draws one.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

/// When a sequence is finished, apart from the context being full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopConditions {
    /// Most tokens to generate; at least 1. The server has already cut it to what the context leaves.
    pub max_tokens: usize,
    /// Neither end-of-sequence nor a stop id may be chosen before this many tokens were generated.
    pub min_tokens: usize,
    /// Token ids that end the sequence besides the model's own end-of-sequence ids.
    pub stop_token_ids: Vec<TokenId>,
    /// Treat the model's end-of-sequence ids as ordinary tokens.
    pub ignore_eos: bool,
}

/// One thing that happened to a request. `index` says to which of its `n` sequences, from 0.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A token was generated. The token that ends a sequence (end-of-sequence, stop id) is not announced,
    /// but counted in `Usage`.
    Token {
        /// Which of the request's sequences.
        index: u32,
        /// The token.
        id: TokenId,
    },
    /// The sequence ended; its last event.
    Finished {
        /// Which of the request's sequences.
        index: u32,
        /// Why it ended.
        reason: FinishReason,
        /// What it used.
        usage: Usage,
    },
    /// The whole request failed; the stream's last event.
    Failed(EngineError),
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// End-of-sequence, a stop id, or the caller said that it has seen enough.
    Stop,
    /// `max_tokens` or the context was reached.
    Length,
    /// The caller went away.
    Cancelled,
    /// The engine failed or was shut down.
    Aborted,
    /// The time that the caller's share allows a request was over.
    DeadlineExceeded,
    /// The caller's right was taken away.
    Revoked,
    /// A token budget of the caller does not cover its next token.
    BudgetSpent,
}

impl FinishReason {
    /// Every reason, in the order of [`super::Stats::finished_total`].
    pub const ALL: [Self; 7] = [
        Self::Stop,
        Self::Length,
        Self::Cancelled,
        Self::Aborted,
        Self::DeadlineExceeded,
        Self::Revoked,
        Self::BudgetSpent,
    ];
}

/// Tokens that a sequence used. The usage of a request is the sum over its sequences: the first one carries the prompt,
/// the others share it and count 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt; of one that ended before its first token, those that were computed.
    pub prompt_tokens: usize,
    /// Prompt tokens whose keys and values came from the prefix cache.
    pub cached_tokens: usize,
    /// Tokens generated, the one that ended the sequence included.
    pub completion_tokens: usize,
}

/// Why the engine could not finish a request that it had accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// A step panicked or the device failed.
    #[error("the engine failed while this request was running")]
    Failed,
    /// The server stops and the deadline for running requests has passed.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Why the engine did not take a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The waiting queue holds as many sequences as it may.
    #[error("the waiting queue is full ({limit} sequences)")]
    QueueFull {
        /// The most that may wait.
        limit: usize,
        /// When there will be room, as the queue moved lately.
        retry_after: Duration,
    },
    /// The waiting queue has as many tokens reserved as it may.
    #[error("the waiting queue is full ({limit} reserved tokens)")]
    QueueTokens {
        /// The most tokens that may be reserved by those who wait.
        limit: usize,
        /// When there will be room, as the queue moved lately.
        retry_after: Duration,
    },
    /// The caller has its share of the waiting queue; others still find room.
    #[error("the caller's share of the waiting queue is full ({limit} sequences)")]
    OverShare {
        /// The most that may wait for one subject.
        limit: usize,
        /// When there will be room, as the queue moved lately.
        retry_after: Duration,
    },
    /// The caller has its share of the tokens that waiting requests may reserve; others still find room.
    #[error("the caller's share of the waiting queue is full ({limit} reserved tokens)")]
    OverShareTokens {
        /// The most tokens that may be reserved by one subject's waiting requests.
        limit: usize,
        /// When there will be room, as the queue moved lately.
        retry_after: Duration,
    },
    /// The queue is so long that the request would be over its deadline before it starts.
    #[error("the request would wait longer than the {} s that it may take", .deadline.as_secs_f32())]
    TooLate {
        /// Longest time from arrival to end.
        deadline: Duration,
        /// When it would start in time, as the queue moved lately.
        retry_after: Duration,
    },
    /// More sequences than the caller could ever have waiting.
    #[error("the request asks for {n} sequences, at most {limit} can wait")]
    TooMany {
        /// Sequences asked for.
        n: usize,
        /// Sequences that may wait.
        limit: usize,
    },
    /// Prompt and completion together can never fit the KV cache or the model's context.
    #[error("the request needs {needed} tokens of context, at most {limit} fit")]
    TooLong {
        /// Prompt and completion, in tokens.
        needed: usize,
        /// The longest sequence that fits, in tokens.
        limit: usize,
    },
    /// No new requests: the server drains.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The engine has failed and takes nothing any more.
    #[error("the engine has failed")]
    Failed,
}
