//! What a checkpoint says about itself: `config.json` and `generation_config.json`.

use std::num::NonZeroUsize;

use serde::Deserialize;
use serde_json::Value;

use super::{ModelError, ModelSource};

/// The shape of a Mixtral. Every size is checked: non-zero, consistent, and small enough to multiply.
#[derive(Debug, Clone, PartialEq)]
pub struct MixtralConfig {
    /// Tokens in the vocabulary; ids are below it.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside of an expert.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Experts per layer.
    pub num_local_experts: usize,
    /// Experts that see each token.
    pub num_experts_per_tok: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Each token sees this many tokens, itself included; `None`: all before it.
    pub sliding_window: Option<NonZeroUsize>,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square before the root.
    pub rms_norm_eps: f64,
    /// The output layer is the embedding table.
    pub tie_word_embeddings: bool,
    /// Token that begins a prompt, if the checkpoint names one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence.
    pub eos_token_ids: Vec<u32>,
}

/// What a checkpoint proposes for generation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Tokens that end a sequence; those of `config.json` if `generation_config.json` names none.
    pub eos_token_ids: Vec<u32>,
    /// Sampling temperature.
    pub temperature: Option<f32>,
    /// Nucleus size.
    pub top_p: Option<f32>,
    /// How many of the most likely tokens to keep.
    pub top_k: Option<u32>,
}

impl MixtralConfig {
    /// Reads the configuration of a model.
    ///
    /// # Errors
    /// [`ModelError`] naming the field that is missing, malformed or not supported.
    pub fn of(source: &ModelSource) -> Result<Self, ModelError> {
        Self::parse(&source.require("config.json")?)
    }

    /// Width of all query heads together.
    pub fn q_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads together, and of all value heads.
    pub fn kv_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`ModelError::File`] naming the field that is missing, malformed, contradictory or not supported.
    pub fn parse(json: &[u8]) -> Result<Self, ModelError> {
        let raw: RawConfig =
            serde_json::from_slice(json).map_err(|error| problem(error.to_string()))?;
        raw.check_supported()?;
        let heads = positive("num_attention_heads", raw.num_attention_heads)?;
        let hidden_size = positive("hidden_size", raw.hidden_size)?;
        let head_dim = match raw.head_dim {
            Some(dim) => positive("head_dim", dim)?,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                return Err(problem(format!(
                    "hidden_size {hidden_size} is no multiple of num_attention_heads {heads}, and head_dim is not given"
                )));
            }
        };
        let config = Self {
            vocab_size: positive("vocab_size", raw.vocab_size)?,
            hidden_size,
            intermediate_size: positive("intermediate_size", raw.intermediate_size)?,
            num_hidden_layers: positive("num_hidden_layers", raw.num_hidden_layers)?,
            num_attention_heads: heads,
            num_key_value_heads: positive(
                "num_key_value_heads",
                raw.num_key_value_heads.unwrap_or(heads),
            )?,
            head_dim,
            num_local_experts: positive("num_local_experts", raw.num_local_experts)?,
            num_experts_per_tok: positive("num_experts_per_tok", raw.num_experts_per_tok)?,
            max_position_embeddings: positive(
                "max_position_embeddings",
                raw.max_position_embeddings,
            )?,
            sliding_window: match raw.sliding_window {
                None => None,
                Some(window) => Some(
                    NonZeroUsize::new(window)
                        .ok_or_else(|| problem("sliding_window is 0; null means no window"))?,
                ),
            },
            rope_theta: raw.rope_theta()?,
            rms_norm_eps: raw.rms_norm_eps,
            tie_word_embeddings: raw.tie_word_embeddings,
            bos_token_id: raw.bos_token_id,
            eos_token_ids: raw
                .eos_token_id
                .map(OneOrMany::into_vec)
                .unwrap_or_default(),
        };
        config.check_sizes()?;
        Ok(config)
    }

    /// Weights of the whole model, all experts counted.
    pub fn num_parameters(&self) -> u64 {
        let size = |rows: usize, columns: usize| rows as u64 * columns as u64;
        let (hidden, experts) = (self.hidden_size, self.num_local_experts);
        let heads = 2 * (self.num_attention_heads + self.num_key_value_heads);
        let expert = 3 * size(self.intermediate_size, hidden);
        let layer = size(heads * self.head_dim, hidden)
            + size(experts, hidden)
            + experts as u64 * expert
            + 2 * hidden as u64;
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        tables * size(self.vocab_size, hidden)
            + self.num_hidden_layers as u64 * layer
            + hidden as u64
    }

    /// Weights that each token is multiplied with, the output layer aside.
    pub(super) fn active_weights(&self) -> usize {
        let heads = 2 * self.num_attention_heads + 2 * self.num_key_value_heads;
        let experts =
            self.num_local_experts + 3 * self.num_experts_per_tok * self.intermediate_size;
        self.num_hidden_layers * self.hidden_size * (heads * self.head_dim + experts)
    }

    fn check_sizes(&self) -> Result<(), ModelError> {
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(problem(format!(
                "num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}"
            )));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(problem(format!(
                "head_dim {} is odd; rotary embedding turns pairs",
                self.head_dim
            )));
        }
        if self.num_experts_per_tok > self.num_local_experts {
            return Err(problem(format!(
                "num_experts_per_tok {} is more than num_local_experts {}",
                self.num_experts_per_tok, self.num_local_experts
            )));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps > 0.0) {
            return Err(problem(format!(
                "rms_norm_eps is {}; a small positive number is needed",
                self.rms_norm_eps
            )));
        }
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", heads),
            ("head_dim", self.head_dim),
            ("num_local_experts", self.num_local_experts),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if value > LARGEST {
                return Err(problem(format!(
                    "{name} is {value}; at most {LARGEST} is supported"
                )));
            }
        }
        Ok(())
    }
}

