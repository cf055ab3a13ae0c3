use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;

use super::*;
use crate::model::testing::{Sequence, TINY, load, run, to_bf16, write_checkpoint};
use crate::model::{LoadOptions, Mixtral};

const W1: &str = "model.layers.1.block_sparse_moe.experts.2.w1.weight";

fn folder(edit: impl FnOnce(&mut HashMap<String, Tensor>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path(), TINY, edit);
    folder
}

fn refusal(folder: &Path) -> String {
    let options = LoadOptions {
        max_num_batched_tokens: 8,
        max_logit_rows: 8,
    };
    Mixtral::load(&ModelSource::Folder(folder.into()), options)
        .unwrap_err()
        .to_string()
}

fn logits(folder: &Path) -> Vec<Vec<f32>> {
    let mut model = load(folder, 8);
    let mut cache = model.new_cache(2, 4).unwrap();
    let sequence = Sequence {
        ids: vec![1, 5, 9, 23],
        blocks: vec![1],
    };
    run(&mut model, &mut cache, &[sequence], &[vec![(0, 0..4)]]).remove(0)
}

/// Splits the single file in two and writes an index, edited before it is written.
fn shard(folder: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let tensors = candle_core::safetensors::load(folder.join(SINGLE), &Device::Cpu).unwrap();
    let (first, second): (HashMap<_, _>, HashMap<_, _>) = tensors
        .into_iter()
        .partition(|(name, _)| name.contains("layers.0"));
    let mut index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": {}});
    for (file, tensors) in [("a.safetensors", first), ("b.safetensors", second)] {
        for name in tensors.keys() {
            index["weight_map"][name] = file.into();
        }
        candle_core::safetensors::save(&tensors, folder.join(file)).unwrap();
    }
    edit(&mut index);
    std::fs::write(folder.join(INDEX), index.to_string()).unwrap();
    std::fs::remove_file(folder.join(SINGLE)).unwrap();
}

#[test]
fn shards_give_the_same_logits_as_one_file() {
    let folder = folder(|_| {});
    let single = logits(folder.path());
    shard(folder.path(), |_| {});
    assert_eq!(logits(folder.path()), single);
}

#[test]
fn bf16_weights_give_the_bits_of_the_same_numbers_in_f32() {
    let narrow = folder(to_bf16);
    let wide = folder(|tensors| {
        to_bf16(tensors);
        tensors
            .values_mut()
            .for_each(|tensor| *tensor = tensor.to_dtype(DType::F32).unwrap());
    });
    assert_eq!(logits(narrow.path()), logits(wide.path()));
}

#[test]
fn f16_weights_are_widened() {
    let half = folder(|tensors| {
        tensors
            .values_mut()
            .for_each(|tensor| *tensor = tensor.to_dtype(DType::F16).unwrap());
    });
    assert!(logits(half.path()).iter().flatten().all(|x| x.is_finite()));
}

#[test]
fn tied_embeddings_need_no_lm_head() {
    let folder = folder(|tensors| {
        let embedding = tensors["model.embed_tokens.weight"].clone();
        tensors.insert("lm_head.weight".into(), embedding);
    });
    let untied = logits(folder.path());
    let tied = tempfile::tempdir().unwrap();
    let config = TINY.replace(
        "\"tie_word_embeddings\": false",
        "\"tie_word_embeddings\": true",
    );
    write_checkpoint(tied.path(), &config, |tensors| {
        tensors.remove("lm_head.weight");
    });
    assert_eq!(logits(tied.path()), untied);
}

#[test]
fn a_tensor_that_is_missing_or_misshapen_is_named_with_its_file() {
    let error = refusal(folder(|tensors| drop(tensors.remove(W1))).path());
    assert_eq!(
        error,
        format!("model.safetensors: tensor `{W1}` is missing")
    );
    let reshape = |tensor: &mut Tensor| *tensor = tensor.t().unwrap().contiguous().unwrap();
    let error = refusal(folder(|tensors| tensors.get_mut(W1).map(reshape).unwrap()).path());
    assert_eq!(
        error,
        format!(
            "model.safetensors: tensor `{W1}` is of shape [16, 8]; the configuration says [8, 16]"
        )
    );
}

#[test]
fn a_tensor_of_an_unsupported_or_mixed_type_is_named() {
    let cast = |dtype| move |tensor: &mut Tensor| *tensor = tensor.to_dtype(dtype).unwrap();
    let error =
        refusal(folder(|tensors| tensors.get_mut(W1).map(cast(DType::I64)).unwrap()).path());
    assert!(
        error.contains(W1) && error.contains("stored as I64; supported are f32, bf16 and f16"),
        "{error}"
    );
    let error =
        refusal(folder(|tensors| tensors.get_mut(W1).map(cast(DType::BF16)).unwrap()).path());
    assert!(
        error.contains(W1) && error.contains("is BF16, unlike"),
        "{error}"
    );
}

#[test]
fn a_file_cut_short_anywhere_is_an_error_that_names_it() {
    let folder = folder(|_| {});
    let path = folder.path().join(SINGLE);
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 4, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = refusal(folder.path());
        assert!(
            error.starts_with("model.safetensors: is cut off or no safetensors file"),
            "{length}: {error}"
        );
    }
}

#[test]
fn an_index_that_names_what_is_not_there_is_refused() {
    let missing = folder(|_| {});
    shard(missing.path(), |index| {
        index["weight_map"][W1] = "c.safetensors".into()
    });
    assert!(
        refusal(missing.path())
            .starts_with("model.safetensors.index.json: names c.safetensors, which is not in ")
    );

    let outside = folder(|_| {});
    shard(outside.path(), |index| {
        index["weight_map"][W1] = "../b.safetensors".into()
    });
    assert!(
        refusal(outside.path())
            .contains("names \"../b.safetensors\", which is not a file of the folder itself")
    );

    let wrong = folder(|_| {});
    shard(wrong.path(), |index| {
        index["weight_map"][W1] = "a.safetensors".into()
    });
    assert_eq!(
        refusal(wrong.path()),
        format!("a.safetensors: tensor `{W1}` is missing")
    );

    let absent = folder(|_| {});
    shard(absent.path(), |index| {
        drop(index["weight_map"].as_object_mut().unwrap().remove(W1))
    });
    assert_eq!(
        refusal(absent.path()),
        format!("model.safetensors.index.json: tensor `{W1}` is not in the index")
    );
}

#[test]
fn a_folder_without_weights_says_what_it_should_hold() {
    let folder = folder(|_| {});
    std::fs::remove_file(folder.path().join(SINGLE)).unwrap();
    let error = refusal(folder.path());
    assert!(
        error.starts_with("model.safetensors: neither it nor model.safetensors.index.json is in "),
        "{error}"
    );
}
