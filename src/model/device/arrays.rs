//! The arrays of a step: put together on the host and sent in one copy, into room that was allocated when the model was
//! loaded.

use super::workspace::{Padding, TURNS};
use crate::model::{Limits, MixtralConfig, ModelError, Recount, StepBatch};
use crate::ops::{Address, Device, Memory, SampleRow, Staged};

/// Room on the device for one step's arrays, and where they are put together.
#[derive(Debug)]
pub(super) struct Arrays<D: Device> {
    memory: D::Memory,
    packed: Vec<u32>,
    room: Room,
}

/// The largest arrays that there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    limits: Limits,
    /// Blocks of one sequence.
    blocks: usize,
}

/// Where a step's arrays lie; what each holds is in [`super::workspace::Step`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub input_ids: Address,
    pub positions: Address,
    pub slots: Address,
    pub cu_seqlens_q: Address,
    pub context_lens: Address,
    pub logit_rows: Address,
    pub table_starts: Address,
    pub block_tables: Address,
    pub choices: Address,
    pub biases: Address,
}

impl Room {
    /// For sequences as long as a model's context, in blocks of so many tokens.
    pub fn new(config: &MixtralConfig, limits: Limits, block_size: usize) -> Self {
        Self {
            limits,
            blocks: config.max_position_embeddings.div_ceil(block_size.max(1)),
        }
    }

    /// Bytes of all arrays: 2.0 MiB of tables = 256 sequences × 2,048 blocks × 4 B and 4.1 MiB of biases = 256 × 2,112 × 8 B,
    /// for 256 sequences of 32,768 tokens in blocks of 16.
    pub fn bytes(self) -> usize {
        let (t, r) = (self.limits.tokens, self.limits.logit_rows);
        let tables = r * self.blocks;
        // `input_ids` to `slots`; `cu_seqlens_q` to `table_starts`; how tokens are chosen.
        let words = 3 * t + (4 * r + 1) + 16 * r + 2 * self.biases() + tables;
        4 * (words + ALIGNED * COUNT)
    }

    fn biases(self) -> usize {
        self.limits.logit_rows * MOST_BIASES
    }
}

impl<D: Device> Arrays<D> {
    pub fn new(device: &D, room: Room) -> Result<Self, ModelError> {
        Ok(Self {
            memory: device.allocate(room.bytes())?,
            packed: Vec::with_capacity(room.bytes() / size_of::<u32>()),
            room,
        })
    }

    pub fn room(&self) -> Room {
        self.room
    }

    /// Packs a batch's arrays, which have been checked, and sends them.
    pub fn send(
        &mut self,
        device: &D,
        batch: &StepBatch,
        block_size: usize,
        padding: Padding,
        staged: &mut D::Staged,
    ) -> Result<Placed, ModelError> {
        let placed = self.pack(batch, block_size, padding)?;
        let bytes = self.packed_bytes();
        staged.settled()?[..bytes].copy_from_slice(bytemuck::cast_slice(&self.packed));
        device.send(staged, bytes, self.memory.address())?;
        Ok(placed)
    }

    /// Bytes of what was packed last.
    pub fn packed_bytes(&self) -> usize {
        size_of_val(&self.packed[..])
    }

    /// Puts a batch's arrays together. Where they lie follows from the batch's sizes alone, as a recorded step wants it. What
    /// has as many elements as it happens to have comes last: `block_tables` therefore begins where all of it begins, and
    /// `table_starts` tells how far behind that each sequence's blocks are. So only blocks that hold keys are sent, however
    /// long another sequence is.
    pub fn pack(
        &mut self,
        batch: &StepBatch,
        block_size: usize,
        padding: Padding,
    ) -> Result<Placed, ModelError> {
        if batch.choice.biases.len() > self.room.biases() {
            return Err(ModelError::Batch(format!(
                "{} biases; a step takes at most {}",
                batch.choice.biases.len(),
                self.room.biases()
            )));
        }
        let (tokens, seqs) = (batch.input_ids.len(), batch.context_lens.len());
        let filling = padding.tokens - tokens;
        let mut packed = Packed::over(&mut self.packed);
        let input_ids = packed.push(&batch.input_ids, filling, |_| 0);
        let positions = packed.push(&batch.positions, filling, |_| 0);
        let slots = packed.push(&batch.slot_mapping, filling, |_| NO_SLOT);
        let cu_seqlens_q = packed.push(&batch.cu_seqlens_q, filling, |i| (tokens + i + 1) as u32);
        let context_lens = packed.push(&batch.context_lens, filling, |_| 0);
        let logit_rows = packed.push(&batch.logit_rows, filling, |i| (tokens + i) as u32);
        let table_starts = packed.push(&[], seqs + filling, |_| 0);
        let words = batch.choice.rows.iter().flat_map(SampleRow::words);
        // Words that are all zero are nobody's row.
        let choices = packed.extend(words, 16 * (batch.logit_rows.len() + filling));
        let biases = batch.choice.biases.iter();
        let biases = packed.extend(biases.flat_map(|&(id, bias)| [id, bias.to_bits()]), 0);
        packed.tables(batch, block_size, table_starts);
        let bytes = self.packed_bytes();
        if bytes > self.room.bytes() {
            return Err(ModelError::Batch(format!(
                "arrays of {bytes} bytes; there is room for {}, with {} blocks in each of {} tables",
                self.room.bytes(),
                self.room.blocks,
                self.room.limits.logit_rows
            )));
        }
        let base = self.memory.address();
        Ok(Placed {
            input_ids: base.offset(input_ids),
            positions: base.offset(positions),
            slots: base.offset(slots),
            cu_seqlens_q: base.offset(cu_seqlens_q),
            context_lens: base.offset(context_lens),
            logit_rows: base.offset(logit_rows),
            table_starts: base.offset(table_starts),
            block_tables: base,
            choices: base.offset(choices),
            biases: base.offset(biases),
        })
    }
}

