//! The seedling with its weights stored in fewer bits: how far its logits move, and that nothing else changes.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::testing::{Part, Sequence, TINY, run, write_checkpoint};
use super::{Cpu, LoadOptions, Mixtral, ModelError, ModelSource};
use crate::ops::Storage;

fn load_as(source: &ModelSource, storage: Option<Storage>) -> Result<Mixtral, ModelError> {
    let options = LoadOptions {
        max_num_batched_tokens: 128,
        max_logit_rows: 128,
    };
    Mixtral::load_on(source, options, |config, limits| {
        Ok(Cpu::new(config, limits)?.storing(storage))
    })
}

fn seedling(storage: Option<Storage>) -> Mixtral {
    load_as(&ModelSource::Seedling, storage).unwrap()
}

/// A question and what the seedling answers in bf16, by transformers.
struct Talk {
    prompt: Vec<u32>,
    answer: Vec<u32>,
}

impl Talk {
    /// Prompt and answer as one sequence.
    fn sequence(&self, first_block: u32) -> Sequence {
        let ids: Vec<u32> = self.prompt.iter().chain(&self.answer).copied().collect();
        let blocks = first_block..first_block + ids.len().div_ceil(16) as u32;
        Sequence {
            ids,
            blocks: blocks.rev().collect(),
        }
    }
}

fn talks() -> Vec<Talk> {
    let talks: Vec<Value> =
        serde_json::from_slice(include_bytes!("../../models/goldens/seedling/greedy.json"))
            .unwrap();
    let ids = |ids: &Value| serde_json::from_value::<Vec<u32>>(ids.clone()).unwrap();
    talks
        .iter()
        .map(|talk| Talk {
            prompt: ids(&talk["prompt_ids"]),
            answer: ids(&talk["greedy_ids"]),
        })
        .collect()
}

/// Logits of a sequence, computed in these steps.
fn logits(model: &mut Mixtral, sequence: Sequence, steps: &[Vec<Part>]) -> Vec<Vec<f32>> {
    let mut cache = model.new_cache(20, 16).unwrap();
    run(model, &mut cache, &[sequence], steps).remove(0)
}

fn argmax(row: &[f32]) -> u32 {
    let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    best.unwrap() as u32
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let most = row
        .iter()
        .fold(f64::NEG_INFINITY, |most, x| most.max(f64::from(*x)));
    let sum: f64 = row.iter().map(|x| (f64::from(*x) - most).exp()).sum();
    row.iter()
        .map(|x| f64::from(*x) - most - sum.ln())
        .collect()
}

/// Kullback-Leibler divergence of `q` from `p`, in nats.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p, q) = (log_softmax(p), log_softmax(q));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

/// The bounds are three times what was measured when they were written down; all seven answers were the same then.
#[test]
fn answers_of_the_seedling_survive_each_storage() {
    let talks = talks();
    let whole = |talk: &Talk| vec![vec![(0, 0..talk.prompt.len() + talk.answer.len())]];
    let mut original = seedling(None);
    let expected: Vec<_> = talks
        .iter()
        .map(|talk| logits(&mut original, talk.sequence(0), &whole(talk)))
        .collect();
    for (storage, mean_bound, largest_bound, least_equal) in [
        (Storage::Q8_0, 3.3e-7, 2.2e-5, 7),
        (Storage::Fp8, 1.1e-5, 6.7e-4, 7),
        (Storage::Q4K, 8.3e-5, 3.6e-3, 6),
        (Storage::W4a16, 2.2e-4, 3.2e-2, 6),
    ] {
        let mut stored = seedling(Some(storage));
        let (mut sum, mut largest, mut count, mut equal) = (0.0, 0.0f64, 0, 0);
        for (talk, expected) in talks.iter().zip(&expected) {
            let rows = logits(&mut stored, talk.sequence(0), &whole(talk));
            // These predict the answer's tokens. If all are predicted, it is the greedy answer here too.
            let answer = talk.prompt.len() - 1..expected.len() - 1;
            equal += usize::from(
                rows[answer.clone()]
                    .iter()
                    .map(|row| argmax(row))
                    .eq(talk.answer.iter().copied()),
            );
            for at in answer {
                let divergence = divergence(&expected[at], &rows[at]);
                (sum, largest, count) = (sum + divergence, largest.max(divergence), count + 1);
            }
        }
        let mean = sum / f64::from(count);
        assert!(mean > 0.0, "{storage} changed nothing");
        assert!(mean <= mean_bound, "{storage}: {mean:e} on average");
        assert!(largest <= largest_bound, "{storage}: {largest:e} at worst");
        assert!(
            equal >= least_equal,
            "{storage}: {equal} of {}",
            talks.len()
        );
    }
}

