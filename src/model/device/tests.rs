//! The model on the emulated device: every kernel of a step, in order, on real weights, beside the same model on the CPU.

use std::path::Path;

use super::*;
use crate::model::Backend;
use crate::model::testing::{Part, Sequence, TINY, batch, load, to_bf16, write_checkpoint};
use crate::model::{Cpu, KvCache, LoadOptions, Mixtral, ModelSource, Synthetic};
use crate::ops::test_device::TestDevice;
use crate::ops::testing::{floats, root};

mod arrays;

type OnTestDevice = OnDevice<TestDevice>;

fn on_device(folder: &Path, tokens: usize, graphs: bool) -> Mixtral<OnTestDevice> {
    stored(
        &ModelSource::Folder(folder.into()),
        tokens,
        graphs,
        Storage::Bf16,
    )
}

fn stored(
    source: &ModelSource,
    tokens: usize,
    graphs: bool,
    storage: Storage,
) -> Mixtral<OnTestDevice> {
    let options = LoadOptions {
        max_num_batched_tokens: tokens,
        max_logit_rows: tokens,
    };
    let backend = |config: &_, limits| {
        OnDevice::new(TestDevice::late(), config, limits, graphs)?.storing(storage)
    };
    Mixtral::load_on(source, options, backend).unwrap()
}

/// A small Mixtral of a shape that the kernels have. Every token goes to every expert: where two of random experts are
/// equally good, a rounding would choose, and the logits be of another model.
fn small() -> tempfile::TempDir {
    small_of(72, 4)
}

/// The same with another width between the experts' products, and so many heads of 128 together.
fn small_of(intermediate: usize, heads: usize) -> tempfile::TempDir {
    let mut config: serde_json::Value = serde_json::from_str(TINY).unwrap();
    for (field, value) in [
        ("hidden_size", 128),
        ("intermediate_size", intermediate),
        ("num_attention_heads", heads),
        ("num_key_value_heads", heads / 2),
        ("vocab_size", 96),
        ("num_local_experts", 3),
        ("num_experts_per_tok", 3),
        ("max_position_embeddings", 512),
    ] {
        config[field] = value.into();
    }
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path(), &config.to_string(), |tensors| {
        // Scores of about one: a softmax of large ones would magnify each rounding.
        for (name, tensor) in tensors.iter_mut() {
            if name.contains("q_proj") || name.contains("k_proj") {
                *tensor = (&*tensor * 0.25).unwrap();
            }
        }
        to_bf16(tensors);
    });
    folder
}

fn sequence(seed: u64, len: usize, vocab: usize, blocks: &[u32]) -> Sequence {
    let ids = floats(seed, len)
        .into_iter()
        .map(|x| ((x + 1.0) / 2.0 * vocab as f32) as u32 % vocab as u32)
        .collect();
    Sequence {
        ids,
        blocks: blocks.to_vec(),
    }
}

/// Logits of each part's tokens, step by step, in the order of the parts.
fn logits<B: Backend>(
    model: &mut Mixtral<B>,
    cache: &mut KvCache<B>,
    sequences: &[Sequence],
    steps: &[Vec<Part>],
) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    for parts in steps {
        let batch = batch(sequences, parts, cache.block_size());
        let step = model.forward(&batch, cache).unwrap();
        all.extend((0..step.rows()).map(|row| step.row(row).to_vec()));
    }
    all
}

/// bf16 keeps 8 digits: a rounding errs by 2⁻⁹ / √3 of a number on average. What a layer writes is rounded some ten times,
/// at random, so that the error of the logits grows as the root of that, relative to their own size. Twice that is
/// allowed, and eight times as much for the worst of some thousand logits, whose rows differ in size.
fn check(given: &[Vec<f32>], exact: &[Vec<f32>], layers: usize) {
    assert_eq!(given.len(), exact.len());
    let squares =
        |values: &mut dyn Iterator<Item = f32>| values.map(|x| x as f64 * x as f64).sum::<f64>();
    let differences = || {
        given
            .iter()
            .flatten()
            .zip(exact.iter().flatten())
            .map(|(a, b)| a - b)
    };
    let size = squares(&mut exact.iter().flatten().copied());
    let count = exact.iter().flatten().count() as f64;
    let expected = 2f64.powi(-9) / 3f64.sqrt() * (10.0 * layers as f64).sqrt();
    let error = (squares(&mut differences()) / size).sqrt();
    let worst = differences().fold(0.0f32, |a, b| a.max(b.abs())) as f64 / (size / count).sqrt();
    assert!(
        error <= 2.0 * expected && worst <= 16.0 * expected,
        "off by {error:.5} of the logits, at worst {worst:.5}; expected {expected:.5}"
    );
}

