//! The mixture of experts: each token goes through the few that its gate picks.

use candle_core::Tensor;

use super::weights::Checkpoint;
use super::workspace::Step;
use super::{MixtralConfig, ModelError};
use crate::ops::{self, Side};

/// One layer's gate and experts.
#[derive(Debug)]
pub(super) struct Moe {
    /// `[experts, hidden]`
    gate: Tensor,
    /// `[experts, 2 * intermediate, hidden]`: of each expert first w1 (gate), then w3 (up)
    gate_up: Tensor,
    /// `[experts, hidden, intermediate]`: w2
    down: Tensor,
    top_k: usize,
}

impl Moe {
    pub fn load(
        checkpoint: &Checkpoint,
        layer: usize,
        config: &MixtralConfig,
    ) -> Result<Self, ModelError> {
        let (experts, hidden, width) = (
            config.num_local_experts,
            config.hidden_size,
            config.intermediate_size,
        );
        let prefix = format!("model.layers.{layer}.block_sparse_moe");
        let weight = |expert: usize, name: &str| format!("{prefix}.experts.{expert}.{name}.weight");
        let gate_up: Vec<String> = (0..experts)
            .flat_map(|expert| [weight(expert, "w1"), weight(expert, "w3")])
            .collect();
        let down: Vec<String> = (0..experts).map(|expert| weight(expert, "w2")).collect();
        Ok(Self {
            gate: checkpoint.tensor(&format!("{prefix}.gate.weight"), &[experts, hidden])?,
            gate_up: checkpoint.stacked(
                &gate_up,
                &[width, hidden],
                &[experts, 2 * width, hidden],
            )?,
            down: checkpoint.stacked(&down, &[hidden, width], &[experts, hidden, width])?,
            top_k: config.num_experts_per_tok,
        })
    }

    /// `delta = Σ weight · expert(normed)` over the experts that each token's gate picks.
    pub fn forward(&self, step: &Step) -> Result<(), ModelError> {
        ops::linear(&step.normed, &self.gate, &step.gate_logits)?;
        ops::route(&step.gate_logits, &step.experts, &step.expert_weights)?;
        ops::sort_by_expert(&step.experts, &step.order, &step.offsets)?;
        let routing = step.routing(self.top_k);
        ops::grouped_linear(
            &step.normed,
            &self.gate_up,
            routing,
            Side::In,
            &step.gate_up,
        )?;
        ops::silu_mul(&step.gate_up, &step.activated)?;
        ops::grouped_linear(&step.activated, &self.down, routing, Side::Out, &step.pairs)?;
        ops::combine_experts(&step.pairs, &step.expert_weights, &step.delta)?;
        Ok(())
    }
}