#[test]
fn logits_do_not_depend_on_chunks_nor_on_what_shares_the_step() {
    let talks = talks();
    let (one, other) = (&talks[0], &talks[1]);
    let [len, other_len] = [one, other].map(|talk| talk.prompt.len() + talk.answer.len());
    for storage in [Storage::W4a16, Storage::Q8_0, Storage::Q4K, Storage::Fp8] {
        let mut model = seedling(Some(storage));
        let whole = logits(&mut model, one.sequence(0), &[vec![(0, 0..len)]]);
        let single: Vec<Vec<Part>> = (0..len).map(|at| vec![(0, at..at + 1)]).collect();
        assert_eq!(
            logits(&mut model, one.sequence(0), &single),
            whole,
            "{storage} singly"
        );
        // Three rows at a time are multiplied in registers, with another's six through a panel.
        let shared: Vec<Vec<Part>> = (0..len)
            .step_by(3)
            .map(|at| {
                let others = other_len.min(2 * at)..other_len.min(2 * at + 6);
                vec![(0, at..len.min(at + 3)), (1, others)]
            })
            .map(|parts| {
                parts
                    .into_iter()
                    .filter(|(_, range)| !range.is_empty())
                    .collect()
            })
            .collect();
        let mut cache = model.new_cache(20, 16).unwrap();
        let sequences = [one.sequence(10), other.sequence(0)];
        let both = run(&mut model, &mut cache, &sequences, &shared);
        assert_eq!(both[0], whole, "{storage} shared");
    }
}

#[test]
fn wider_weights_than_the_checkpoint_has_give_its_bits() {
    let talk = &talks()[0];
    let whole = vec![vec![(0, 0..talk.prompt.len())]];
    let [stored, f32, bf16] = [None, Some(Storage::F32), Some(Storage::Bf16)].map(|storage| {
        let mut model = seedling(storage);
        assert_eq!(model.dtype(), storage.map_or("bf16", Storage::name));
        logits(&mut model, talk.sequence(0), &whole)
    });
    assert!(stored == f32 && stored == bf16);
}

/// A checkpoint whose rows are whole blocks of every format.
fn checkpoint(tied: bool, edit: impl FnOnce(&mut HashMap<String, Tensor>)) -> tempfile::TempDir {
    let mut config: Value = serde_json::from_str(TINY).unwrap();
    config["hidden_size"] = 256.into();
    config["intermediate_size"] = 256.into();
    config["tie_word_embeddings"] = tied.into();
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path(), &config.to_string(), edit);
    folder
}

fn four_tokens() -> Sequence {
    Sequence {
        ids: vec![1, 5, 9, 23],
        blocks: vec![0],
    }
}

fn refusal(folder: &tempfile::TempDir, storage: Storage) -> String {
    let source = ModelSource::Folder(folder.path().into());
    load_as(&source, Some(storage)).unwrap_err().to_string()
}

#[test]
fn a_spoilt_weight_is_refused_with_its_tensor_and_place() {
    const W3: &str = "model.layers.1.block_sparse_moe.experts.2.w3.weight";
    let folder = checkpoint(false, |tensors| {
        let mut values = vec![0.5f32; 256 * 256];
        values[77 * 256 + 200] = f32::NAN;
        let spoilt = Tensor::from_vec(values, (256, 256), &Device::Cpu).unwrap();
        tensors.insert(W3.to_owned(), spoilt);
    });
    for storage in [Storage::W4a16, Storage::Q8_0, Storage::Q4K, Storage::Fp8] {
        assert_eq!(
            refusal(&folder, storage),
            format!(
                "model.safetensors: tensor `{W3}` holds NaN in row 77, column 200: {storage} stores finite weights only"
            )
        );
    }
}

#[test]
fn rows_that_are_no_whole_blocks_are_refused_with_their_tensor() {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path(), TINY, |_| {});
    assert_eq!(
        refusal(&folder, Storage::Q8_0),
        "model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight` has rows of 16 weights, q8_0 stores them in \
         blocks of 32"
    );
}

#[test]
fn tied_embeddings_are_stored_like_an_output_layer_of_the_same_numbers() {
    let [tied, apart] = [true, false].map(|tied| {
        checkpoint(tied, |tensors| {
            let table = tensors["model.embed_tokens.weight"].clone();
            tensors.insert("lm_head.weight".to_owned(), table);
        })
    });
    for storage in Storage::ALL {
        let [tied, apart] = [&tied, &apart].map(|folder| {
            let source = ModelSource::Folder(folder.path().into());
            let mut model = load_as(&source, Some(storage)).unwrap();
            assert_eq!(model.dtype(), storage.name());
            logits(&mut model, four_tokens(), &[vec![(0, 0..4)]])
        });
        assert!(tied == apart, "{storage}");
    }
}

#[test]
fn f16_and_f32_checkpoints_are_stored_like_the_same_numbers_in_bf16() {
    let narrow = |tensors: &mut HashMap<String, Tensor>, dtype| {
        for tensor in tensors.values_mut() {
            // Numbers that both types have: eight bits of a fraction.
            let coarse = ((&*tensor * 128.0).unwrap().round().unwrap() / 128.0).unwrap();
            *tensor = coarse.to_dtype(dtype).unwrap();
        }
    };
    for storage in [Storage::Bf16, Storage::W4a16, Storage::Q8_0] {
        let rows = [DType::BF16, DType::F16, DType::F32].map(|dtype| {
            let folder = checkpoint(false, |tensors| narrow(tensors, dtype));
            let source = ModelSource::Folder(folder.path().into());
            let mut model = load_as(&source, Some(storage)).unwrap();
            logits(&mut model, four_tokens(), &[vec![(0, 0..4)]])
        });
        assert!(rows[0] == rows[1] && rows[0] == rows[2], "{storage}");
    }
}
