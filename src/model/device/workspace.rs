//! A step's buffers on a device, allocated once, and the arrays that a step uploads.

use std::time::Duration;

use crate::model::{CacheId, Limits, MixtralConfig, ModelError, Recount, StepBatch};
use crate::ops::{self, Address, Device, Memory, SampleRow, Staged};

/// Buffers for the largest step.
#[derive(Debug)]
pub(super) struct Workspace<D: Device> {
    /// `input_ids` to `block_tables`, packed for each step; grows when a step's tables are larger than any before.
    arrays: D::Memory,
    arrays_bytes: usize,
    /// Where a step's arrays are put together.
    packed: Vec<u32>,
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

/// Tables of counts that a step makes first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recounts {
    /// Tokens; where each table's begin, its output begins, and they end; which tables
    pub at: [Address; 3],
    pub count: u32,
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
    /// Columns of the block tables.
    pub(super) max_blocks: u32,
    pub(super) block_size: u32,
    pub(super) cache: CacheId,
    /// The longest context that the tables have room for.
    pub(super) max_context: u32,
    /// Most query rows of a sequence.
    pub(super) max_rows: u32,
    pub(super) input_ids: Address,
    pub(super) positions: Address,
    pub(super) slots: Address,
    pub(super) cu_seqlens_q: Address,
    pub(super) context_lens: Address,
    pub(super) logit_rows: Address,
    pub(super) block_tables: Address,
    /// `[num_logit_rows, 16]`, u32: how each token is chosen
    pub(super) choices: Address,
    /// `[…, 2]`, u32: ids and biases
    pub(super) biases: Address,
    pub(super) recounts: Option<Recounts>,
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
        let arrays_bytes = 4 * (8 * t + 64);
        let exchange = || -> Result<Exchange<D>, ModelError> {
            Ok(Exchange {
                arrays: device.stage(arrays_bytes)?,
                ids: device.stage(r * 4)?,
            })
        };
        Ok(Self {
            exchanges: (0..TURNS).map(|_| exchange()).collect::<Result<_, _>>()?,
            turn: 0,
            fetched: None,
            chosen: 0,
            arrays: device.allocate(arrays_bytes)?,
            arrays_bytes,
            packed: Vec::new(),
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
        let Padding {
            tokens: padded,
            max_blocks,
        } = padding;
        let (tokens, seqs) = (batch.input_ids.len(), batch.context_lens.len());
        if seqs > self.limits.logit_rows {
            return Err(ModelError::Batch(format!(
                "{seqs} sequences; a step takes at most {}",
                self.limits.logit_rows
            )));
        }
        let filling = padded - tokens;
        let mut packed = Packed::over(&mut self.packed);
        let input_ids = packed.push(&batch.input_ids, filling, |_| 0);
        let positions = packed.push(&batch.positions, filling, |_| 0);
        let slots = packed.push(&batch.slot_mapping, filling, |_| NO_SLOT);
        let cu_seqlens_q = packed.push(&batch.cu_seqlens_q, filling, |i| (tokens + i + 1) as u32);
        let context_lens = packed.push(&batch.context_lens, filling, |_| 0);
        let logit_rows = packed.push(&batch.logit_rows, filling, |i| (tokens + i) as u32);
        let block_tables = packed.table(
            &batch.block_tables,
            batch.max_blocks,
            [seqs + filling, max_blocks],
        );
        let words = batch.choice.rows.iter().flat_map(SampleRow::words);
        // Words that are all zero are a row that touches nothing but its logits.
        let choices = packed.extend(words, 16 * (batch.logit_rows.len() + filling));
        let biases = batch.choice.biases.iter();
        let biases = packed.extend(biases.flat_map(|&(id, bias)| [id, bias.to_bits()]), 0);
        let recounts = packed.recounts(&batch.choice.recounts);
        let bytes = size_of_val(&self.packed[..]);
        if bytes > self.arrays_bytes {
            let larger = bytes.next_power_of_two();
            self.arrays = device.allocate(larger)?;
            self.arrays_bytes = larger;
        }
        let base = self.arrays.address();
        self.turn = (self.turn + 1) % TURNS;
        self.chosen = batch.choice.rows.len();
        let from = &mut self.exchanges[self.turn].arrays;
        if from.bytes() < bytes {
            *from = device.stage(self.arrays_bytes)?;
        }
        from.settled()?[..bytes].copy_from_slice(bytemuck::cast_slice(&self.packed));
        device.send(from, bytes, base)?;
        let recounts = recounts.map(|offsets| Recounts {
            at: offsets.map(|offset| base.offset(offset)),
            count: batch.choice.recounts.len() as u32,
        });
        let rows = batch.cu_seqlens_q.windows(2).map(|pair| pair[1] - pair[0]);
        Ok(Step {
            num_tokens: padded as u32,
            num_seqs: (seqs + filling) as u32,
            num_logit_rows: (batch.logit_rows.len() + filling) as u32,
            max_blocks: max_blocks as u32,
            block_size: block_size as u32,
            cache,
            max_context: (max_blocks * block_size) as u32,
            max_rows: rows.max().unwrap_or(0),
            input_ids: base.offset(input_ids),
            positions: base.offset(positions),
            slots: base.offset(slots),
            cu_seqlens_q: base.offset(cu_seqlens_q),
            context_lens: base.offset(context_lens),
            logit_rows: base.offset(logit_rows),
            block_tables: base.offset(block_tables),
            choices: base.offset(choices),
            biases: base.offset(biases),
            recounts,
            at: self.at,
        })
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
    /// Columns of the block tables.
    pub max_blocks: usize,
}

/// Arrays behind each other, each at a multiple of 16 bytes.
struct Packed<'a> {
    words: &'a mut Vec<u32>,
}

impl<'a> Packed<'a> {
    fn over(words: &'a mut Vec<u32>) -> Self {
        words.clear();
        Self { words }
    }

