//! Self-attention with grouped key-value heads over the paged cache.

use candle_core::Tensor;

use super::kv_cache::LayerCache;
use super::weights::Checkpoint;
use super::workspace::Step;
use super::{MixtralConfig, ModelError};
use crate::ops::{self, RopeTable};

/// One layer's attention: all weights `[out, in]`.
#[derive(Debug)]
pub(super) struct Attention {
    q_proj: Tensor,
    k_proj: Tensor,
    v_proj: Tensor,
    o_proj: Tensor,
    window: Option<usize>,
}

impl Attention {
    pub fn load(
        checkpoint: &Checkpoint,
        layer: usize,
        config: &MixtralConfig,
    ) -> Result<Self, ModelError> {
        let hidden = config.hidden_size;
        let q_width = config.num_attention_heads * config.head_dim;
        let kv_width = config.num_key_value_heads * config.head_dim;
        let weight = |name: &str, shape: [usize; 2]| {
            checkpoint.tensor(
                &format!("model.layers.{layer}.self_attn.{name}.weight"),
                &shape,
            )
        };
        Ok(Self {
            q_proj: weight("q_proj", [q_width, hidden])?,
            k_proj: weight("k_proj", [kv_width, hidden])?,
            v_proj: weight("v_proj", [kv_width, hidden])?,
            o_proj: weight("o_proj", [hidden, q_width])?,
            window: config.sliding_window.map(Into::into),
        })
    }

    /// `delta = attention(normed)`; this step's keys and values go into `cache`.
    pub fn forward(
        &self,
        step: &Step,
        rope: &RopeTable,
        cache: &LayerCache,
    ) -> Result<(), ModelError> {
        let [q, k, v, attended] = &step.heads;
        ops::linear(&step.normed, &self.q_proj, &step.q)?;
        ops::linear(&step.normed, &self.k_proj, &step.k)?;
        ops::linear(&step.normed, &self.v_proj, &step.v)?;
        ops::rope(q, &step.positions, rope)?;
        ops::rope(k, &step.positions, rope)?;
        ops::store_kv(k, v, &step.slots, &cache.k, &cache.v)?;
        ops::paged_attention(q, &cache.k, &cache.v, step.pages(), self.window, attended)?;
        ops::linear(&step.attended, &self.o_proj, &step.delta)?;
        Ok(())
    }
}
