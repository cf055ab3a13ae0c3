//! A step's arrays: into room that is there, no more of them than is needed, and what only fills a batch is nobody's.

use super::*;
use crate::model::{Choice, Recount, SampleRow};

/// Sequences whose block tables grow, more biases than tokens, and tokens that are counted anew, more than fit at once.
#[test]
fn a_step_allocates_nothing() {
    let folder = small();
    let sequences = [
        sequence(1, 60, 96, &[0, 1, 2, 3]),
        sequence(2, 60, 96, &[4, 5, 6, 7]),
        sequence(3, 60, 96, &[8, 9, 10, 11]),
    ];
    let mut device = on_device(folder.path(), 64, true);
    let mut cache = device.new_cache(12, 16).unwrap();
    let mut steps: Vec<Vec<Part>> = vec![vec![(0, 0..15), (1, 0..15), (2, 0..14)]];
    let decode = |at: usize| vec![(0, at..at + 1), (1, at..at + 1), (2, at - 1..at)];
    steps.extend((15..18).map(decode));
    steps.push(vec![(0, 18..31), (1, 18..31), (2, 17..30)]);
    steps.extend((31..35).map(decode));
    let allocated = |device: &mut Mixtral<OnTestDevice>| device.backend().device.allocations();
    let before = allocated(&mut device);
    for parts in &steps {
        let mut batch = batch(&sequences, parts, 16);
        let ends = batch.cu_seqlens_q[1..].iter();
        batch.logit_rows = ends.map(|end| end - 1).collect();
        let biased = SampleRow {
            bias: 0..MOST,
            repetition_penalty: 1.5,
            ..SampleRow::default()
        };
        let row = |table| SampleRow {
            counts: Some(table),
            ..biased.clone()
        };
        let rows = batch.logit_rows.len() as u32;
        batch.choice = Choice {
            rows: (0..rows).map(row).collect(),
            biases: (0..MOST).map(|id| (id % 96, 0.5)).collect(),
            recounts: (0..3).map(|table| recount(table, 400)).collect(),
        };
        let step = device.start(&batch, &mut cache).unwrap();
        device.wait(step).unwrap();
    }
    assert_eq!(allocated(&mut device), before);
}

/// Biases of a row that a request may have.
const MOST: u32 = 1024;

/// So many tokens, of which the first three quarters are the prompt's; which ones depends on the table.
fn recount(table: u32, len: usize) -> Recount {
    Recount {
        table,
        tokens: (0..len as u32).map(|at| at * (table + 1) % 96).collect(),
        prompt_len: len * 3 / 4,
    }
}

#[test]
fn tokens_that_do_not_fit_at_once_are_counted_in_turns() {
    let folder = small();
    let mut device = on_device(folder.path(), 64, false);
    let backend = device.backend();
    // There is room for 512 tokens: five launches, and places on the host come round again.
    let lens = [300, 300, 512, 12, 400, 100, 500];
    let recounts: Vec<Recount> = (0..)
        .zip(lens)
        .map(|(table, len)| recount(table, len))
        .collect();
    backend.recount(&recounts).unwrap();
    let mut counts = vec![0u32; lens.len() * 96];
    let at = backend.workspace.at.counts;
    let bytes = bytemuck::cast_slice_mut(&mut counts);
    backend.device.download(at, bytes).unwrap();
    for (recount, counts) in recounts.iter().zip(counts.chunks(96)) {
        let (prompt, output) = recount.tokens.split_at(recount.prompt_len);
        for (id, &count) in (0..).zip(counts) {
            let times = output.iter().filter(|&&it| it == id).count() as u32;
            let mark = u32::from(prompt.contains(&id)) << 31;
            assert_eq!(count, times | mark, "{id} in table {}", recount.table);
        }
    }
    let refused = backend.recount(&[recount(0, 513)]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "step batch: 513 tokens are to be counted for one sequence; there is room for 512"
    );
}

#[test]
fn room_is_for_the_longest_sequences_in_whatever_blocks_a_cache_has() {
    let folder = small();
    // Eight sequences of 512 tokens each, in blocks of two.
    let (count, longest, block_size) = (8, 512, 2);
    let mut device = on_device(folder.path(), count, true);
    let mut cache = device
        .new_cache(count * longest / block_size, block_size)
        .unwrap();
    let blocks_of_each = longest / block_size;
    let sequences: Vec<Sequence> = (0..count)
        .map(|index| {
            let first = (index * blocks_of_each) as u32;
            let blocks: Vec<u32> = (first..first + blocks_of_each as u32).collect();
            sequence(index as u64, longest, 96, &blocks)
        })
        .collect();
    let last: Vec<Part> = (0..count).map(|it| (it, longest - 1..longest)).collect();
    let mut batch = batch(&sequences, &last, block_size);
    // More than any request may have, so that no room is left by chance.
    batch.choice.rows = vec![SampleRow::default(); count];
    batch.choice.biases = vec![(0, 0.0); count * 2112];
    let refused = device.forward(&batch, &mut cache).err().unwrap();
    assert!(
        refused.to_string().contains("there is room for"),
        "{refused}"
    );
    device.reserve_tables(block_size).unwrap();
    let padding = device.backend().graphs.padding(&batch);
    let OnDevice {
        device: emulated,
        workspace,
        ..
    } = device.backend();
    let its = (block_size, cache.id());
    workspace.step(emulated, &batch, its, padding).unwrap();
    batch.choice.biases.push((0, 0.0));
    let refused = workspace.step(emulated, &batch, its, padding).unwrap_err();
    assert!(refused.to_string().contains("16897 biases"), "{refused}");
}