/// Room for the tokens of sequences whose tables of counts a step makes first. In nearly every step that is none or all of
/// them; where more are to be counted than there is room for, they are counted in turns.
#[derive(Debug)]
pub(super) struct Recounting<D: Device> {
    memory: D::Memory,
    packed: Vec<u32>,
    staged: Vec<D::Staged>,
    turn: usize,
    /// Words of tokens that fit, and sequences.
    room: [usize; 2],
}

/// Tables of counts that are made by one launch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recounts {
    /// Tokens; where each table's begin, its output begins, and they end; which tables
    pub at: [Address; 3],
    pub count: u32,
}

impl<D: Device> Recounting<D> {
    pub fn new(device: &D, config: &MixtralConfig, limits: Limits) -> Result<Self, ModelError> {
        let bytes = recounting_bytes(config, limits);
        let staged = (0..TURNS).map(|_| Ok(device.stage(bytes)?));
        Ok(Self {
            memory: device.allocate(bytes)?,
            packed: Vec::with_capacity(bytes / size_of::<u32>()),
            staged: staged.collect::<Result<_, ModelError>>()?,
            turn: 0,
            room: recounting_room(config, limits),
        })
    }

    /// Sends as many of `recounts` as there is room for, at least one. Returns where they lie, and the rest.
    pub fn send<'a>(
        &mut self,
        device: &D,
        recounts: &'a [Recount],
    ) -> Result<(Recounts, &'a [Recount]), ModelError> {
        let [room, tables] = self.room;
        let mut tokens = 0;
        let fits = recounts.iter().take(tables).take_while(|it| {
            tokens += it.tokens.len();
            tokens <= room
        });
        let (sent, rest) = recounts.split_at(fits.count());
        if sent.is_empty() {
            return Err(ModelError::Batch(format!(
                "{tokens} tokens are to be counted for one sequence; there is room for {room}"
            )));
        }
        let mut packed = Packed::over(&mut self.packed);
        let offsets = packed.recounts(sent);
        let bytes = size_of_val(&self.packed[..]);
        self.turn = (self.turn + 1) % TURNS;
        let staged = &mut self.staged[self.turn];
        staged.settled()?[..bytes].copy_from_slice(bytemuck::cast_slice(&self.packed));
        let base = self.memory.address();
        device.send(staged, bytes, base)?;
        let recounts = Recounts {
            at: offsets.map(|offset| base.offset(offset)),
            count: sent.len() as u32,
        };
        Ok((recounts, rest))
    }
}

/// Tokens and sequences: the longest one fits, and so do the prompts that end in one step.
fn recounting_room(config: &MixtralConfig, limits: Limits) -> [usize; 2] {
    let tokens = config.max_position_embeddings.max(limits.tokens);
    [tokens, limits.logit_rows]
}

/// Tokens; of each sequence three extents and a table: 132 KiB for 256 sequences and a context of 32,768.
fn recounting_bytes(config: &MixtralConfig, limits: Limits) -> usize {
    let [tokens, tables] = recounting_room(config, limits);
    4 * (tokens + 4 * tables + 3 * ALIGNED)
}

/// Bytes of the device's memory that a step's arrays take.
pub(in crate::model) fn arrays_bytes(config: &MixtralConfig, limits: Limits) -> usize {
    Room::new(config, limits, BLOCK_SIZE).bytes() + recounting_bytes(config, limits)
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

    /// Appends the blocks that each sequence has keys in, and writes down where they begin.
    fn tables(&mut self, batch: &StepBatch, block_size: usize, table_starts: usize) {
        self.align();
        let rows = batch.block_tables.chunks_exact(batch.max_blocks.max(1));
        let first = table_starts / size_of::<u32>();
        for (sequence, (row, &context)) in rows.zip(&batch.context_lens).enumerate() {
            self.words[first + sequence] = self.words.len() as u32;
            let blocks = (context as usize).div_ceil(block_size);
            self.words.extend_from_slice(&row[..blocks]);
        }
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

    /// Appends what tables of counts are made of.
    fn recounts(&mut self, recounts: &[Recount]) -> [usize; 3] {
        let tokens = self.align();
        for recount in recounts {
            self.words.extend_from_slice(&recount.tokens);
        }
        let mut start = 0;
        let extents = recounts.iter().flat_map(|it| {
            let first = start;
            start += it.tokens.len() as u32;
            [first, first + it.prompt_len as u32, start]
        });
        let extents = self.extend(extents, 0);
        let tables = self.extend(recounts.iter().map(|it| it.table), 0);
        [tokens, extents, tables]
    }

    fn align(&mut self) -> usize {
        let words = self.words.len().next_multiple_of(ALIGNED);
        self.words.resize(words, 0);
        words * size_of::<u32>()
    }
}

/// Tokens of a block, unless a cache is made with others.
pub(super) const BLOCK_SIZE: usize = 16;

/// Of one row: as many as a request may name, as many ids that may not end it yet, and a model's own of these.
const MOST_BIASES: usize = 1024 + 1024 + 64;

/// Words that an array begins at a multiple of.
const ALIGNED: usize = 4;

/// Arrays of a step.
const COUNT: usize = 10;

/// Stands for no slot of the cache; `kernels/device.cuh` has the same.
const NO_SLOT: u32 = u32::MAX;
