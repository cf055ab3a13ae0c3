//! A step's buffers on a device, allocated once, and the arrays that a step uploads.

use std::time::Duration;

use super::arrays::{Arrays, BLOCK_SIZE, Placed, Recounting, Recounts, Room};
use crate::model::{CacheId, Limits, MixtralConfig, ModelError, Recount, StepBatch};
use crate::ops::{self, Address, Device, Memory, Staged};

/// Buffers for the largest step.
#[derive(Debug)]
pub(super) struct Workspace<D: Device> {
    pub(super) arrays: Arrays<D>,
    recounting: Recounting<D>,
    /// What passes between host and device, taken in turns.
    exchanges: Vec<Exchange<D>>,
    /// The one of the step that was begun last.
    turn: usize,
    /// The turn of the last step whose tokens were fetched.
    fetched: Option<usize>,
    /// Tokens that the last step has chosen.
    pub chosen: usize,
    /// What `at` points into.
    _buffers: Vec<D::Memory>,
    pub at: Buffers,
    limits: Limits,
    /// `[logit_rows, vocab]` on the host.
    pub logits: Vec<f32>,
}

/// Places on the host for one step: what it sends, and what it chose.
#[derive(Debug)]
struct Exchange<D: Device> {
    arrays: D::Staged,
    ids: D::Staged,
}

/// Tokens that a step has been asked for.
#[derive(Debug)]
pub(super) struct Fetched {
    turn: usize,
    /// The turn of the step before it.
    before: Option<usize>,
    rows: usize,
}

/// Where the buffers lie. `t` rows of tokens, `p` of pairs (token, rank), `r` of logits.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// `[t, hidden]`, f32
    pub residual: Address,
    /// `[t, hidden]`, f32
    pub delta: Address,
    /// `[t, hidden]`, bf16
    pub normed: Address,
    /// `[t, q_width + 2 * kv_width]`, f32
    pub qkv: Address,
    /// `[t, q_width]`, bf16
    pub q: Address,
    /// `[t, q_width]`, bf16
    pub attended: Address,
    /// Parts of attention that are to be put together; see [`ops::attention_scratch_bytes`]
    pub scratch: Address,
    /// `[t, top_k]`, u32
    pub experts: Address,
    /// `[t, top_k]`, f32
    pub expert_weights: Address,
    /// `[p]`, u32
    pub order: Address,
    /// `[num_experts + 1]`, u32
    pub offsets: Address,
    /// `[p, intermediate]`, bf16
    pub activated: Address,
    /// `[p, hidden]`, f32
    pub pairs: Address,
    /// `[r, hidden]`, bf16
    pub last: Address,
    /// `[r, vocab]`, f32
    pub logits: Address,
    /// `[r, vocab]`, f32: logits with biases and penalties, of rows that have any
    pub adjusted: Address,
    /// `[r, vocab]`, u32: tables of counts
    pub counts: Address,
    /// `[r]`, u32: the chosen tokens
    pub ids: Address,
}

/// One step: its sizes, its arrays, the buffers.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub(super) num_tokens: u32,
    pub(super) num_seqs: u32,
    pub(super) num_logit_rows: u32,
    pub(super) block_size: u32,
    pub(super) cache: CacheId,
    /// No context is longer.
    pub(super) max_context: u32,
    /// Most query rows of a sequence.
    pub(super) max_rows: u32,
    /// `input_ids`, `positions` and `slots`, `[num_tokens]`; `cu_seqlens_q`, `[num_seqs + 1]`; `context_lens` and
    /// `table_starts`, `[num_seqs]`; `logit_rows`, `[num_logit_rows]`; `choices`, `[num_logit_rows, 16]`: how each token is
    /// chosen; `biases`, `[…, 2]`: ids and biases; all u32
    pub(super) arrays: Placed,
    pub(super) at: Buffers,
}

impl<D: Device> Workspace<D> {
    pub fn new(device: &D, config: &MixtralConfig, limits: Limits) -> Result<Self, ModelError> {
        let (t, r) = (limits.tokens, limits.logit_rows);
        let p = t * config.num_experts_per_tok;
        let (hidden, width) = (config.hidden_size, config.intermediate_size);
        let (q_width, kv_width) = (config.q_width(), config.kv_width());
        let mut buffers = Vec::new();
        let mut allocate = |elements: usize, bytes: usize| -> Result<Address, ModelError> {
            let memory = device.allocate(elements * bytes)?;
            let address = memory.address();
            buffers.push(memory);
            Ok(address)
        };
        let (heads, head_dim) = (config.num_attention_heads as u32, config.head_dim as u32);
        let scratch = ops::attention_scratch_bytes(heads, head_dim, r);
        let at = Buffers {
            residual: allocate(t * hidden, 4)?,
            delta: allocate(t * hidden, 4)?,
            normed: allocate(t * hidden, 2)?,
            qkv: allocate(t * (q_width + 2 * kv_width), 4)?,
            q: allocate(t * q_width, 2)?,
            attended: allocate(t * q_width, 2)?,
            scratch: allocate(scratch, 1)?,
            experts: allocate(p, 4)?,
            expert_weights: allocate(p, 4)?,
            order: allocate(p, 4)?,
            offsets: allocate(config.num_local_experts + 1, 4)?,
            activated: allocate(p * width, 2)?,
            pairs: allocate(p * hidden, 4)?,
            last: allocate(r * hidden, 2)?,
            logits: allocate(r * config.vocab_size, 4)?,
            adjusted: allocate(r * config.vocab_size, 4)?,
            counts: allocate(r * config.vocab_size, 4)?,
            ids: allocate(r, 4)?,
        };
        // Rows that fill a batch are never attended; they are multiplied all the same.
        device.upload(&vec![0; t * q_width * 2], at.attended)?;
        let room = Room::new(config, limits, BLOCK_SIZE);
        let exchange = || -> Result<Exchange<D>, ModelError> {
            Ok(Exchange {
                arrays: device.stage(room.bytes())?,
                ids: device.stage(r * 4)?,
            })
        };
        Ok(Self {
            exchanges: (0..TURNS).map(|_| exchange()).collect::<Result<_, _>>()?,
            turn: 0,
            fetched: None,
            chosen: 0,
            arrays: Arrays::new(device, room)?,
            recounting: Recounting::new(device, config, limits)?,
            limits,
            _buffers: buffers,
            at,
            logits: vec![0.0; r * config.vocab_size],
        })
    }

