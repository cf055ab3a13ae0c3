//! What the ops' tests share.

use candle_core::{DType, Device, Tensor};

/// The project's folder: where cargo says, so that a test binary can be carried to another machine.
pub fn root() -> std::path::PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), Into::into)
}

/// Numbers in −1..1, always the same for a seed (splitmix64).
pub fn floats(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..count)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// An f32 tensor of these values.
pub fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

/// A u32 tensor of these values.
pub fn indices(values: &[u32]) -> Tensor {
    Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap()
}

/// An output full of NaN: whatever an op does not write, or reads before writing, shows.
pub fn poisoned(shape: &[usize]) -> Tensor {
    Tensor::full(f32::NAN, shape, &Device::Cpu)
        .unwrap()
        .contiguous()
        .unwrap()
}

/// A u32 output full of the largest value.
pub fn poisoned_indices(count: usize) -> Tensor {
    indices(&vec![u32::MAX; count])
}

/// The tensor's elements.
pub fn values(tensor: &Tensor) -> Vec<f32> {
    assert_eq!(tensor.dtype(), DType::F32);
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}
