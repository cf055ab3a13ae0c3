//! The kernels that are measured, each with its tensors and with what it costs at least.

mod attention;
mod products;
mod rows;

pub(super) use products::bf16_product;

use super::pool::{Case, Pool};
use super::{KernelBenchError, Shape};
use crate::ops::{Device, PackedFormat};

/// A kernel, or two that run one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    AddRmsNorm,
    Embedding,
    RopeStoreKv,
    /// `route` and `sort_by_expert`, or `route_few`.
    Route,
    AddExpertsRmsNorm,
    /// A plain layer.
    Linear(Layer, Option<PackedFormat>),
    /// Both sides of the experts.
    Experts(Option<PackedFormat>),
    /// Sequences with so many tokens of context.
    Decode(usize),
    /// A prompt of one sequence.
    Prefill,
    Sample(Choice),
}

/// A plain layer of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    Qkv,
    Out,
    LmHead,
}

/// How a token is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Greedy,
    TopP,
}

/// All of them, in the order of a step.
pub(super) fn all(shape: &Shape) -> Vec<Kernel> {
    let mut kernels = vec![Kernel::Embedding, Kernel::AddRmsNorm, Kernel::RopeStoreKv];
    kernels.extend(
        shape
            .contexts
            .iter()
            .map(|&context| Kernel::Decode(context)),
    );
    kernels.extend([Kernel::Prefill, Kernel::Route, Kernel::AddExpertsRmsNorm]);
    for format in [None, Some(PackedFormat::W4a16)] {
        let layers = [Layer::Qkv, Layer::Out, Layer::LmHead];
        kernels.extend(layers.map(|layer| Kernel::Linear(layer, format)));
    }
    kernels.push(Kernel::Experts(None));
    kernels.extend(PackedFormat::ALL.map(|format| Kernel::Experts(Some(format))));
    kernels.extend([Choice::Greedy, Choice::TopP].map(Kernel::Sample));
    kernels
}

impl Kernel {
    /// What it is called in results.
    pub fn name(self) -> String {
        let stored = |format: Option<PackedFormat>| format.map_or("bf16", |it| it.storage().name());
        match self {
            Self::AddRmsNorm => "add_rms_norm".to_owned(),
            Self::Embedding => "embedding".to_owned(),
            Self::RopeStoreKv => "rope_store_kv".to_owned(),
            Self::Route => "route + sort_by_expert".to_owned(),
            Self::AddExpertsRmsNorm => "add_experts_rms_norm".to_owned(),
            Self::Linear(layer, format) => {
                let layer = match layer {
                    Layer::Qkv => "qkv",
                    Layer::Out => "o",
                    Layer::LmHead => "lm_head",
                };
                format!("linear {layer} {}", stored(format))
            }
            Self::Experts(format) => format!("experts in + out {}", stored(format)),
            Self::Decode(context) => format!("paged decode {context}"),
            Self::Prefill => "paged prefill".to_owned(),
            Self::Sample(Choice::Greedy) => "sample greedy".to_owned(),
            Self::Sample(Choice::TopP) => "sample top-p".to_owned(),
        }
    }

    /// Whether so many rows are worth measuring.
    pub fn takes(self, shape: &Shape, rows: usize) -> bool {
        match self {
            Self::Linear(Layer::LmHead, _) => rows <= shape.most_logit_rows,
            Self::Prefill => rows >= shape.least_prompt,
            _ => true,
        }
    }

    /// Its tensors and launches for `m` rows.
    ///
    /// # Errors
    /// [`KernelBenchError`] if there is no room, or the device fails.
    pub fn prepare<D: Device>(
        self,
        pool: &mut Pool<'_, D>,
        shape: &Shape,
        m: usize,
    ) -> Result<Case, KernelBenchError> {
        match self {
            Self::AddRmsNorm => rows::add_rms_norm(pool, shape, m),
            Self::Embedding => rows::embedding(pool, shape, m),
            Self::RopeStoreKv => rows::rope_store_kv(pool, shape, m),
            Self::Route => rows::route(pool, shape, m),
            Self::AddExpertsRmsNorm => rows::add_experts_rms_norm(pool, shape, m),
            Self::Linear(layer, format) => {
                let (n, k) = match layer {
                    Layer::Qkv => (shape.q_width() + 2 * shape.kv_width(), shape.hidden),
                    Layer::Out => (shape.hidden, shape.q_width()),
                    Layer::LmHead => (shape.vocab, shape.hidden),
                };
                products::linear(pool, format, [m, n, k])
            }
            Self::Experts(format) => products::experts(pool, shape, format, m),
            Self::Decode(context) => attention::decode(pool, shape, m, context),
            Self::Prefill => attention::prefill(pool, shape, m),
            Self::Sample(choice) => rows::sample(pool, shape, choice, m),
        }
    }
}
