//! The mixture of experts: each token goes through the few that its gate picks.

use super::backend::Backend;
use super::weights::Checkpoint;
use super::{MixtralConfig, ModelError};

/// One layer's gate and experts.
#[derive(Debug)]
pub(super) struct Moe<B: Backend> {
    /// `[experts, hidden]`
    gate: B::Matrix,
    /// `[experts, 2 * intermediate, hidden]`: of each expert w1 (gate) and w3 (up)
    gate_up: B::Experts,
    /// `[experts, hidden, intermediate]`: w2
    down: B::Experts,
}

impl<B: Backend> Moe<B> {
    pub fn load(
        backend: &B,
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
        let gate = format!("{prefix}.gate.weight");
        Ok(Self {
            gate: backend.gate(checkpoint, &gate, [experts, hidden])?,
            gate_up: backend.gate_up(
                checkpoint,
                &gate_up,
                [width, hidden],
                [experts, 2 * width, hidden],
            )?,
            down: backend.down(checkpoint, &down, [experts, hidden, width])?,
        })
    }

    /// What the experts that each token's gate picks make of `normed`; the norm that follows adds it up by their weights.
    pub fn forward(&self, backend: &B, step: &B::Step) -> Result<(), ModelError> {
        backend.route(&self.gate, step)?;
        backend.experts_in(&self.gate_up, step)?;
        backend.experts_out(&self.down, step)
    }
}
