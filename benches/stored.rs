//! One linear layer of Mixtral 8x7B (an expert's w1) in each storage, at several numbers of rows; and how long storing
//! its weights takes.
//!
//! `cargo bench --bench stored`. The weights are far larger than a cache, as a model's are. Rows per second are in the
//! `thrpt` lines.

use std::hint::black_box;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mixgate::ops::{Blocks, Matrix, Storage, linear};

const HIDDEN: usize = 4096;
const INTERMEDIATE: usize = 14336;

/// Numbers in -1..1, the same each time.
fn number(at: usize) -> f32 {
    let mixed = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f32 / (1 << 23) as f32
        - 1.0
}

fn fill(row: usize, weights: &mut [f32]) {
    for (column, weight) in weights.iter_mut().enumerate() {
        *weight = number(row * HIDDEN + column);
    }
}

fn matrix(storage: Storage) -> Matrix {
    let dtype = match storage {
        Storage::F32 => DType::F32,
        Storage::Bf16 => DType::BF16,
        storage => {
            let blocks = Blocks::quantise(storage, [1, INTERMEDIATE, HIDDEN], fill);
            return blocks.expect("the weights are small").into();
        }
    };
    let mut weights = vec![0.0; INTERMEDIATE * HIDDEN];
    for (row, weights) in weights.chunks_exact_mut(HIDDEN).enumerate() {
        fill(row, weights);
    }
    let tensor = Tensor::from_vec(weights, (INTERMEDIATE, HIDDEN), &Device::Cpu);
    let tensor = tensor.and_then(|tensor| tensor.to_dtype(dtype));
    tensor.expect("there is room").into()
}

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear");
    group
        .measurement_time(Duration::from_secs(3))
        .sample_size(10);
    for storage in Storage::ALL {
        let weights = matrix(storage);
        for rows in [1, 4, 16, 64] {
            let x: Vec<f32> = (0..rows * HIDDEN).map(number).collect();
            let x = Tensor::from_vec(x, (rows, HIDDEN), &Device::Cpu).expect("there is room");
            let y = Tensor::zeros((rows, INTERMEDIATE), DType::F32, &Device::Cpu);
            let y = y.expect("there is room");
            group.throughput(Throughput::Elements(rows as u64));
            group.bench_function(BenchmarkId::new(storage.name(), rows), |bencher| {
                bencher.iter(|| linear(&x, black_box(&weights), &y).expect("the shapes fit"));
            });
        }
    }
    group.finish();
}

fn storing(criterion: &mut Criterion) {
    const ROWS: usize = 256;
    let mut weights = vec![0.0; ROWS * HIDDEN];
    for (row, weights) in weights.chunks_exact_mut(HIDDEN).enumerate() {
        fill(row, weights);
    }
    let read = |row: usize, to: &mut [f32]| to.copy_from_slice(&weights[row * HIDDEN..][..HIDDEN]);
    let mut group = criterion.benchmark_group("quantise");
    group
        .measurement_time(Duration::from_secs(2))
        .sample_size(10)
        .throughput(Throughput::Elements((ROWS * HIDDEN) as u64));
    for storage in [Storage::W4a16, Storage::Q8_0, Storage::Q4K, Storage::Fp8] {
        group.bench_function(storage.name(), |bencher| {
            bencher.iter(|| Blocks::quantise(storage, [1, ROWS, HIDDEN], read));
        });
    }
    group.finish();
}

criterion_group!(benches, products, storing);
criterion_main!(benches);
