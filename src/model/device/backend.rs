//! The operations of the model's layers as launches of kernels.

use std::ops::Deref;

use super::OnDevice;
use super::weights::{PartOrder, Weights, upload_floats};
use super::workspace::Step;
use crate::model::backend::{Added, Backend};
use crate::model::weights::Checkpoint;
use crate::model::{CacheId, MixtralConfig, ModelError, StepBatch};
use crate::ops::{
    self, Address, AttentionSizes, Device, GroupedLinear, GroupedSizes, Memory, PagedAttention,
    RopeStoreKv, Route, RouteSizes, Sample, Side, Storage,
};

/// Keys and values of a layer: each `[num_blocks, block_size, kv_heads, head_dim]`, bf16.
#[derive(Debug)]
pub struct LayerCache<D: Device> {
    k: D::Memory,
    v: D::Memory,
    block_bytes: usize,
}

impl<D: Device> Backend for OnDevice<D> {
    type Matrix = Weights<D>;
    type Qkv = Weights<D>;
    type Experts = Weights<D>;
    type Norm = D::Memory;
    type Table = Weights<D>;
    type LayerCache = LayerCache<D>;
    type Step = Step;

    const CACHE_ELEMENT_BYTES: usize = 2;

    fn describe(&self) -> String {
        self.device.describe()
    }

    fn norm(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        hidden: usize,
    ) -> Result<D::Memory, ModelError> {
        upload_floats(&self.device, &checkpoint.widened(name, &[hidden])?)
    }