    /// Appends an array and its filling; returns its offset in bytes.
    fn push(&mut self, values: &[u32], filling: usize, fill: impl Fn(usize) -> u32) -> usize {
        let at = self.align();
        self.words.extend_from_slice(values);
        self.words.extend((0..filling).map(fill));
        at
    }

    /// Appends a table whose rows are widened or cut to `columns`, with rows of zeros to fill it.
    fn table(&mut self, values: &[u32], width: usize, [rows, columns]: [usize; 2]) -> usize {
        let at = self.align();
        let end = self.words.len() + rows * columns;
        for row in values.chunks_exact(width.max(1)) {
            let kept = width.min(columns);
            self.words.extend_from_slice(&row[..kept]);
            self.words.resize(self.words.len() + columns - kept, 0);
        }
        self.words.resize(end, 0);
        at
    }

    /// Appends words and fills them up with zeros.
    fn extend(&mut self, words: impl Iterator<Item = u32>, least: usize) -> usize {
        let at = self.align();
        let begin = self.words.len();
        self.words.extend(words);
        if self.words.len() < begin + least {
            self.words.resize(begin + least, 0);
        }
        at
    }

    /// Appends what tables of counts are made of, if any are.
    fn recounts(&mut self, recounts: &[Recount]) -> Option<[usize; 3]> {
        if recounts.is_empty() {
            return None;
        }
        let tokens = recounts.iter().flat_map(|it| &it.tokens).copied();
        let tokens = self.extend(tokens, 0);
        let mut start = 0;
        let extents = recounts.iter().flat_map(|it| {
            let first = start;
            start += it.tokens.len() as u32;
            [first, first + it.prompt_len as u32, start]
        });
        let extents = self.extend(extents, 0);
        let tables = self.extend(recounts.iter().map(|it| it.table), 0);
        Some([tokens, extents, tables])
    }

    fn align(&mut self) -> usize {
        let words = self.words.len().next_multiple_of(4);
        self.words.resize(words, 0);
        words * size_of::<u32>()
    }
}

/// One step runs, one has been begun behind it, and of the one before the end is compared with the beginning of the next.
const TURNS: usize = 3;

/// Stands for no slot of the cache; `kernels/device.cuh` has the same.
const NO_SLOT: u32 = u32::MAX;