#[test]
fn a_step_of_everything_gives_the_logits_of_the_cpu() {
    let folder = small();
    let sequences = [
        sequence(1, 30, 96, &[5, 2]),
        sequence(2, 70, 96, &[1, 0, 4, 7, 3]),
    ];
    // A prompt whole, another in chunks; then single tokens beside a chunk, and single tokens alone.
    let steps: Vec<Vec<Part>> = vec![
        vec![(0, 0..25), (1, 0..40)],
        vec![(0, 25..26), (1, 40..67)],
        vec![(0, 26..27), (1, 67..68)],
        vec![(1, 68..69)],
        vec![(0, 27..28), (1, 69..70)],
    ];
    let mut cpu = load(folder.path(), 128);
    let mut cache = cpu.new_cache(8, 16).unwrap();
    let exact = logits(&mut cpu, &mut cache, &sequences, &steps);
    let runs = [false, true].map(|graphs| {
        let mut device = on_device(folder.path(), 128, graphs);
        let mut cache = device.new_cache(8, 16).unwrap();
        logits(&mut device, &mut cache, &sequences, &steps)
    });
    check(&runs[0], &exact, 2);
    assert_eq!(runs[0], runs[1], "recorded steps give the same bits");
}

/// More than 96 rows at once are multiplied by warpgroups, where a GPU has them, fewer by warps; more than 64 attend so.
#[test]
fn a_long_prompt_has_the_same_bits_whole_and_in_chunks() {
    let folder = small_of(128, 2);
    let sequences = [sequence(3, 133, 96, &[5, 2, 0, 1, 7, 3, 4, 6, 8])];
    let whole: Vec<Vec<Part>> = vec![vec![(0, 0..133)]];
    let chunks: Vec<Vec<Part>> = vec![vec![(0, 0..60)], vec![(0, 60..70)], vec![(0, 70..133)]];
    let source = ModelSource::Folder(folder.path().into());
    for storage in [Storage::Bf16, Storage::W4a16, Storage::Q8_0, Storage::Fp8] {
        let said = |steps: &[Vec<Part>]| {
            let mut device = stored(&source, 133, false, storage);
            let mut cache = device.new_cache(9, 16).unwrap();
            logits(&mut device, &mut cache, &sequences, steps)
        };
        assert_eq!(said(&whole), said(&chunks), "{storage}");
    }
}

#[test]
fn the_seedling_says_on_the_device_what_it_says_on_the_cpu_however_it_is_stored() {
    let root = root().join("models");
    let source = ModelSource::Folder(root.join("seedling"));
    let golden = root.join("goldens/seedling/golden.safetensors");
    let golden = candle_core::safetensors::load(golden, &candle_core::Device::Cpu).unwrap();
    let ids: Vec<i64> = golden["prompt_0.input_ids"].to_vec1().unwrap();
    let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
    for (storage, count) in [
        (Storage::Bf16, 8),
        (Storage::W4a16, 3),
        (Storage::Q8_0, 3),
        (Storage::Q4K, 3),
        (Storage::Fp8, 3),
    ] {
        let options = LoadOptions {
            max_num_batched_tokens: 64,
            max_logit_rows: 64,
        };
        let backend = |config: &_, limits| Ok(Cpu::new(config, limits)?.storing(Some(storage)));
        let mut cpu = Mixtral::load_on(&source, options, backend).unwrap();
        let mut device = stored(&source, 64, true, storage);
        assert_eq!(device.dtype(), storage.name());
        let mut on_cpu = cpu.new_cache(4, 32).unwrap();
        let mut on_gpu = device.new_cache(4, 32).unwrap();
        let given = greedy(&mut device, &mut on_gpu, &ids, count);
        let exact = greedy(&mut cpu, &mut on_cpu, &ids, count);
        assert_eq!(given, exact, "{storage}");
    }
}