    fn table(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Weights<D>, ModelError> {
        self.plain(checkpoint, name, shape)
    }

    fn gate(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Weights<D>, ModelError> {
        self.plain(checkpoint, name, shape)
    }

    fn matrix(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Weights<D>, ModelError> {
        let [rows, columns] = shape;
        self.load(checkpoint, [1, rows, columns], PartOrder::Stacked, |_| {
            vec![(name.to_owned(), rows)]
        })
    }

    fn tied(
        &self,
        table: &Weights<D>,
        checkpoint: &Checkpoint,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Weights<D>, ModelError> {
        match self.storage {
            Storage::Bf16 => Ok(table.shared()),
            _ => self.matrix(checkpoint, name, shape),
        }
    }

    fn qkv(
        &self,
        checkpoint: &Checkpoint,
        names: [&str; 3],
        config: &MixtralConfig,
    ) -> Result<Weights<D>, ModelError> {
        let (q, kv, hidden) = (config.q_width(), config.kv_width(), config.hidden_size);
        let parts = names.map(str::to_owned).into_iter().zip([q, kv, kv]);
        let sizes = [1, q + 2 * kv, hidden];
        self.load(checkpoint, sizes, PartOrder::Stacked, |_| {
            parts.clone().collect()
        })
    }

    fn gate_up(
        &self,
        checkpoint: &Checkpoint,
        names: &[String],
        [rows, _]: [usize; 2],
        stack: [usize; 3],
    ) -> Result<Weights<D>, ModelError> {
        // A lane of the product has two neighbouring columns: of each output, gate and up.
        self.load(checkpoint, stack, PartOrder::InTurn, |expert| {
            let its = &names[2 * expert..][..2];
            its.iter().map(|name| (name.clone(), rows)).collect()
        })
    }

    fn down(
        &self,
        checkpoint: &Checkpoint,
        names: &[String],
        stack: [usize; 3],
    ) -> Result<Weights<D>, ModelError> {
        self.load(checkpoint, stack, PartOrder::Stacked, |expert| {
            vec![(names[expert].clone(), stack[1])]
        })
    }

    fn storage(&self, matrix: &Weights<D>) -> &'static str {
        matrix.storage().name()
    }

    fn layer_cache(&self, shape: [usize; 4]) -> Result<LayerCache<D>, ModelError> {
        // The cache comes after the weights.
        self.uploads().finish()?;
        let block_bytes = shape[1..].iter().product::<usize>() * Self::CACHE_ELEMENT_BYTES;
        let half = || self.device.allocate(shape[0] * block_bytes);
        Ok(LayerCache {
            k: half()?,
            v: half()?,
            block_bytes,
        })
    }

    fn copy_blocks(&self, copies: &[u32], cache: &LayerCache<D>) -> Result<(), ModelError> {
        for &[from, to] in copies.as_chunks::<2>().0 {
            for half in [&cache.k, &cache.v] {
                let block = |block: u32| half.address().offset(block as usize * cache.block_bytes);
                self.device
                    .copy(block(from), block(to), cache.block_bytes)?;
            }
        }
        Ok(())
    }

    fn chosen(&self) -> usize {
        self.workspace.chosen
    }

    fn step(
        &mut self,
        batch: &StepBatch,
        block_size: usize,
        cache: CacheId,
    ) -> Result<Step, ModelError> {
        let padding = self.graphs.padding(batch);
        let its = (block_size, cache);
        let step = self.workspace.step(&self.device, batch, its, padding)?;
        self.recount(&batch.choice.recounts)?;
        Ok(step)
    }

    fn run<F>(&self, step: &Step, compute: F) -> Result<(), ModelError>
    where
        F: Fn() -> Result<(), ModelError> + Send,
    {
        self.graphs.run(&self.device, step, compute)
    }

    fn embed(&self, table: &Weights<D>, step: &Step) -> Result<(), ModelError> {
        let tensors = [
            table.address(),
            step.arrays.input_ids,
            step.at.ids,
            step.at.delta,
            step.at.residual,
        ];
        let launch = ops::embedding_launch(tensors, step.num_tokens, table.columns);
        Ok(self.device.launch(&launch)?)
    }

    fn add_rms_norm(
        &self,
        added: Added,
        weight: &D::Memory,
        step: &Step,
    ) -> Result<(), ModelError> {
        let (at, rows) = (&step.at, step.num_tokens);
        let (hidden, eps) = (
            self.config.hidden_size as u32,
            self.config.rms_norm_eps as f32,
        );
        let [residual, weight, out] = [at.residual, weight.address(), at.normed];
        let launch = match added {
            Added::Delta => {
                ops::add_rms_norm_launch([at.delta, residual, weight, out], rows, hidden, eps)
            }
            Added::Experts => {
                let [pairs, weights, slots] = [at.pairs, at.expert_weights, step.arrays.slots];
                let tensors = [pairs, weights, slots, residual, weight, out];
                let top_k = self.config.num_experts_per_tok as u32;
                ops::add_experts_rms_norm_launch(tensors, rows, hidden, top_k, eps)
            }
        };
        Ok(self.device.launch(&launch)?)
    }

    fn project_qkv(&self, weights: &Weights<D>, step: &Step) -> Result<(), ModelError> {
        self.linear(step.at.normed, weights, step.num_tokens, step.at.qkv)
    }

    fn rope_store_kv(&self, step: &Step, cache: &LayerCache<D>) -> Result<(), ModelError> {
        let tensors = RopeStoreKv {
            qkv: step.at.qkv,
            positions: step.arrays.positions,
            slots: step.arrays.slots,
            cos: self.cos.address(),
            sin: self.sin.address(),
            q: step.at.q,
            k_cache: cache.k.address(),
            v_cache: cache.v.address(),
        };
        let launch = ops::rope_store_kv_launch(
            tensors,
            step.num_tokens,
            self.config.num_attention_heads as u32,
            self.config.num_key_value_heads as u32,
            self.config.head_dim as u32,
        );
        Ok(self.device.launch(&launch)?)
    }

    fn paged_attention(
        &self,
        step: &Step,
        cache: &LayerCache<D>,
        window: Option<usize>,
    ) -> Result<(), ModelError> {
        let at = PagedAttention {
            q: step.at.q,
            k_cache: cache.k.address(),
            v_cache: cache.v.address(),
            block_tables: step.arrays.block_tables,
            table_starts: step.arrays.table_starts,
            cu_seqlens_q: step.arrays.cu_seqlens_q,
            context_lens: step.arrays.context_lens,
            scratch: step.at.scratch,
            out: step.at.attended,
        };
        let sizes = AttentionSizes {
            num_tokens: step.num_tokens,
            num_seqs: step.num_seqs,
            max_rows: step.max_rows,
            max_context: step.max_context,
            block_size: step.block_size,
            window: window.map_or(0, |window| u32::try_from(window).unwrap_or(0)),
            heads: self.config.num_attention_heads as u32,
            kv_heads: self.config.num_key_value_heads as u32,
            head_dim: self.config.head_dim as u32,
        };
        for launch in ops::paged_attention_launches(self.device.multiplier(), at, sizes) {
            self.device.launch(&launch)?;
        }
        Ok(())
    }

    fn project_out(&self, weights: &Weights<D>, step: &Step) -> Result<(), ModelError> {
        self.linear(step.at.attended, weights, step.num_tokens, step.at.delta)
    }

    fn route(&self, gate: &Weights<D>, step: &Step) -> Result<(), ModelError> {
        let at = &step.at;
        let tensors = Route {
            normed: at.normed,
            gate: gate.address(),
            slots: step.arrays.slots,
            experts: at.experts,
            weights: at.expert_weights,
            order: at.order,
            offsets: at.offsets,
        };
        let sizes = RouteSizes {
            num_tokens: step.num_tokens,
            hidden: gate.columns,
            num_experts: gate.rows,
            top_k: self.config.num_experts_per_tok as u32,
        };
        for launch in ops::route_launches(tensors, sizes) {
            self.device.launch(&launch)?;
        }
        Ok(())
    }

    fn experts_in(&self, gate_up: &Weights<D>, step: &Step) -> Result<(), ModelError> {
        let [x, y] = [step.at.normed, step.at.activated];
        self.grouped_linear([x, y], gate_up, Side::In, step)
    }

    fn experts_out(&self, down: &Weights<D>, step: &Step) -> Result<(), ModelError> {
        let [x, y] = [step.at.activated, step.at.pairs];
        self.grouped_linear([x, y], down, Side::Out, step)
    }

    fn logits(&self, lm_head: &Weights<D>, step: &Step) -> Result<(), ModelError> {
        if step.num_logit_rows == 0 {
            return Ok(());
        }
        let at = &step.at;
        let tensors = [at.normed, step.arrays.logit_rows, at.last];
        self.device.launch(&ops::gather_rows_launch(
            tensors,
            step.num_logit_rows,
            lm_head.columns,
        ))?;
        self.linear(at.last, lm_head, step.num_logit_rows, at.logits)?;
        let tensors = Sample {
            logits: at.logits,
            rows: step.arrays.choices,
            bias: step.arrays.biases,
            // Grammars are yet to come; no row names a mask.
            masks: step.arrays.biases,
            counts: at.counts,
            adjusted: at.adjusted,
            ids: at.ids,
        };
        let vocab = self.config.vocab_size as u32;
        Ok(self
            .device
            .launch(&ops::sample_launch(tensors, step.num_logit_rows, vocab))?)
    }

    fn lend_logits(
        &mut self,
        rows: usize,
    ) -> Result<Box<dyn Deref<Target = [f32]> + '_>, ModelError> {
        let logits = &mut self.workspace.logits[..rows * self.config.vocab_size];
        self.device
            .download(self.workspace.at.logits, bytemuck::cast_slice_mut(logits))?;
        Ok(Box::new(&*logits))
    }
}

impl<D: Device> OnDevice<D> {
    fn grouped_linear(
        &self,
        [x, y]: [Address; 2],
        weights: &Weights<D>,
        side: Side,
        step: &Step,
    ) -> Result<(), ModelError> {
        let tensors = GroupedLinear {
            x,
            w: weights.address(),
            order: step.at.order,
            offsets: step.at.offsets,
            y,
        };
        let top_k = self.config.num_experts_per_tok as u32;
        let sizes = GroupedSizes {
            num_pairs: step.num_tokens * top_k,
            n: weights.rows,
            k: weights.columns,
            num_experts: self.config.num_local_experts as u32,
            top_k,
        };
        Ok(self.device.launch(&weights.grouped_linear(
            self.device.multiplier(),
            tensors,
            side,
            sizes,
        ))?)
    }
}
