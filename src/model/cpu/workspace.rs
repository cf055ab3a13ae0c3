//! The buffers that a step writes, allocated once.

use std::ops::Deref;

use candle_core::{DType, Device, Tensor};

use crate::model::backend::Limits;
use crate::model::{MixtralConfig, ModelError, StepBatch};
use crate::ops::{self, Pages, Routing};

/// Buffers for the largest step. A step works on views of their first rows.
///
/// The block tables alone grow, when a step has more or longer sequences than any before: their size depends on the
/// cache, which is made later.
#[derive(Debug)]
pub(super) struct Workspace {
    full: Buffers,
    block_tables: Tensor,
}

/// Every buffer but the block tables; `T` rows per token, `P` per pair (token, rank), `R` per row of logits.
#[derive(Debug)]
struct Buffers {
    input_ids: Tensor,
    positions: Tensor,
    slots: Tensor,
    cu_seqlens_q: Tensor,
    context_lens: Tensor,
    logit_rows: Tensor,
    residual: Tensor,
    delta: Tensor,
    normed: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attended: Tensor,
    gate_logits: Tensor,
    experts: Tensor,
    expert_weights: Tensor,
    order: Tensor,
    offsets: Tensor,
    gate_up: Tensor,
    activated: Tensor,
    pairs: Tensor,
    last: Tensor,
    logits: Tensor,
}

/// Views of the buffers, cut to one step. `n` tokens, `p` = n × top-k pairs, `r` rows of logits.
pub struct Step {
    /// `[n]`, u32
    pub(super) input_ids: Tensor,
    /// `[n]`, u32
    pub(super) positions: Tensor,
    /// `[n]`, u32
    pub(super) slots: Tensor,
    cu_seqlens_q: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
    /// `[r]`, u32
    pub(super) logit_rows: Tensor,
    /// `[n, hidden]`: the residual stream
    pub(super) residual: Tensor,
    /// `[n, hidden]`: what the last block adds to it
    pub(super) delta: Tensor,
    /// `[n, hidden]`: the stream, normalised
    pub(super) normed: Tensor,
    /// `[n, heads * head_dim]`
    pub(super) q: Tensor,
    /// `[n, kv_heads * head_dim]`
    pub(super) k: Tensor,
    /// `[n, kv_heads * head_dim]`
    pub(super) v: Tensor,
    /// `[n, heads * head_dim]`
    pub(super) attended: Tensor,
    /// `q`, `k`, `v`, `attended` as `[n, heads, head_dim]`
    pub(super) heads: [Tensor; 4],
    /// `[n, experts]`
    pub(super) gate_logits: Tensor,
    /// `[n, top_k]`, u32
    pub(super) experts: Tensor,
    /// `[n, top_k]`
    pub(super) expert_weights: Tensor,
    /// `[p]`, u32
    pub(super) order: Tensor,
    /// `[experts + 1]`, u32
    pub(super) offsets: Tensor,
    /// `[p, 2 * intermediate]`
    pub(super) gate_up: Tensor,
    /// `[p, intermediate]`
    pub(super) activated: Tensor,
    /// `[p, hidden]`
    pub(super) pairs: Tensor,
    /// `[r, hidden]`
    pub(super) last: Tensor,
    /// `[r, vocab]`
    pub(super) logits: Tensor,
}

impl Step {
    pub(super) fn num_tokens(&self) -> usize {
        self.input_ids.elem_count()
    }

    pub(super) fn pages(&self) -> Pages<'_> {
        Pages {
            block_tables: &self.block_tables,
            cu_seqlens_q: &self.cu_seqlens_q,
            context_lens: &self.context_lens,
        }
    }

    pub(super) fn routing(&self, top_k: usize) -> Routing<'_> {
        Routing {
            order: &self.order,
            offsets: &self.offsets,
            top_k,
        }
    }
}

impl Workspace {
    pub fn new(
        config: &MixtralConfig,
        limits: Limits,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let (t, r) = (limits.tokens, limits.logit_rows);
        let (hidden, top_k) = (config.hidden_size, config.num_experts_per_tok);
        let (q_width, kv_width) = (config.q_width(), config.kv_width());
        let pairs = t * top_k;
        let floats = |rows: usize, width: usize| Tensor::zeros((rows, width), DType::F32, device);
        let indices = |count: usize| Tensor::zeros(count, DType::U32, device);
        let full = Buffers {
            input_ids: indices(t)?,
            positions: indices(t)?,
            slots: indices(t)?,
            cu_seqlens_q: indices(t + 1)?,
            context_lens: indices(t)?,
            logit_rows: indices(r)?,
            residual: floats(t, hidden)?,
            delta: floats(t, hidden)?,
            normed: floats(t, hidden)?,
            q: floats(t, q_width)?,
            k: floats(t, kv_width)?,
            v: floats(t, kv_width)?,
            attended: floats(t, q_width)?,
            gate_logits: floats(t, config.num_local_experts)?,
            experts: Tensor::zeros((t, top_k), DType::U32, device)?,
            expert_weights: floats(t, top_k)?,
            order: indices(pairs)?,
            offsets: indices(config.num_local_experts + 1)?,
            gate_up: floats(pairs, 2 * config.intermediate_size)?,
            activated: floats(pairs, config.intermediate_size)?,
            pairs: floats(pairs, hidden)?,
            last: floats(r, hidden)?,
            logits: floats(r, config.vocab_size)?,
        };
        Ok(Self {
            full,
            block_tables: indices(t)?,
        })
    }