#[test]
fn tied_embeddings_are_stored_like_an_output_layer_of_the_same_numbers() {
    let mut config: serde_json::Value = serde_json::from_str(TINY).unwrap();
    for (field, value) in [("hidden_size", 256), ("intermediate_size", 256)] {
        config[field] = value.into();
    }
    let [tied, apart] = [true, false].map(|tied| {
        config["tie_word_embeddings"] = tied.into();
        let folder = tempfile::tempdir().unwrap();
        write_checkpoint(folder.path(), &config.to_string(), |tensors| {
            let table = tensors["model.embed_tokens.weight"].clone();
            tensors.insert("lm_head.weight".to_owned(), table);
        });
        folder
    });
    let sequences = [sequence(4, 20, 24, &[1, 0])];
    for storage in [Storage::Bf16, Storage::W4a16, Storage::Q4K] {
        let said = |folder: &tempfile::TempDir| {
            let source = ModelSource::Folder(folder.path().into());
            let mut model = stored(&source, 32, false, storage);
            let mut cache = model.new_cache(2, 16).unwrap();
            logits(&mut model, &mut cache, &sequences, &[vec![(0, 0..20)]])
        };
        assert_eq!(said(&tied), said(&apart), "{storage}");
    }
}

#[test]
fn a_step_that_was_recorded_for_one_cache_is_not_replayed_on_another() {
    let folder = small();
    let decodes = |from: usize| (from..from + 4).map(|at| vec![(0, at..at + 1)]);
    let steps: Vec<Vec<Part>> = [vec![(0, 0..20)]].into_iter().chain(decodes(20)).collect();
    let run = |device: &mut Mixtral<OnTestDevice>, seed| {
        let mut cache = device.new_cache(2, 16).unwrap();
        let sequence = sequence(seed, 30, 96, &[1, 0]);
        (logits(device, &mut cache, &[sequence], &steps), cache)
    };
    let (alone, _) = run(&mut on_device(folder.path(), 32, true), 5);
    let mut device = on_device(folder.path(), 32, true);
    // The first cache is still there: its keys would be found.
    let (_, _kept) = run(&mut device, 4);
    let (after, _) = run(&mut device, 5);
    assert_eq!(after, alone);
}

/// One sequence and two, in turns: each kind of step is noted, recorded and replayed.
#[test]
fn without_room_for_a_recorded_step_kernels_are_launched_one_by_one() {
    let folder = small();
    let sequences = [sequence(4, 30, 96, &[1, 0]), sequence(5, 30, 96, &[2, 3])];
    let mut steps: Vec<Vec<Part>> = vec![vec![(0, 0..20), (1, 0..20)]];
    let mut ends = [20, 20];
    for count in [1, 1, 1, 2, 2, 1, 2] {
        let parts = (0..count).map(|which| (which, ends[which]..ends[which] + 1));
        steps.push(parts.collect());
        ends[..count].iter_mut().for_each(|end| *end += 1);
    }
    let run = |device: TestDevice, graphs| {
        let options = LoadOptions {
            max_num_batched_tokens: 64,
            max_logit_rows: 64,
        };
        let source = ModelSource::Folder(folder.path().into());
        let backend = |config: &_, limits| OnDevice::new(device, config, limits, graphs);
        let mut model = Mixtral::load_on(&source, options, backend).unwrap();
        let mut cache = model.new_cache(4, 16).unwrap();
        logits(&mut model, &mut cache, &sequences, &steps)
    };
    let launched = run(TestDevice::late(), false);
    for room in 0..3 {
        if let Some(device) = TestDevice::with_room_for_graphs(room) {
            assert_eq!(run(device, true), launched, "room for {room}");
        }
    }
}

