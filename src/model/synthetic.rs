//! Models of a named shape with random weights, for benchmarks where no checkpoint is at hand.
//!
//! A weight follows from its tensor's name, its place and the seed: the same model every time, on every device, and no two
//! tensors alike. Quantised forms hold the nearest codes to the same weights (`ops/synthetic.rs`). What it says is nonsense;
//! what it costs is the real thing.

use std::fmt;

use half::bf16;

use crate::ops::{Draw, Storage};

/// Which model to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synthetic {
    shape: &'static Shape,
    /// How weights are stored; `None`: in bf16, or as the operator says.
    pub storage: Option<Storage>,
    layers: u32,
    seed: u64,
}

/// The sizes of a published model.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    name: &'static str,
    hidden: u32,
    intermediate: u32,
    layers: u32,
    heads: u32,
    kv_heads: u32,
    vocab: u32,
    context: u32,
}

/// Why a text names no synthetic model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SyntheticNameError {
    /// The part before the first comma is no shape.
    #[error("there is no shape \"{0}\"; there are {names}", names = list(SHAPES.iter().map(|shape| shape.name)))]
    Shape(String),
    /// A part after a comma has no meaning.
    #[error("\"{0}\" is none of dtype=…, layers=… and seed=…")]
    Option(String),
    /// No such storage.
    #[error("there is no dtype \"{0}\"; there are {names}", names = list(Storage::ALL.iter().map(|storage| storage.name())))]
    Storage(String),
    /// Layers out of range.
    #[error("layers is \"{given}\"; {shape} has 1 to {most}")]
    Layers {
        /// What was given.
        given: String,
        /// The shape's name.
        shape: &'static str,
        /// Its layers.
        most: u32,
    },
    /// Not a number.
    #[error("seed is \"{0}\", wanted a number")]
    Seed(String),
}

impl Synthetic {
    /// Reads `SHAPE[,dtype=…][,layers=N][,seed=N]`.
    ///
    /// # Errors
    /// [`SyntheticNameError`] with what would be right.
    pub fn parse(text: &str) -> Result<Self, SyntheticNameError> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        let shape = SHAPES
            .iter()
            .find(|shape| shape.name == name)
            .ok_or_else(|| SyntheticNameError::Shape(name.to_owned()))?;
        let mut model = Self {
            shape,
            storage: None,
            layers: shape.layers,
            seed: 0,
        };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match key {
                "dtype" => {
                    let storage = Storage::named(value);
                    let unknown = || SyntheticNameError::Storage(value.to_owned());
                    model.storage = Some(storage.ok_or_else(unknown)?);
                }
                "layers" => {
                    let layers = value.parse().ok().filter(|&n| n >= 1 && n <= shape.layers);
                    model.layers = layers.ok_or_else(|| SyntheticNameError::Layers {
                        given: value.to_owned(),
                        shape: shape.name,
                        most: shape.layers,
                    })?;
                }
                "seed" => {
                    let wrong = |_| SyntheticNameError::Seed(value.to_owned());
                    model.seed = value.parse().map_err(wrong)?;
                }
                _ => return Err(SyntheticNameError::Option(part.to_owned())),
            }
        }
        Ok(model)
    }

    /// The configuration that its checkpoint would have.
    pub(super) fn config(&self) -> String {
        let Shape {
            hidden,
            intermediate,
            heads,
            kv_heads,
            vocab,
            context,
            ..
        } = *self.shape;
        format!(
            r#"{{"architectures": ["MixtralForCausalLM"], "hidden_act": "silu", "vocab_size": {vocab},
                "hidden_size": {hidden}, "intermediate_size": {intermediate}, "num_hidden_layers": {},
                "num_attention_heads": {heads}, "num_key_value_heads": {kv_heads}, "num_local_experts": 8,
                "num_experts_per_tok": 2, "max_position_embeddings": {context}, "rms_norm_eps": 1e-5,
                "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false,
                "bos_token_id": 1, "eos_token_id": 2}}"#,
            self.layers
        )
    }

    /// How a tensor's weights are drawn: evenly between bounds such that a product with unit inputs has unit size.
    /// `None` for a norm: ones.
    pub(super) fn draw(&self, name: &str, shape: &[usize]) -> Option<Draw> {
        let inputs = match shape {
            [] | [_] => return None,
            _ if name.contains("embed") => 3,
            [.., columns] => *columns,
        };
        let seed = name.bytes().fold(self.seed ^ OFFSET, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(PRIME)
        });
        let bound = (3.0 / inputs as f32).sqrt();
        Some(Draw { seed, bound })
    }

    /// Writes a tensor, in bf16.
    pub(super) fn fill(&self, name: &str, shape: &[usize], weights: &mut [bf16]) {
        match self.draw(name, shape) {
            Some(draw) => draw.fill(0, weights),
            None => weights.fill(bf16::ONE),
        }
    }
}

