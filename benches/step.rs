//! How long one step of the seedling takes: decoding at several batch sizes, and prefill.
//!
//! `cargo bench --bench step`. Tokens per second are in the `thrpt` lines. Prompts are distinct: equal ones would pick
//! equal experts and flatter a mixture of experts.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mixgate::model::{KvCache, LoadOptions, Mixtral, ModelSource, StepBatch};

/// Tokens per block.
const BLOCK: usize = 16;
/// Tokens of every decoding sequence that are in the cache.
const CONTEXT: usize = 256;
/// The largest step.
const MOST_SEQS: usize = 32;
const MOST_TOKENS: usize = 512;

fn step(criterion: &mut Criterion) {
    let options = LoadOptions {
        max_num_batched_tokens: MOST_TOKENS,
        max_logit_rows: MOST_SEQS,
    };
    let mut model =
        Mixtral::load(&ModelSource::Seedling, options).expect("the seedling is in the binary");
    let blocks = MOST_SEQS * (CONTEXT / BLOCK + 1);
    let mut cache = model.new_cache(blocks, BLOCK).expect("a small cache fits");
    let vocab = model.config().vocab_size;
    for seq in 0..MOST_SEQS {
        run(&mut model, &mut cache, &batch(&[seq], 0, CONTEXT, vocab));
    }

    let mut group = criterion.benchmark_group("step");
    group
        .measurement_time(Duration::from_secs(5))
        .sample_size(30);
    for seqs in [1, 2, 4, 8, 16, 32] {
        let sequences: Vec<usize> = (0..seqs).collect();
        let batch = batch(&sequences, CONTEXT, 1, vocab);
        group.throughput(Throughput::Elements(seqs as u64));
        group.bench_function(BenchmarkId::new("decode", seqs), |bencher| {
            bencher.iter(|| run(&mut model, &mut cache, &batch));
        });
    }
    for tokens in [64, 256] {
        let batch = batch(&[0], 0, tokens, vocab);
        group.throughput(Throughput::Elements(tokens as u64));
        group.bench_function(BenchmarkId::new("prefill", tokens), |bencher| {
            bencher.iter(|| run(&mut model, &mut cache, &batch));
        });
    }
    group.finish();
}

fn run(model: &mut Mixtral, cache: &mut KvCache, batch: &StepBatch) {
    black_box(
        model
            .forward(batch, cache)
            .expect("the batch is well-formed"),
    );
}

/// `tokens` tokens of each sequence from position `start` on; each samples at its last.
fn batch(sequences: &[usize], start: usize, tokens: usize, vocab: usize) -> StepBatch {
    let max_blocks = CONTEXT / BLOCK + 1;
    let mut batch = StepBatch {
        cu_seqlens_q: vec![0],
        max_blocks,
        ..StepBatch::default()
    };
    for &sequence in sequences {
        for position in start..start + tokens {
            // A fixed stream of ids, different for each sequence.
            let id = (sequence * 7919 + position * 104_729 + 17) % vocab;
            batch.input_ids.push(id as u32);
            batch.positions.push(position as u32);
            let block = sequence * max_blocks + position / BLOCK;
            batch
                .slot_mapping
                .push((block * BLOCK + position % BLOCK) as u32);
        }
        batch.cu_seqlens_q.push(batch.input_ids.len() as u32);
        batch.context_lens.push((start + tokens) as u32);
        batch
            .block_tables
            .extend((0..max_blocks).map(|block| (sequence * max_blocks + block) as u32));
        batch.logit_rows.push(batch.input_ids.len() as u32 - 1);
    }
    batch
}

criterion_group!(benches, step);
criterion_main!(benches);
