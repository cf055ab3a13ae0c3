//! Runs plans on a model that chooses its tokens itself: only their ids come back.

use std::collections::VecDeque;
use std::time::Duration;

use super::executor::{Capacity, ExecuteError, Executor};
use super::penalty_tables::PenaltyTables;
use super::request::TokenId;
use super::runner::fill;
use super::scheduler::StepPlan;
use super::sequence::{Sequence, Sequences};
use crate::model::{
    Choice, Choosing, Device, KvCache, Mixtral, ModelError, OnDevice, Recount, SampleRow, StepBatch,
};

/// A model on a device, with its cache.
pub struct DeviceRunner<D: Device> {
    model: Mixtral<OnDevice<D>>,
    cache: KvCache<OnDevice<D>>,
    capacity: Capacity,
    tables: PenaltyTables,
    /// Kept from step to step for its memory.
    batch: StepBatch,
    /// Steps that run.
    begun: VecDeque<Choosing>,
    idled: Option<Duration>,
}

impl<D: Device> DeviceRunner<D> {
    /// Gives `model` a cache of `num_blocks` blocks of `block_size` tokens, for sequences of at most `max_model_len` tokens.
    ///
    /// # Errors
    /// [`ModelError`] if a size is zero or far too large, or the device has no room.
    pub fn new(
        mut model: Mixtral<OnDevice<D>>,
        num_blocks: usize,
        block_size: usize,
        max_model_len: usize,
    ) -> Result<Self, ModelError> {
        model.reserve_tables(block_size)?;
        let capacity = Capacity {
            vocab_size: model.config().vocab_size,
            max_model_len: max_model_len.min(model.config().max_position_embeddings),
            num_blocks,
            block_size,
        };
        let tables = model.max_logit_rows();
        Ok(Self {
            cache: model.new_cache(num_blocks, block_size)?,
            model,
            capacity,
            tables: PenaltyTables::new(tables),
            batch: StepBatch::default(),
            begun: VecDeque::new(),
            idled: None,
        })
    }
}

impl<D: Device> Executor for DeviceRunner<D> {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn overlaps(&self) -> bool {
        true
    }

    fn start(&mut self, plan: &StepPlan, sequences: &Sequences) -> Result<(), ExecuteError> {
        fill(&mut self.batch, plan, sequences, self.capacity.block_size);
        let due: Vec<&Sequence> = plan.due().map(|part| &sequences[part.slot]).collect();
        choose(&mut self.batch.choice, &due, &mut self.tables);
        let step = self.model.start(&self.batch, &mut self.cache);
        self.begun.push_back(step.map_err(failed)?);
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<TokenId>, ExecuteError> {
        let Some(step) = self.begun.pop_front() else {
            return Ok(Vec::new());
        };
        let (ids, idled) = self.model.wait(step).map_err(failed)?;
        self.idled = idled;
        Ok(ids)
    }

    fn idled(&self) -> Option<Duration> {
        self.idled
    }
}

fn failed(error: ModelError) -> ExecuteError {
    ExecuteError::Model(Box::new(error))
}

/// Writes down how the next token of each sequence is chosen.
fn choose(choice: &mut Choice, due: &[&Sequence], tables: &mut PenaltyTables) {
    choice.rows.clear();
    choice.biases.clear();
    choice.recounts.clear();
    let penalised = due.iter().filter(|sequence| has_penalties(sequence));
    let places = tables.places(penalised.map(|sequence| (sequence.id(), sequence.num_tokens())));
    let mut places = places.into_iter();
    for sequence in due {
        let params = sequence.sampling();
        let place = if has_penalties(sequence) {
            places.next()
        } else {
            None
        };
        if let Some(place) = place.filter(|place| !place.is_current) {
            assert!(sequence.under_way().is_none(), "{COUNTED}");
            choice.recounts.push(Recount {
                table: place.table,
                tokens: sequence.tokens().to_vec(),
                prompt_len: sequence.prompt().len(),
            });
        }
        let from = choice.biases.len() as u32;
        choice.biases.extend_from_slice(&params.logit_bias);
        let bans = sequence.forbidden().map(|id| (id, f32::NEG_INFINITY));
        choice.biases.extend(bans);
        let (seed, stream) = sequence.random().key();
        choice.rows.push(SampleRow {
            temperature: params.temperature,
            top_p: params.top_p,
            min_p: params.min_p,
            repetition_penalty: params.repetition_penalty,
            frequency_penalty: params.frequency_penalty,
            presence_penalty: params.presence_penalty,
            top_k: params.top_k,
            seed,
            stream,
            place: sequence.num_generated() as u32,
            counts: place.map(|place| place.table),
            mask: None,
            bias: from..choice.biases.len() as u32,
            logprobs: None,
        });
    }
}

fn has_penalties(sequence: &Sequence) -> bool {
    let params = sequence.sampling();
    params.repetition_penalty != 1.0
        || params.frequency_penalty != 0.0
        || params.presence_penalty != 0.0
}

const COUNTED: &str = "a token that is under way was chosen by the step before, which counted it in the sequence's table. This is a \
                       bug.";

#[cfg(test)]
mod tests;
