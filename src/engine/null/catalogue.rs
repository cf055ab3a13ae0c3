//! The models, cards and precisions that a null model can stand for, with the numbers behind their names.

use super::roofline::Rates;

/// A model whose shape is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Mixtral 8x7B.
    Mixtral8x7b,
    /// Mixtral 8x22B.
    Mixtral8x22b,
}

/// The sizes of a model, as its published `config.json` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Layers.
    pub layers: u64,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Width inside of an expert.
    pub intermediate: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads.
    pub kv_heads: u64,
    /// Width of a head.
    pub head_dim: u64,
    /// Experts per layer.
    pub experts: u64,
    /// Experts that see each token.
    pub top_k: u64,
    /// Tokens in the vocabulary.
    pub vocab: u64,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Mixtral8x7b, Self::Mixtral8x22b];

    /// Its name in a model's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mixtral8x7b => "mixtral-8x7b",
            Self::Mixtral8x22b => "mixtral-8x22b",
        }
    }

    /// Its sizes.
    pub fn sizes(self) -> Sizes {
        let small = Sizes {
            layers: 32,
            hidden: 4096,
            intermediate: 14_336,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            experts: 8,
            top_k: 2,
            vocab: 32_000,
        };
        match self {
            Self::Mixtral8x7b => small,
            Self::Mixtral8x22b => Sizes {
                layers: 56,
                hidden: 6144,
                intermediate: 16_384,
                heads: 48,
                vocab: 32_768,
                ..small
            },
        }
    }

    /// Longest sequence, in tokens.
    pub fn context(self) -> usize {
        match self {
            Self::Mixtral8x7b => 32_768,
            Self::Mixtral8x22b => 65_536,
        }
    }
}

impl Sizes {
    /// Weights of one expert: three matrices.
    pub fn expert_weights(&self) -> u64 {
        3 * self.hidden * self.intermediate
    }

    /// Weights of one layer's attention: queries and output, keys and values.
    pub fn attention_weights(&self) -> u64 {
        2 * (self.heads + self.kv_heads) * self.head_dim * self.hidden
    }

    /// Weights of the output layer, and as many again in the embedding.
    pub fn table_weights(&self) -> u64 {
        self.vocab * self.hidden
    }

    /// Attention and all experts of all layers: what a precision is about.
    pub fn layer_weights(&self) -> u64 {
        self.layers * (self.attention_weights() + self.experts * self.expert_weights())
    }

    /// All weights, gates and norms included.
    pub fn num_parameters(&self) -> u64 {
        let small = self.layers * (self.experts + 2) * self.hidden + self.hidden;
        self.layer_weights() + 2 * self.table_weights() + small
    }

    /// Keys and values of one token in bf16: 128 KiB for Mixtral 8x7B = 2 × 32 layers × 8 heads × 128 × 2 B.
    pub fn kv_bytes_per_token(&self) -> u64 {
        2 * self.layers * self.kv_heads * self.head_dim * BF16
    }

    /// What a token writes and reads again inside the experts: gate, up and product, each written and read once in
    /// bf16. 11 MB for Mixtral 8x7B.
    pub fn activation_bytes_per_token(&self) -> u64 {
        self.layers * self.top_k * self.intermediate * 3 * 2 * BF16
    }

    /// Experts of a layer that at least one of `tokens` is sent to, if each picks `top_k` of them with equal chances.
    pub fn busy_experts(&self, tokens: f64) -> f64 {
        let experts = self.experts as f64;
        experts * (1.0 - (1.0 - self.top_k as f64 / experts).powf(tokens))
    }

    /// Operations of all products with weights: two per weight that a token sees, `rows` rows of logits among them.
    pub fn linear_flops(&self, tokens: f64, rows: f64) -> f64 {
        let active = self.layers * (self.attention_weights() + self.top_k * self.expert_weights());
        2.0 * (tokens * active as f64 + rows * self.table_weights() as f64)
    }

    /// Operations of attention over `pairs` of a query and a key that it sees: scores and weighted values, each a
    /// multiplication and an addition per dimension of each query head.
    pub fn attention_flops(&self, pairs: f64) -> f64 {
        pairs * (4 * self.layers * self.heads * self.head_dim) as f64
    }
}

/// An accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    /// A100 80 GB PCIe.
    A100,
    /// H100 NVL 94 GB.
    H100Nvl,
    /// H100 SXM 80 GB.
    H100,
    /// H200 SXM 141 GB.
    H200,
}

