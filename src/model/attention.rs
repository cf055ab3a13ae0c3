//! Self-attention with grouped key-value heads over the paged cache.

use super::backend::Backend;
use super::weights::Checkpoint;
use super::{MixtralConfig, ModelError};

/// One layer's attention.
#[derive(Debug)]
pub(super) struct Attention<B: Backend> {
    qkv: B::Qkv,
    o_proj: B::Matrix,
    window: Option<usize>,
}

impl<B: Backend> Attention<B> {
    pub fn load(
        backend: &B,
        checkpoint: &Checkpoint,
        layer: usize,
        config: &MixtralConfig,
    ) -> Result<Self, ModelError> {
        let name = |name: &str| format!("model.layers.{layer}.self_attn.{name}.weight");
        let (q, k, v) = (name("q_proj"), name("k_proj"), name("v_proj"));
        let out = [config.hidden_size, config.q_width()];
        Ok(Self {
            qkv: backend.qkv(checkpoint, [&q, &k, &v], config)?,
            o_proj: backend.matrix(checkpoint, &name("o_proj"), out)?,
            window: config.sliding_window.map(Into::into),
        })
    }

    /// `delta = attention(normed)`; this step's keys and values go into `cache`.
    pub fn forward(
        &self,
        backend: &B,
        step: &B::Step,
        cache: &B::LayerCache,
    ) -> Result<(), ModelError> {
        backend.project_qkv(&self.qkv, step)?;
        backend.rope_store_kv(step, cache)?;
        backend.paged_attention(step, cache, self.window)?;
        backend.project_out(&self.o_proj, step)
    }
}
