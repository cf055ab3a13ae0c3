//! A model for tests whose logits are a pure function of the tokens so far, which it knows only through its own paged
//! cache: a wrong slot, position, block table or length gives wrong tokens or a failed assertion.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::time::Duration;

use super::executor::Executor;
use super::fairness::Book;
use super::sampler::Sampler;
use super::scheduler::StepPlan;
use super::sequence::Sequences;
use super::sequence::{Arrival, Sequence, Standing};
use super::{
    Capacity, EngineConfig, Event, ExecuteError, FinishReason, Forward, Request, SamplingParams,
    SchedulingPolicy, StopConditions, TokenId, Usage,
};
use crate::auth::{Permit, Priority};
use crate::model::StepBatch;

pub(super) const VOCAB: usize = 23;
pub(super) const EOS: TokenId = 2;

pub(super) struct FakeModel {
    pub(super) capacity: Capacity,
    /// Token and position that each slot of the cache holds.
    slots: Vec<Option<(TokenId, u32)>>,
    logits: Vec<f32>,
    /// Tokens of each step so far.
    pub(super) step_tokens: Vec<usize>,
    /// What to do instead of the step of that number.
    pub(super) mishap: Option<(usize, Mishap)>,
}

/// An executor that may pretend to be a device: then it knows the tokens of the step before, which nobody else does yet,
/// and tells what a step chose when that is asked for.
pub(super) struct Deferred<E> {
    pub(super) inner: E,
    pub(super) overlaps: bool,
    /// What the step that was begun last chose.
    last: Vec<TokenId>,
    results: VecDeque<Result<Vec<TokenId>, ExecuteError>>,
}

impl<E> Deferred<E> {
    pub(super) fn new(inner: E, overlaps: bool) -> Self {
        Self {
            inner,
            overlaps,
            last: Vec::new(),
            results: VecDeque::new(),
        }
    }
}

impl<E: Executor> Executor for Deferred<E> {
    fn capacity(&self) -> Capacity {
        self.inner.capacity()
    }

    fn overlaps(&self) -> bool {
        self.overlaps
    }

    fn start(&mut self, plan: &StepPlan, sequences: &Sequences) -> Result<(), ExecuteError> {
        let sequences = sequences.with_tokens(|row| self.last[row as usize]);
        let result = self.inner.start(plan, &sequences);
        let result = result.and_then(|()| self.inner.finish());
        self.last = result.as_ref().cloned().unwrap_or_default();
        self.results.push_back(result);
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<TokenId>, ExecuteError> {
        self.results.pop_front().expect("a step was begun")
    }
}

#[derive(Clone, Copy)]
pub(super) enum Mishap {
    Panic,
    Error,
    ShortLogits,
}

impl FakeModel {
    pub(super) fn new(num_blocks: usize, block_size: usize) -> Self {
        let capacity = Capacity {
            vocab_size: VOCAB,
            max_model_len: 1 << 20,
            num_blocks,
            block_size,
        };
        let slots = vec![None; num_blocks * block_size];
        Self {
            capacity,
            slots,
            logits: Vec::new(),
            step_tokens: Vec::new(),
            mishap: None,
        }
    }
}

impl Forward for FakeModel {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn forward(&mut self, batch: &StepBatch) -> Result<impl Deref<Target = [f32]>, ExecuteError> {
        let num_tokens = batch.input_ids.len();
        let num_seqs = batch.context_lens.len();
        assert_eq!(
            [batch.positions.len(), batch.slot_mapping.len()],
            [num_tokens; 2]
        );
        assert_eq!(batch.cu_seqlens_q.len(), num_seqs + 1);
        assert_eq!(batch.block_tables.len(), num_seqs * batch.max_blocks);
        assert!(batch.logit_rows.is_sorted_by(|a, b| a < b));
        let block_size = self.capacity.block_size;
        for copy in batch.block_copies.chunks_exact(2) {
            let [from, to] = [copy[0], copy[1]].map(|block| block as usize * block_size);
            self.slots.copy_within(from..from + block_size, to);
        }
        for ((&slot, &token), &position) in batch
            .slot_mapping
            .iter()
            .zip(&batch.input_ids)
            .zip(&batch.positions)
        {
            self.slots[slot as usize] = Some((token, position));
        }
        self.logits.clear();
        for &row in &batch.logit_rows {
            let sequence = batch
                .cu_seqlens_q
                .iter()
                .rposition(|&start| start <= row)
                .unwrap();
            let tables = batch
                .block_tables
                .chunks(batch.max_blocks)
                .nth(sequence)
                .unwrap();
            let length = batch.context_lens[sequence];
            assert_eq!(
                length,
                batch.positions[row as usize] + 1,
                "logits are wanted of the last token only"
            );
            let history = (0..length as usize).map(|position| {
                let slot = tables[position / self.capacity.block_size] as usize
                    * self.capacity.block_size
                    + position % self.capacity.block_size;
                let (token, written_for) = self.slots[slot].unwrap();
                assert_eq!(
                    written_for as usize, position,
                    "slot {slot} belongs to another position"
                );
                token
            });
            self.logits.extend(logits_after(history));
        }
        let step = self.step_tokens.len();
        self.step_tokens.push(num_tokens);
        match self.mishap {
            Some((at, Mishap::Panic)) if at == step => panic!("a mishap that the test asked for"),
            Some((at, Mishap::Error)) if at == step => {
                Err(ExecuteError::Model("the device is gone".into()))
            }
            Some((at, Mishap::ShortLogits)) if at == step => Ok(&[][..]),
            _ => Ok(&self.logits[..]),
        }
    }
}

/// The fake's whole mathematics: a hash of the tokens, spread over the vocabulary as logits in `[-3, 3)`.
pub(super) fn logits_after(tokens: impl IntoIterator<Item = TokenId>) -> impl Iterator<Item = f32> {
    let state = tokens
        .into_iter()
        .fold(0x9E37_79B9_7F4A_7C15, |state, token| {
            mix(state ^ u64::from(token))
        });
    (0..VOCAB as u64)
        .map(move |id| (mix(state.wrapping_add(id)) >> 40) as f32 / (1 << 24) as f32 * 6.0 - 3.0)
}

fn mix(mut bits: u64) -> u64 {
    for multiplier in [0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB] {
        bits = (bits ^ (bits >> 29)).wrapping_mul(multiplier);
    }
    bits ^ (bits >> 32)
}

/// How one sequence must go: what it announces, how it ends, what it used.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Course {
    pub(super) tokens: Vec<TokenId>,
    pub(super) end: Option<(FinishReason, Usage)>,
}