    /// The whole logits buffer, `[limits.logit_rows * vocab]`.
    pub fn logits(&self) -> Result<Box<dyn Deref<Target = [f32]> + '_>, ModelError> {
        Ok(ops::lend(&self.full.logits)?)
    }

    /// Cuts the buffers to `batch` and copies its arrays into them. The batch has been checked.
    pub fn step(&mut self, batch: &StepBatch, config: &MixtralConfig) -> Result<Step, ModelError> {
        let (n, sequences, r) = (
            batch.input_ids.len(),
            batch.context_lens.len(),
            batch.logit_rows.len(),
        );
        let p = n * config.num_experts_per_tok;
        let entries = batch.block_tables.len();
        if self.block_tables.elem_count() < entries {
            let device = self.block_tables.device();
            self.block_tables = Tensor::zeros(entries.next_power_of_two(), DType::U32, device)?;
        }
        let full = &self.full;
        let first = |buffer: &Tensor, rows: usize| buffer.narrow(0, 0, rows);
        let block_tables = first(&self.block_tables, entries)?;
        let (q, k, v) = (first(&full.q, n)?, first(&full.k, n)?, first(&full.v, n)?);
        let attended = first(&full.attended, n)?;
        let (heads, kv_heads, dim) = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        );
        let step = Step {
            input_ids: first(&full.input_ids, n)?,
            positions: first(&full.positions, n)?,
            slots: first(&full.slots, n)?,
            cu_seqlens_q: first(&full.cu_seqlens_q, sequences + 1)?,
            context_lens: first(&full.context_lens, sequences)?,
            block_tables: block_tables.reshape((sequences, batch.max_blocks))?,
            logit_rows: first(&full.logit_rows, r)?,
            residual: first(&full.residual, n)?,
            delta: first(&full.delta, n)?,
            normed: first(&full.normed, n)?,
            heads: [
                q.reshape((n, heads, dim))?,
                k.reshape((n, kv_heads, dim))?,
                v.reshape((n, kv_heads, dim))?,
                attended.reshape((n, heads, dim))?,
            ],
            q,
            k,
            v,
            attended,
            gate_logits: first(&full.gate_logits, n)?,
            experts: first(&full.experts, n)?,
            expert_weights: first(&full.expert_weights, n)?,
            order: first(&full.order, p)?,
            offsets: full.offsets.clone(),
            gate_up: first(&full.gate_up, p)?,
            activated: first(&full.activated, p)?,
            pairs: first(&full.pairs, p)?,
            last: first(&full.last, r)?,
            logits: first(&full.logits, r)?,
        };
        ops::upload(&batch.input_ids, &step.input_ids)?;
        ops::upload(&batch.positions, &step.positions)?;
        ops::upload(&batch.slot_mapping, &step.slots)?;
        ops::upload(&batch.cu_seqlens_q, &step.cu_seqlens_q)?;
        ops::upload(&batch.context_lens, &step.context_lens)?;
        ops::upload(&batch.block_tables, &block_tables)?;
        ops::upload(&batch.logit_rows, &step.logit_rows)?;
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Footprint, Synthetic};
    use crate::ops::Storage;

    #[test]
    fn buffers_take_what_the_arithmetic_says() {
        let model = Synthetic::parse("seedling").unwrap();
        let config = MixtralConfig::parse(model.config().as_bytes()).unwrap();
        let limits = Limits {
            tokens: 37,
            logit_rows: 5,
        };
        let Workspace { full, block_tables } =
            Workspace::new(&config, limits, &Device::Cpu).unwrap();
        let Buffers {
            input_ids,
            positions,
            slots,
            cu_seqlens_q,
            context_lens,
            logit_rows,
            residual,
            delta,
            normed,
            q,
            k,
            v,
            attended,
            gate_logits,
            experts,
            expert_weights,
            order,
            offsets,
            gate_up,
            activated,
            pairs,
            last,
            logits,
        } = full;
        let all = [
            input_ids,
            positions,
            slots,
            cu_seqlens_q,
            context_lens,
            logit_rows,
            residual,
            delta,
            normed,
            q,
            k,
            v,
            attended,
            gate_logits,
            experts,
            expert_weights,
            order,
            offsets,
            gate_up,
            activated,
            pairs,
            last,
            logits,
            block_tables,
        ];
        // Each element is an f32 or a u32.
        let bytes: usize = all.iter().map(|buffer| 4 * buffer.elem_count()).sum();
        let said = Footprint::on_cpu(&config, Storage::Bf16, Storage::Bf16, limits);
        assert_eq!(said.workspace, bytes as u64);
    }
}