/// Three sequences are filled up to four, five to eight: every expert has as many pairs as there are sequences, and the
/// logits are those of steps that are not filled up.
#[test]
fn what_fills_a_batch_is_seen_by_no_expert() {
    let folder = small();
    let sequences: Vec<Sequence> = (0..5)
        .map(|index| sequence(index, 30, 96, &[2 * index as u32, 2 * index as u32 + 1]))
        .collect();
    let prompts = (0..5).map(|it| (it, 0..20)).collect();
    let mut steps: Vec<Vec<Part>> = vec![prompts];
    for (at, count) in (20..).zip([5, 3, 3, 5, 3]) {
        let ends = |it: usize| {
            if it < 3 {
                at
            } else {
                at.min(20 + usize::from(at > 20))
            }
        };
        steps.push((0..count).map(|it| (it, ends(it)..ends(it) + 1)).collect());
    }
    let run = |graphs: bool| -> Vec<Vec<f32>> {
        let mut device = on_device(folder.path(), 128, graphs);
        let mut cache = device.new_cache(10, 16).unwrap();
        let mut all = Vec::new();
        for parts in &steps {
            let one = std::slice::from_ref(parts);
            all.extend(logits(&mut device, &mut cache, &sequences, one));
            let tokens: usize = parts.iter().map(|(_, rows)| rows.len()).sum();
            let backend = device.backend();
            let mut offsets = [0u32; 4];
            let bytes = bytemuck::cast_slice_mut(&mut offsets);
            let at = backend.workspace.at.offsets;
            backend.device.download(at, bytes).unwrap();
            assert_eq!(offsets, [0, 1, 2, 3].map(|expert| expert * tokens as u32));
        }
        all
    };
    assert_eq!(run(true), run(false));
}

/// Of 256 sequences, one has 16,384 tokens and the others 1,024 each: 17,344 blocks are sent and not 256 tables as long as the
/// longest one, of 1 MiB.
#[test]
fn only_blocks_that_hold_keys_are_sent() {
    let mut lens = vec![1024; 256];
    lens[7] = 16_384;
    let (mut device, batch) = crowd(&lens);
    let padding = device.graphs.padding(&batch);
    let arrays = &mut device.workspace.arrays;
    arrays.pack(&batch, 16, padding).unwrap();
    let tables = 4 * (255 * 64 + 1024);
    // Six arrays of a word for each sequence, and one of a word more; how tokens are chosen; each begins at 16 bytes.
    let rest = 4 * (256 * (6 + 16 + 1) + 1);
    assert_eq!(arrays.packed_bytes(), tables + rest + 12);
}

/// What packing costs the host; `dev/LOG.md` has a number. Only with optimisation it is one:
/// `cargo test --release --lib packing_takes -- --ignored --nocapture`.
#[test]
#[ignore = "measures time"]
fn packing_takes_less_than_a_millisecond_for_256_sequences_of_16k() {
    let (mut device, batch) = crowd(&[16_384; 256]);
    let padding = device.graphs.padding(&batch);
    let arrays = &mut device.workspace.arrays;
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let start = std::time::Instant::now();
            arrays.pack(&batch, 16, padding).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("{:?} for {} bytes", times[50], arrays.packed_bytes());
    assert!(times[50] < Duration::from_millis(1));
}

/// A step of one token for each of so many sequences of so many tokens, in blocks of 16.
fn crowd(lens: &[u32]) -> (OnTestDevice, StepBatch) {
    let folder = small();
    let config = std::fs::read(folder.path().join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    config["max_position_embeddings"] = 32_768.into();
    let config = MixtralConfig::parse(config.to_string().as_bytes()).unwrap();
    let count = lens.len();
    let limits = Limits {
        tokens: 512,
        logit_rows: count,
    };
    let max_blocks = lens.iter().max().map_or(0, |len| len.div_ceil(16)) as usize;
    let batch = StepBatch {
        input_ids: vec![0; count],
        positions: vec![0; count],
        slot_mapping: vec![0; count],
        cu_seqlens_q: (0..=count as u32).collect(),
        context_lens: lens.to_vec(),
        block_tables: vec![7; count * max_blocks],
        max_blocks,
        logit_rows: (0..count as u32).collect(),
        choice: Choice {
            rows: vec![SampleRow::default(); count],
            ..Choice::default()
        },
        ..StepBatch::default()
    };
    let device = OnDevice::new(TestDevice::late(), &config, limits, true).unwrap();
    (device, batch)
}
