//! The model on the emulated device: every kernel of a step, in order, on real weights, beside the same model on the CPU.

use std::path::Path;

use super::*;
use crate::model::testing::{Part, Sequence, TINY, batch, load, to_bf16, write_checkpoint};
use crate::model::{KvCache, LoadOptions, Mixtral, ModelSource};
use crate::ops::emulated::Emulated;
use crate::ops::testing::floats;

type OnEmulated = OnDevice<Emulated>;

fn on_device(folder: &Path, tokens: usize, graphs: bool) -> Mixtral<OnEmulated> {
    let source = ModelSource::Folder(folder.into());
    let options = LoadOptions {
        max_num_batched_tokens: tokens,
        max_logit_rows: tokens,
    };
    let backend = |config: &_, limits| OnDevice::new(Emulated::default(), config, limits, graphs);
    Mixtral::load_on(&source, options, backend).unwrap()
}

/// A small Mixtral of a shape that the kernels have. Every token goes to every expert: where two of random experts are
/// equally good, a rounding would choose, and the logits be of another model.
fn small() -> tempfile::TempDir {
    let mut config: serde_json::Value = serde_json::from_str(TINY).unwrap();
    for (field, value) in [
        ("hidden_size", 128),
        ("intermediate_size", 72),
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

#[test]
fn the_seedling_says_on_the_device_what_it_says_on_the_cpu() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/seedling");
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("models/goldens/seedling/golden.safetensors");
    let golden = candle_core::safetensors::load(golden, &candle_core::Device::Cpu).unwrap();
    let ids: Vec<u32> = golden["prompt_0.input_ids"]
        .to_vec1::<i64>()
        .unwrap()
        .iter()
        .map(|&id| id as u32)
        .collect();
    let mut cpu = load(&folder, 64);
    let mut device = on_device(&folder, 64, true);
    let (mut on_cpu, mut on_gpu) = (
        cpu.new_cache(4, 32).unwrap(),
        device.new_cache(4, 32).unwrap(),
    );
    let given = greedy(&mut device, &mut on_gpu, &ids, 12);
    let exact = greedy(&mut cpu, &mut on_cpu, &ids, 12);
    assert_eq!(given, exact);
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
