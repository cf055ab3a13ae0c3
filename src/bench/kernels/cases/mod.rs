//! The kernels that are measured, each with its tensors and with what it costs at least.

mod attention;
mod choices;
mod products;
mod rows;

pub(super) use products::{bf16_product, library_product};

use super::pool::{Case, Pool};
use super::{KernelBenchError, Shape};
use crate::ops::{Device, Multiplier, PackedFormat};

/// A kernel, or two that run one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    AddRmsNorm,
    Embedding,
    /// The rows that logits are due of.
    GatherRows,
    RopeStoreKv,
    /// `route` and `sort_by_expert`, or `route_few`.
    Route,
    AddExpertsRmsNorm,
    /// A plain layer.
    Linear(Layer, Option<PackedFormat>),
    /// A plain layer in bf16, by the device's library.
    Library(Layer),
    /// Both sides of the experts.
    Experts(Option<PackedFormat>),
    /// Sequences with so many tokens of context.
    Decode(usize),
    /// A prompt of one sequence.
    Prefill,
    /// The same by warps, where a device has warpgroups for it, too.
    PrefillByWarps,
    /// A later chunk of one, on what is in the cache.
    Chunk,
    Sample(Choice),
    Logprobs,
    /// Tables for penalties, of sequences as long as the shorter context.
    CountTokens,
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
    TopK,
    TopP,
    MinP,
    Penalties,
    Mask,
}

impl Choice {
    const ALL: [Self; 6] = [
        Self::Greedy,
        Self::TopK,
        Self::TopP,
        Self::MinP,
        Self::Penalties,
        Self::Mask,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::TopK => "top-k",
            Self::TopP => "top-p",
            Self::MinP => "min-p",
            Self::Penalties => "penalties",
            Self::Mask => "mask",
        }
    }
}

/// All of them, in the order of a step.
pub(super) fn all(shape: &Shape) -> Vec<Kernel> {
    let mut kernels = vec![Kernel::Embedding, Kernel::AddRmsNorm, Kernel::RopeStoreKv];
    kernels.extend(shape.contexts.iter().map(|&it| Kernel::Decode(it)));
    kernels.extend([Kernel::Prefill, Kernel::PrefillByWarps, Kernel::Chunk]);
    kernels.extend([Kernel::Route, Kernel::AddExpertsRmsNorm]);
    let layers = [Layer::Qkv, Layer::Out, Layer::LmHead];
    let formats = || std::iter::once(None).chain(PackedFormat::ALL.map(Some));
    kernels.extend(formats().map(Kernel::Experts));
    for format in formats() {
        kernels.extend(layers.map(|layer| Kernel::Linear(layer, format)));
    }
    kernels.extend(layers.map(Kernel::Library));
    kernels.push(Kernel::GatherRows);
    kernels.extend(Choice::ALL.map(Kernel::Sample));
    kernels.extend([Kernel::Logprobs, Kernel::CountTokens]);
    kernels
}

impl Kernel {
    /// What it is called in results.
    pub fn name(self) -> String {
        let stored = |format: Option<PackedFormat>| format.map_or("bf16", |it| it.storage().name());
        match self {
            Self::AddRmsNorm => "add_rms_norm".to_owned(),
            Self::Embedding => "embedding".to_owned(),
            Self::GatherRows => "gather_rows".to_owned(),
            Self::RopeStoreKv => "rope_store_kv".to_owned(),
            Self::Route => "route + sort_by_expert".to_owned(),
            Self::AddExpertsRmsNorm => "add_experts_rms_norm".to_owned(),
            Self::Linear(layer, format) => format!("linear {} {}", layer.name(), stored(format)),
            Self::Library(layer) => format!("linear {} cublaslt", layer.name()),
            Self::Experts(format) => format!("experts in + out {}", stored(format)),
            Self::Decode(context) => format!("paged decode {context}"),
            Self::Prefill => "paged prefill".to_owned(),
            Self::PrefillByWarps => "paged prefill by warps".to_owned(),
            Self::Chunk => "paged prefill on cached".to_owned(),
            Self::Sample(choice) => format!("sample {}", choice.name()),
            Self::Logprobs => "logprobs".to_owned(),
            Self::CountTokens => "count_tokens".to_owned(),
        }
    }

    /// Whether the device's library does it.
    pub fn is_librarys(self) -> bool {
        matches!(self, Self::Library(_))
    }

    /// Whether so many rows are worth measuring.
    pub fn takes(self, shape: &Shape, rows: usize) -> bool {
        let of_sequences = rows <= shape.most_logit_rows;
        match self {
            Self::Linear(Layer::LmHead, _) | Self::GatherRows => of_sequences,
            Self::Sample(_) | Self::Logprobs | Self::CountTokens => of_sequences,
            Self::Library(Layer::LmHead) => of_sequences && rows >= shape.least_library_rows,
            Self::Library(_) => rows >= shape.least_library_rows,
            Self::Prefill | Self::PrefillByWarps => rows >= shape.least_prompt,
            Self::Chunk => (shape.least_prompt..=shape.most_chunk).contains(&rows),
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
            Self::GatherRows => rows::gather_rows(pool, shape, m),
            Self::RopeStoreKv => rows::rope_store_kv(pool, shape, m),
            Self::Route => rows::route(pool, shape, m),
            Self::AddExpertsRmsNorm => rows::add_experts_rms_norm(pool, shape, m),
            Self::Linear(layer, format) => {
                let [n, k] = layer.sizes(shape);
                products::linear(pool, format, [m, n, k])
            }
            Self::Library(layer) => {
                let [n, k] = layer.sizes(shape);
                library_product(pool, [m, n, k])
            }
            Self::Experts(format) => products::experts(pool, shape, format, m),
            Self::Decode(context) => attention::decode(pool, shape, m, context),
            Self::Prefill => attention::prefill(pool, shape, None, m, 0),
            Self::PrefillByWarps => attention::prefill(pool, shape, Some(Multiplier::Warps), m, 0),
            Self::Chunk => attention::prefill(pool, shape, None, m, shape.cached),
            Self::Sample(choice) => choices::sample(pool, shape, choice, m),
            Self::Logprobs => choices::logprobs(pool, shape, m),
            Self::CountTokens => choices::count_tokens(pool, shape, m),
        }
    }
}

impl Layer {
    fn name(self) -> &'static str {
        match self {
            Self::Qkv => "qkv",
            Self::Out => "o",
            Self::LmHead => "lm_head",
        }
    }

    /// Output and input width.
    fn sizes(self, shape: &Shape) -> [usize; 2] {
        match self {
            Self::Qkv => [shape.q_width() + 2 * shape.kv_width(), shape.hidden],
            Self::Out => [shape.hidden, shape.q_width()],
            Self::LmHead => [shape.vocab, shape.hidden],
        }
    }
}
