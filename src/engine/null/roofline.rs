//! How long a step takes on a card: the time to move its bytes, or to do its arithmetic, whichever is longer.
//!
//! A floor, not a forecast: no kernel reaches both rates, and launches, routing and norms are left out.

use std::time::Duration;

use super::catalogue::{Card, Precision, Shape, Sizes};
use crate::engine::scheduler::StepPlan;

#[cfg(test)]
mod tests;

/// What a card can do in a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Bytes that its memory delivers.
    pub bytes_per_second: f64,
    /// Operations of a bf16 product, a multiplication and an addition counted as two.
    pub bf16_flops: f64,
    /// The same in fp8, on cards that have it.
    pub fp8_flops: Option<f64>,
}

/// The least time of any step of one model, stored in one precision, on one card.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Roofline {
    sizes: Sizes,
    precision: Precision,
    rates: Rates,
}

impl Roofline {
    /// For `shape` as `precision` on `card`, at the rates that [`Card::rates`] names.
    pub fn new(shape: Shape, card: Card, precision: Precision) -> Self {
        Self::at(shape, card.rates(), precision)
    }

    /// The same at other rates.
    pub fn at(shape: Shape, rates: Rates, precision: Precision) -> Self {
        Self {
            sizes: shape.sizes(),
            precision,
            rates,
        }
    }

    /// The time of a step. Nothing but the plan counts: whose tokens they are changes nothing.
    pub fn step_time(&self, plan: &StepPlan) -> Duration {
        let work = Work::of(plan);
        Duration::from_secs_f64(self.memory_seconds(&work).max(self.compute_seconds(&work)))
    }

    /// Weights of the experts that are hit, attention, output layer, keys and values, activations.
    fn memory_seconds(&self, work: &Work) -> f64 {
        let Self {
            sizes, precision, ..
        } = self;
        let experts = sizes.busy_experts(work.tokens) * sizes.expert_weights() as f64;
        let layer = (experts + sizes.attention_weights() as f64) * precision.layer_bytes();
        let head = match work.rows {
            0.0 => 0.0,
            _ => sizes.table_weights() as f64 * precision.head_bytes(),
        };
        let bytes = sizes.layers as f64 * layer
            + head
            + work.context * sizes.kv_bytes_per_token() as f64
            + work.tokens * sizes.activation_bytes_per_token() as f64;
        bytes / self.rates.bytes_per_second
    }

    /// Two operations per weight and token, and attention, which is in bf16 in every precision.
    fn compute_seconds(&self, work: &Work) -> f64 {
        let sizes = &self.sizes;
        let linear = sizes.linear_flops(work.tokens, work.rows);
        let attention = sizes.attention_flops(work.pairs);
        let linear_rate = match self.rates.fp8_flops {
            Some(fp8) if self.precision.is_fp8_product() => fp8,
            _ => self.rates.bf16_flops,
        };
        linear / linear_rate + attention / self.rates.bf16_flops
    }
}

/// What of a plan the time of a step depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Work {
    /// Tokens computed.
    tokens: f64,
    /// Rows of logits.
    rows: f64,
    /// Tokens whose keys and values are read: each sequence's, once.
    context: f64,
    /// Pairs of a query and a key that it sees.
    pairs: f64,
}

impl Work {
    fn of(plan: &StepPlan) -> Self {
        let mut work = Self::default();
        for part in &plan.parts {
            let (start, tokens) = (part.start as f64, part.num_tokens as f64);
            work.tokens += tokens;
            work.rows += f64::from(u8::from(part.due));
            work.context += start + tokens;
            // The token at position p sees p + 1 keys.
            work.pairs += tokens * start + tokens * (tokens + 1.0) / 2.0;
        }
        work
    }
}