    /// Sends a batch's arrays, which have been checked. A batch that only decodes is filled up to a captured size.
    pub fn step(
        &mut self,
        device: &D,
        batch: &StepBatch,
        (block_size, cache): (usize, CacheId),
        padding: Padding,
    ) -> Result<Step, ModelError> {
        let (tokens, seqs) = (batch.input_ids.len(), batch.context_lens.len());
        if seqs > self.limits.logit_rows {
            return Err(ModelError::Batch(format!(
                "{seqs} sequences; a step takes at most {}",
                self.limits.logit_rows
            )));
        }
        self.turn = (self.turn + 1) % TURNS;
        let staged = &mut self.exchanges[self.turn].arrays;
        let arrays = self
            .arrays
            .send(device, batch, block_size, padding, staged)?;
        self.chosen = batch.choice.rows.len();
        let filling = padding.tokens - tokens;
        let rows = batch.cu_seqlens_q.windows(2).map(|pair| pair[1] - pair[0]);
        Ok(Step {
            num_tokens: padding.tokens as u32,
            num_seqs: (seqs + filling) as u32,
            num_logit_rows: (batch.logit_rows.len() + filling) as u32,
            block_size: block_size as u32,
            cache,
            max_context: padding.max_context as u32,
            max_rows: rows.max().unwrap_or(0),
            arrays,
            at: self.at,
        })
    }

    /// Makes room for sequences as long as the model's context in smaller blocks than there was room for.
    pub fn reserve(
        &mut self,
        device: &D,
        config: &MixtralConfig,
        block_size: usize,
    ) -> Result<(), ModelError> {
        let room = Room::new(config, self.limits, block_size);
        if room.bytes() > self.arrays.room().bytes() {
            self.arrays = Arrays::new(device, room)?;
            for exchange in &mut self.exchanges {
                exchange.arrays = device.stage(room.bytes())?;
            }
        }
        Ok(())
    }

    /// Sends the tokens of some sequences that are to be counted, at least of one. Returns the rest.
    pub fn send_recounts<'a>(
        &mut self,
        device: &D,
        recounts: &'a [Recount],
    ) -> Result<(Recounts, &'a [Recount]), ModelError> {
        self.recounting.send(device, recounts)
    }

    /// Asks for the tokens that the step that was begun last will have chosen for its `rows` rows.
    pub fn fetch(&mut self, device: &D, rows: usize) -> Result<Fetched, ModelError> {
        let turn = self.turn;
        // Without any, it still tells when the step is done.
        let bytes = rows.max(1) * size_of::<u32>();
        device.fetch(self.at.ids, bytes, &mut self.exchanges[turn].ids)?;
        let before = self.fetched.replace(turn);
        Ok(Fetched { turn, before, rows })
    }

    /// Waits for tokens. Returns them, and the device's time between the end of the step before and the beginning of this
    /// one.
    pub fn wait(
        &mut self,
        device: &D,
        fetched: &Fetched,
    ) -> Result<(Vec<u32>, Option<Duration>), ModelError> {
        let ids = &mut self.exchanges[fetched.turn].ids;
        let bytes = &ids.settled()?[..fetched.rows * size_of::<u32>()];
        let words = bytes.as_chunks::<4>().0.iter();
        let ids = words.map(|&word| u32::from_ne_bytes(word)).collect();
        let idled = match fetched.before {
            Some(before) => device.between(
                &self.exchanges[before].ids,
                &self.exchanges[fetched.turn].arrays,
            )?,
            None => None,
        };
        Ok((ids, idled))
    }
}

/// What a batch is filled up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Padding {
    /// Tokens: as many as there are, or more if each sequence has one and every one is sampled.
    pub tokens: usize,
    /// No context is longer.
    pub max_context: usize,
}

/// One step runs, one has been begun behind it, and of the one before the end is compared with the beginning of the next.
pub(super) const TURNS: usize = 3;