impl fmt::Display for Synthetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shape.name)?;
        if let Some(storage) = self.storage {
            write!(f, ",dtype={storage}")?;
        }
        if self.layers != self.shape.layers {
            write!(f, ",layers={}", self.layers)?;
        }
        if self.seed != 0 {
            write!(f, ",seed={}", self.seed)?;
        }
        Ok(())
    }
}

fn list(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// As their checkpoints say; the last is the size of the model in the binary.
static SHAPES: [Shape; 3] = [
    Shape {
        name: "mixtral-8x7b",
        hidden: 4096,
        intermediate: 14_336,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        vocab: 32_000,
        context: 32_768,
    },
    Shape {
        name: "mixtral-8x22b",
        hidden: 6144,
        intermediate: 16_384,
        layers: 56,
        heads: 48,
        kv_heads: 8,
        vocab: 32_768,
        context: 65_536,
    },
    Shape {
        name: "seedling",
        hidden: 256,
        intermediate: 256,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        vocab: 3072,
        context: 2048,
    },
];

/// FNV-1a (Fowler, Noll and Vo).
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MixtralConfig;

    #[test]
    fn names_are_read_and_written_back() {
        for name in [
            "mixtral-8x7b",
            "mixtral-8x22b,layers=2",
            "mixtral-8x7b,dtype=w4a16",
            "mixtral-8x7b,dtype=q4_k,layers=4,seed=7",
        ] {
            assert_eq!(Synthetic::parse(name).unwrap().to_string(), name);
        }
        let same = Synthetic::parse("mixtral-8x7b,layers=32,seed=0").unwrap();
        assert_eq!(same.to_string(), "mixtral-8x7b");
    }

    #[test]
    fn what_is_wrong_with_a_name_is_said() {
        for (name, problem) in [
            (
                "mixtral-9x7b",
                "there is no shape \"mixtral-9x7b\"; there are mixtral-8x7b, mixtral-8x22b, seedling",
            ),
            (
                "mixtral-8x7b,dtype=int3",
                "there is no dtype \"int3\"; there are f32, bf16, w4a16, q8_0, q4_k, fp8",
            ),
            (
                "mixtral-8x7b,layers=33",
                "layers is \"33\"; mixtral-8x7b has 1 to 32",
            ),
            (
                "mixtral-8x7b,layers=0",
                "layers is \"0\"; mixtral-8x7b has 1 to 32",
            ),
            ("mixtral-8x7b,seed=x", "seed is \"x\", wanted a number"),
            (
                "mixtral-8x7b,tp=2",
                "\"tp=2\" is none of dtype=…, layers=… and seed=…",
            ),
        ] {
            assert_eq!(Synthetic::parse(name).unwrap_err().to_string(), problem);
        }
    }

    #[test]
    fn the_shape_is_the_published_one() {
        let model = Synthetic::parse("mixtral-8x7b").unwrap();
        let config = MixtralConfig::parse(model.config().as_bytes()).unwrap();
        assert_eq!(config.num_parameters(), 46_702_792_704);
    }

    #[test]
    fn weights_follow_from_name_and_seed_and_have_the_size_they_should() {
        let values = |model: &str, tensor: &str| {
            let mut weights = vec![bf16::ZERO; 64 * 4096];
            let model = Synthetic::parse(model).unwrap();
            model.fill(tensor, &[64, 4096], &mut weights);
            weights.into_iter().map(bf16::to_f32).collect::<Vec<_>>()
        };
        let one = values("seedling", "a");
        assert_eq!(one, values("seedling,layers=2", "a"));
        assert_ne!(one, values("seedling,seed=1", "a"));
        assert_ne!(one, values("seedling", "b"));
        let mean = one.iter().sum::<f32>() / one.len() as f32;
        let square = one.iter().map(|x| x * x).sum::<f32>() / one.len() as f32;
        // 262,144 weights of variance 1 / 4,096: the mean errs by 3e-5, the variance by 0.2 %.
        assert!(
            mean.abs() < 1.5e-4 && (square * 4096.0 - 1.0).abs() < 0.01,
            "{mean} {square}"
        );
    }
}