/// The courses of a seeded or greedy request without engine, cache or batch: one token after the other.
pub(super) fn alone(request: &Request) -> Vec<Course> {
    let mut sampler = Sampler::new(VOCAB);
    sequences(0, request.clone(), EOS)
        .into_iter()
        .map(|mut sequence| {
            let mut tokens = Vec::new();
            loop {
                let row: Vec<f32> = logits_after(sequence.tokens().iter().copied()).collect();
                let token = sampler.sample(&row, &sequence);
                let finished = sequence.push(token, usize::MAX);
                if finished != Some(FinishReason::Stop) {
                    tokens.push(token);
                }
                if let Some(reason) = finished {
                    return Course {
                        tokens,
                        end: Some((reason, sequence.usage())),
                    };
                }
            }
        })
        .collect()
}

/// The sequences of a request, as a scheduler would make them.
pub(super) fn sequences(number: u64, request: Request, eos: TokenId) -> Vec<Sequence> {
    let arrival = arrival(number, request, "somebody");
    let mut book = Book::new(SchedulingPolicy::Fair);
    let subject = book.enter(arrival.standing.subject, NonZeroU32::MIN);
    Sequence::all_of(arrival, subject, &[eos].into()).collect()
}

/// A request of `subject`, a tenant of its own, that came at the very start; in blocks of 4.
pub(super) fn arrival(number: u64, request: Request, subject: &str) -> Arrival {
    let permit = Permit::for_tests(subject);
    let standing = Standing {
        subject: permit.identity().subject_key(),
        tenant: permit.identity().tenant_key(),
        weight: NonZeroU32::MIN,
        priority: Priority::Normal,
        arrived: Duration::ZERO,
    };
    Arrival::new(number, request, standing, 4, &[], 0)
}

/// Sorts a request's events into the courses of its `n` sequences, which must not go on after their end. Whether a
/// prefix was found in the cache is left out: that is for the tests of the cache.
pub(super) fn courses(n: u32, events: &[Event]) -> Vec<Course> {
    let mut courses = vec![
        Course {
            tokens: Vec::new(),
            end: None
        };
        n as usize
    ];
    for event in events {
        match *event {
            Event::Token { index, id } => {
                assert_eq!(courses[index as usize].end, None, "a token after the end");
                courses[index as usize].tokens.push(id);
            }
            Event::Finished {
                index,
                reason,
                usage,
            } => {
                let usage = Usage {
                    cached_tokens: 0,
                    ..usage
                };
                let before = courses[index as usize].end.replace((reason, usage));
                assert_eq!(before, None, "a second end");
            }
            Event::Failed(ref error) => panic!("{error}"),
        }
    }
    courses
}

/// Greedy, one sequence, ignoring end-of-sequence.
pub(super) fn request(prompt: &[TokenId], max_tokens: usize) -> Request {
    Request {
        prompt: prompt.into(),
        n: 1,
        sampling: SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        },
        until: StopConditions {
            max_tokens,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
            ignore_eos: true,
        },
        cache_salt: None,
    }
}

/// The same, but drawn with `seed`.
pub(super) fn seeded(prompt: &[TokenId], max_tokens: usize, seed: u64) -> Request {
    let sampling = SamplingParams {
        seed: Some(seed),
        ..SamplingParams::default()
    };
    Request {
        sampling,
        ..request(prompt, max_tokens)
    }
}

pub(super) fn config(budget: usize, max_num_seqs: usize) -> EngineConfig {
    EngineConfig {
        max_num_batched_tokens: budget,
        max_num_seqs,
        max_waiting: 64,
        ..EngineConfig::default()
    }
}
