//! What the model's tests share: sequences over a cache, and small random checkpoints.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::{KvCache, LoadOptions, Mixtral, ModelSource, StepBatch};

/// A sequence and the blocks it owns.
pub struct Sequence {
    pub ids: Vec<u32>,
    pub blocks: Vec<u32>,
}

/// Part of a sequence that a step computes: its index and its positions.
pub type Part = (usize, Range<usize>);

pub fn load(folder: &Path, tokens: usize) -> Mixtral {
    let options = LoadOptions {
        max_num_batched_tokens: tokens,
        max_logit_rows: tokens,
    };
    Mixtral::load(&ModelSource::Folder(folder.into()), options).unwrap()
}

/// A step that computes these parts and wants the logits of every token.
pub fn batch(sequences: &[Sequence], parts: &[Part], block_size: usize) -> StepBatch {
    let max_blocks = sequences
        .iter()
        .map(|sequence| sequence.blocks.len())
        .max()
        .unwrap();
    let mut batch = StepBatch {
        max_blocks,
        cu_seqlens_q: vec![0],
        ..StepBatch::default()
    };
    for (index, range) in parts {
        let Sequence { ids, blocks } = &sequences[*index];
        for position in range.clone() {
            batch.input_ids.push(ids[position]);
            batch.positions.push(position as u32);
            let slot = blocks[position / block_size] as usize * block_size + position % block_size;
            batch.slot_mapping.push(slot as u32);
        }
        batch.cu_seqlens_q.push(batch.input_ids.len() as u32);
        batch.context_lens.push(range.end as u32);
        let mut row = blocks.clone();
        row.resize(max_blocks, u32::MAX);
        batch.block_tables.extend(row);
    }
    batch.logit_rows = (0..batch.input_ids.len() as u32).collect();
    batch
}

/// Runs the steps one after another; the logits of each sequence's tokens, in order.
pub fn run(
    model: &mut Mixtral,
    cache: &mut KvCache,
    sequences: &[Sequence],
    steps: &[Vec<Part>],
) -> Vec<Vec<Vec<f32>>> {
    let mut logits = vec![Vec::new(); sequences.len()];
    for parts in steps {
        run_after_copies(model, cache, sequences, parts, &[], &mut logits);
    }
    logits
}

/// Runs one step that begins with copies of blocks (source, destination), and appends to each sequence's logits.
pub fn run_after_copies(
    model: &mut Mixtral,
    cache: &mut KvCache,
    sequences: &[Sequence],
    parts: &[Part],
    copies: &[u32],
    logits: &mut [Vec<Vec<f32>>],
) {
    let mut batch = batch(sequences, parts, cache.block_size());
    batch.block_copies = copies.to_vec();
    let step = model.forward(&batch, cache).unwrap();
    let mut row = 0;
    for (index, range) in parts {
        for _ in range.clone() {
            logits[*index].push(step.row(row).to_vec());
            row += 1;
        }
    }
}

/// Writes a small random checkpoint; `edit` may spoil its tensors.
pub fn write_checkpoint(
    folder: &Path,
    config: &str,
    edit: impl FnOnce(&mut HashMap<String, Tensor>),
) {
    let raw: serde_json::Value = serde_json::from_str(config).unwrap();
    let size = |name: &str| raw[name].as_u64().unwrap() as usize;
    let (vocab, hidden, width) = (
        size("vocab_size"),
        size("hidden_size"),
        size("intermediate_size"),
    );
    let (heads, kv_heads) = (size("num_attention_heads"), size("num_key_value_heads"));
    let dim = hidden / heads;
    let mut tensors = HashMap::new();
    let mut add = |name: String, shape: &[usize], scale: f32| {
        let seed = tensors.len() as u64 + 1;
        let values: Vec<f32> = crate::ops::testing::floats(seed, shape.iter().product())
            .iter()
            .map(|x| x * scale)
            .collect();
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
    };
    add("model.embed_tokens.weight".into(), &[vocab, hidden], 1.0);
    add("lm_head.weight".into(), &[vocab, hidden], 1.0);
    add("model.norm.weight".into(), &[hidden], 1.0);
    for layer in 0..size("num_hidden_layers") {
        let at = |name: &str| format!("model.layers.{layer}.{name}.weight");
        add(at("input_layernorm"), &[hidden], 1.0);
        add(at("post_attention_layernorm"), &[hidden], 1.0);
        add(at("self_attn.q_proj"), &[heads * dim, hidden], 0.5);
        add(at("self_attn.k_proj"), &[kv_heads * dim, hidden], 0.5);
        add(at("self_attn.v_proj"), &[kv_heads * dim, hidden], 0.5);
        add(at("self_attn.o_proj"), &[hidden, heads * dim], 0.5);
        add(
            at("block_sparse_moe.gate"),
            &[size("num_local_experts"), hidden],
            1.0,
        );
        for expert in 0..size("num_local_experts") {
            let at = |name: &str| at(&format!("block_sparse_moe.experts.{expert}.{name}"));
            add(at("w1"), &[width, hidden], 0.5);
            add(at("w2"), &[hidden, width], 0.5);
            add(at("w3"), &[width, hidden], 0.5);
        }
    }
    edit(&mut tensors);
    std::fs::write(folder.join("config.json"), config).unwrap();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
}

/// All of a checkpoint's tensors in bf16.
pub fn to_bf16(tensors: &mut HashMap<String, Tensor>) {
    for tensor in tensors.values_mut() {
        *tensor = tensor.to_dtype(DType::BF16).unwrap();
    }
}

/// A Mixtral so small that a whole checkpoint takes 10 kB.
pub const TINY: &str = r#"{
    "architectures": ["MixtralForCausalLM"], "hidden_act": "silu", "vocab_size": 24, "hidden_size": 16,
    "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_local_experts": 3, "num_experts_per_tok": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "sliding_window": null,
    "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2
}"#;
