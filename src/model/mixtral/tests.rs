use crate::model::testing::{Part, Sequence, TINY, load, run, to_bf16, write_checkpoint};
use crate::ops;
use crate::ops::testing::{floats, indices, tensor};

/// Large enough that a prompt is worth sharing between threads.
fn medium() -> tempfile::TempDir {
    let mut config: serde_json::Value = serde_json::from_str(TINY).unwrap();
    for (field, value) in [
        ("hidden_size", 128),
        ("intermediate_size", 160),
        ("vocab_size", 700),
        ("num_local_experts", 4),
        ("max_position_embeddings", 512),
        ("sliding_window", 150),
    ] {
        config[field] = value.into();
    }
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path(), &config.to_string(), to_bf16);
    folder
}

fn sequence(seed: u64, len: usize, blocks: std::ops::Range<u32>) -> Sequence {
    let ids = floats(seed, len)
        .into_iter()
        .map(|x| ((x + 1.0) * 349.0) as u32)
        .collect();
    Sequence {
        ids,
        blocks: blocks.rev().collect(),
    }
}

#[test]
fn a_long_prompt_on_all_threads_gives_the_bits_of_chunks_and_single_tokens() {
    let folder = medium();
    let mut model = load(folder.path(), 600);
    let mut cache = model.new_cache(80, 16).unwrap();
    let sequences = [sequence(1, 300, 0..19), sequence(2, 260, 20..37)];
    let whole: Vec<Part> = vec![(0, 0..300), (1, 0..260)];
    assert!(model.backend.is_shared(560) && !model.backend.is_shared(2));
    let together = run(&mut model, &mut cache, &sequences, &[whole]);
    // Prompts in chunks of 37, their last tokens one by one.
    let mut steps: Vec<Vec<Part>> = (0..250)
        .step_by(37)
        .map(|at| vec![(0, at..250.min(at + 37))])
        .collect();
    steps.extend(
        (0..250)
            .step_by(37)
            .map(|at| vec![(1, at..250.min(at + 37))]),
    );
    steps.extend((250..260).map(|at| vec![(0, at..at + 1), (1, at..at + 1)]));
    steps.extend((260..300).map(|at| vec![(0, at..at + 1)]));
    let apart = run(&mut model, &mut cache, &sequences, &steps);
    for (index, (together, apart)) in together.iter().zip(&apart).enumerate() {
        for (position, (a, b)) in together.iter().zip(apart).enumerate() {
            assert!(a.iter().all(|x| x.is_finite()));
            assert_eq!(a, b, "sequence {index}, position {position}");
        }
    }
}

#[test]
fn a_number_that_is_not_one_stays_in_its_own_sequence() {
    let folder = medium();
    let mut model = load(folder.path(), 64);
    let sequences = [sequence(3, 20, 0..2), sequence(4, 20, 2..4)];
    let mut cache = model.new_cache(4, 16).unwrap();
    let clean = run(
        &mut model,
        &mut cache,
        &sequences,
        &[vec![(0, 0..20), (1, 0..20)]],
    );
    let mut cache = model.new_cache(4, 16).unwrap();
    // The first sequence's cached keys are spoiled; the second shares the step and not a bit of it.
    run(
        &mut model,
        &mut cache,
        &sequences,
        &[vec![(0, 0..10), (1, 0..10)]],
    );
    let spoiled = vec![f32::NAN; 10 * 2 * 32];
    let slots: Vec<u32> = (0..10).map(|at| sequences[0].blocks[0] * 16 + at).collect();
    let rows = tensor(&spoiled, &[10, 2, 32]);
    let slots = indices(&slots);
    let layer = &cache.layers()[0];
    ops::store_kv(&rows, &rows, &slots, &layer.k, &layer.v).unwrap();
    let after = run(
        &mut model,
        &mut cache,
        &sequences,
        &[vec![(0, 10..20), (1, 10..20)]],
    );
    assert!(after[0].iter().flatten().all(|x| x.is_nan()));
    assert_eq!(after[1], clean[1][10..]);
}