#[test]
fn both_shapes_that_were_published_have_kernels() {
    for name in ["mixtral-8x7b", "mixtral-8x22b"] {
        let config = Synthetic::parse(name).unwrap().config();
        let config = MixtralConfig::parse(config.as_bytes()).unwrap();
        check_shape(&config).unwrap();
        for format in Storage::ALL.into_iter().filter_map(PackedFormat::of) {
            let multiple = format.columns_multiple();
            for width in [
                config.hidden_size,
                config.q_width(),
                config.intermediate_size,
            ] {
                assert!(width.is_multiple_of(multiple), "{name}: {width}");
            }
        }
    }
}

#[test]
fn a_synthetic_model_is_the_same_on_the_device_as_on_the_cpu_and_follows_from_its_seed() {
    let sequences = [sequence(3, 3, 3072, &[2, 0])];
    let steps = [vec![(0, 0..3)]];
    let source = |name| ModelSource::Synthetic(Synthetic::parse(name).unwrap());
    let on_device = |name, storage| {
        let mut device = stored(&source(name), 8, false, storage);
        let mut cache = device.new_cache(4, 32).unwrap();
        logits(&mut device, &mut cache, &sequences, &steps)
    };
    for storage in Storage::ALL {
        if storage == Storage::F32 {
            continue;
        }
        let one = on_device("seedling,layers=1", storage);
        let options = LoadOptions {
            max_num_batched_tokens: 8,
            max_logit_rows: 8,
        };
        let backend = |config: &_, limits| Ok(Cpu::new(config, limits)?.storing(Some(storage)));
        let mut cpu = Mixtral::load_on(&source("seedling,layers=1"), options, backend).unwrap();
        let mut cache = cpu.new_cache(4, 32).unwrap();
        let exact = logits(&mut cpu, &mut cache, &sequences, &steps);
        check(&one, &exact, 1);
        // The output layer's rows of unit size see a normed row: logits have about unit size, too.
        let row = &one[2];
        let size = (row.iter().map(|x| x * x).sum::<f32>() / row.len() as f32).sqrt();
        assert!((0.5..2.0).contains(&size), "{storage}: {size}");
        if storage == Storage::Bf16 || storage == Storage::W4a16 {
            assert_eq!(one, on_device("seedling,layers=1", storage));
            assert_ne!(one, on_device("seedling,layers=1,seed=1", storage));
        }
    }
}

#[test]
fn what_the_kernels_have_no_storage_for_is_refused() {
    let source = ModelSource::Synthetic(Synthetic::parse("seedling,layers=1").unwrap());
    let options = LoadOptions {
        max_num_batched_tokens: 8,
        max_logit_rows: 8,
    };
    let refused = |source: &ModelSource, storage| {
        let backend = |config: &_, limits| {
            OnDevice::new(TestDevice::late(), config, limits, false)?.storing(storage)
        };
        Mixtral::load_on(source, options, backend)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(&source, Storage::F32),
        "the model has weights in f32; the kernels have bf16, w4a16, q8_0, q4_k and fp8"
    );
    let folder = small();
    assert_eq!(
        refused(&ModelSource::Folder(folder.path().into()), Storage::Q8_0),
        "the model has rows of 72 weights; as q8_0 the kernels have multiples of 128"
    );
}

/// The most likely continuation, token by token.
fn greedy<B: Backend>(
    model: &mut Mixtral<B>,
    cache: &mut KvCache<B>,
    prompt: &[u32],
    count: usize,
) -> Vec<u32> {
    let mut sequence = Sequence {
        ids: prompt.to_vec(),
        blocks: vec![3, 1, 0],
    };
    let mut from = 0;
    for _ in 0..count {
        let part = (0, from..sequence.ids.len());
        from = sequence.ids.len();
        let mut batch = batch(std::slice::from_ref(&sequence), &[part], cache.block_size());
        batch.logit_rows = vec![batch.input_ids.len() as u32 - 1];
        let step = model.forward(&batch, cache).unwrap();
        let row = step.row(0);
        let best = (0..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best });
        sequence.ids.push(best as u32);
    }
    sequence.ids.split_off(prompt.len())
}