impl GenerationDefaults {
    /// Reads `generation_config.json`; without one, takes what `config` says.
    ///
    /// # Errors
    /// [`ModelError::File`] saying what is malformed.
    pub fn parse(json: Option<&[u8]>, config: &MixtralConfig) -> Result<Self, ModelError> {
        let raw: RawGeneration = match json {
            None => RawGeneration::default(),
            Some(json) => serde_json::from_slice(json)
                .map_err(|error| ModelError::file("generation_config.json", error.to_string()))?,
        };
        Ok(Self {
            eos_token_ids: raw
                .eos_token_id
                .map_or_else(|| config.eos_token_ids.clone(), OneOrMany::into_vec),
            temperature: raw.temperature,
            top_p: raw.top_p,
            top_k: raw.top_k,
        })
    }
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    architectures: Vec<String>,
    hidden_act: Option<String>,
    quantization_config: Option<Value>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<RopeParameters>,
    rope_theta: Option<f64>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    num_local_experts: usize,
    num_experts_per_tok: usize,
    max_position_embeddings: usize,
    sliding_window: Option<usize>,
    #[serde(default = "default_eps")]
    rms_norm_eps: f64,
    #[serde(default)]
    tie_word_embeddings: bool,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
}

#[derive(Deserialize)]
struct RopeParameters {
    rope_type: Option<String>,
    rope_theta: Option<f64>,
}

#[derive(Default, Deserialize)]
struct RawGeneration {
    eos_token_id: Option<OneOrMany>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

impl RawConfig {
    fn check_supported(&self) -> Result<(), ModelError> {
        if self.architectures != ["MixtralForCausalLM"] {
            return Err(problem(format!(
                "architectures is {:?}; supported is [\"MixtralForCausalLM\"]",
                self.architectures
            )));
        }
        if let Some(act) = &self.hidden_act
            && act != "silu"
        {
            return Err(problem(format!(
                "hidden_act is \"{act}\"; supported is \"silu\""
            )));
        }
        if let Some(quantization) = &self.quantization_config {
            let method = quantization
                .get("quant_method")
                .and_then(Value::as_str)
                .unwrap_or("unnamed");
            return Err(problem(format!(
                "quantization_config asks for {method}; supported are checkpoints stored as f32, bf16 or f16"
            )));
        }
        if let Some(scaling) = &self.rope_scaling {
            return Err(problem(format!(
                "rope_scaling is {scaling}; supported is null"
            )));
        }
        Ok(())
    }

    /// Transformers 5 nests it, earlier versions do not; without either, transformers assumes a million.
    fn rope_theta(&self) -> Result<f64, ModelError> {
        let nested = self.rope_parameters.as_ref();
        if let Some(kind) = nested.and_then(|rope| rope.rope_type.as_deref())
            && kind != "default"
        {
            return Err(problem(format!(
                "rope_parameters.rope_type is \"{kind}\"; supported is \"default\""
            )));
        }
        let theta = nested
            .and_then(|rope| rope.rope_theta)
            .or(self.rope_theta)
            .unwrap_or(1e6);
        if !(theta.is_finite() && theta >= 1.0) {
            return Err(problem(format!(
                "rope_theta is {theta}; at least 1 is needed"
            )));
        }
        Ok(theta)
    }
}

fn positive(name: &str, value: usize) -> Result<usize, ModelError> {
    if value == 0 {
        Err(problem(format!("{name} is 0; at least 1 is needed")))
    } else {
        Ok(value)
    }
}

fn problem(problem: impl Into<String>) -> ModelError {
    ModelError::file("config.json", problem)
}

/// As transformers' `MixtralConfig`.
fn default_eps() -> f64 {
    1e-5
}

/// Bound on each single size: far above any Mixtral (a vocabulary of 32,000), and the product of any three of them
/// fits 64 bits.
const LARGEST: usize = 1 << 20;

#[cfg(test)]
mod tests;