impl Card {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::A100, Self::H100Nvl, Self::H100, Self::H200];

    /// Its name in a model's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::A100 => "a100",
            Self::H100Nvl => "h100-nvl",
            Self::H100 => "h100",
            Self::H200 => "h200",
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::A100 => "an A100 80 GB PCIe",
            Self::H100Nvl => "an H100 NVL 94 GB",
            Self::H100 => "an H100 SXM 80 GB",
            Self::H200 => "an H200 141 GB",
        }
    }

    /// Its memory in bytes, as sold: decimal gigabytes.
    pub fn memory(self) -> u64 {
        match self {
            Self::A100 | Self::H100 => 80 * GB,
            Self::H100Nvl => 94 * GB,
            Self::H200 => 141 * GB,
        }
    }

    /// What of its memory weights and KV cache may fill: 92 %, less 2 GB of workspace.
    pub fn usable_memory(self) -> u64 {
        self.memory() / 100 * 92 - 2 * GB
    }

    /// Its rates as its datasheet has them, dense.
    pub fn datasheet(self) -> Rates {
        let (bytes, bf16, fp8) = match self {
            Self::A100 => (1.935e12, 312e12, None),
            Self::H100Nvl => (3.9e12, 835e12, Some(1671e12)),
            Self::H100 => (3.35e12, 989e12, Some(1979e12)),
            Self::H200 => (4.8e12, 989e12, Some(1979e12)),
        };
        Rates {
            bytes_per_second: bytes,
            bf16_flops: bf16,
            fp8_flops: fp8,
        }
    }

    /// Its rates as measured by a plain copy and a large matrix product, where that was done: the H100 SXM and the
    /// H200. No fp8 product was measured, so that number stays the datasheet's.
    pub fn measured(self) -> Option<Rates> {
        let (bytes_per_second, bf16_flops) = match self {
            Self::A100 | Self::H100Nvl => return None,
            Self::H100 => (3.0e12, 798e12),
            Self::H200 => (4.3e12, 769e12),
        };
        Some(Rates {
            bytes_per_second,
            bf16_flops,
            ..self.datasheet()
        })
    }

    /// The rates to reckon with: measured ones where there are any.
    pub fn rates(self) -> Rates {
        self.measured().unwrap_or(self.datasheet())
    }
}

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Two bytes per weight.
    Bf16,
    /// One byte per weight, multiplied in fp8.
    Fp8,
    /// One byte per weight, multiplied in bf16.
    Int8,
    /// GGUF: 34 bytes per 32 weights, multiplied in bf16.
    Q8_0,
    /// Four bits in groups of 128 with a scale and a zero point, multiplied in bf16 (AWQ, GPTQ).
    W4a16,
    /// GGUF: 144 bytes per 256 weights, multiplied in bf16.
    Q4K,
}

impl Precision {
    /// All of them, largest first.
    pub const ALL: [Self; 6] = [
        Self::Bf16,
        Self::Q8_0,
        Self::Fp8,
        Self::Int8,
        Self::Q4K,
        Self::W4a16,
    ];

    /// Its name in a model's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
            Self::Int8 => "int8",
            Self::Q8_0 => "q8_0",
            Self::W4a16 => "w4a16",
            Self::Q4K => "q4_k",
        }
    }

    /// Bytes that a step reads per weight of attention and experts.
    pub fn layer_bytes(self) -> f64 {
        match self {
            Self::Bf16 => 2.0,
            Self::Fp8 | Self::Int8 => 1.0,
            Self::Q8_0 => 34.0 / 32.0,
            // 4 bits, and per 128 weights a scale of 16 and a zero point of 4.
            Self::W4a16 => (4.0 + 20.0 / 128.0) / 8.0,
            Self::Q4K => 144.0 / 256.0,
        }
    }

    /// Bytes that a step reads per weight of the output layer, which W4A16 checkpoints leave in bf16.
    pub fn head_bytes(self) -> f64 {
        match self {
            Self::W4a16 => 2.0,
            other => other.layer_bytes(),
        }
    }

    /// Bytes that the weights of a model of these sizes occupy.
    pub fn resident_bytes(self, sizes: &Sizes) -> u64 {
        let (layers, tables) = match self {
            Self::Bf16 | Self::Q8_0 => (self.layer_bytes(), self.layer_bytes()),
            Self::Fp8 | Self::Int8 | Self::W4a16 => (self.layer_bytes(), 2.0),
            // The file called Q4_K_M, which keeps some matrices at more bits: 28.3 GB for 46.7 B weights.
            Self::Q4K => (Q4_K_M, Q4_K_M),
        };
        let bytes =
            sizes.layer_weights() as f64 * layers + 2.0 * sizes.table_weights() as f64 * tables;
        bytes as u64
    }

    /// Whether products run in fp8 rather than bf16.
    pub fn is_fp8_product(self) -> bool {
        self == Self::Fp8
    }
}

/// Decimal, as memory is sold.
const GB: u64 = 1_000_000_000;
/// Bytes of a bf16 number.
const BF16: u64 = 2;
/// Bytes per weight.
const Q4_K_M: f64 = 28.3 / 46.7;
