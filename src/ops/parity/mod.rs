//! Every kernel of `kernels/` beside its twin on the CPU, without a GPU: the emulation runs it and judges each access.
//!
//! Inputs are random, sizes odd, outputs poisoned. What the kernel rounds to bf16 is compared with a sum in f64 of the
//! same bf16 inputs: half a unit in the last of bf16's 8 digits, and what the order of an f32 sum may cost.

mod activation;
mod attention;
mod buffer;
mod experts;
mod quantised;
mod route;
mod rows;
mod sample;
mod small;
mod synthetic;
mod tiles;
mod truncation;

use half::bf16;
use mixgate_emulate::Architecture;

use self::buffer::Buffer;
use super::test_device::TestDevice;
use super::{Address, Device, Launch, OpError};
use crate::ops::testing::floats;

/// Runs a launch to its end.
fn run(launch: Launch) {
    tried(&launch).unwrap_or_else(|error| panic!("{error}"));
}

/// The same, where tensor cores add as this architecture's do.
fn run_as(launch: &Launch, architecture: Architecture) {
    let device = TestDevice::adding_as(architecture);
    device
        .launch(launch)
        .unwrap_or_else(|error| panic!("{error}"));
}

fn tried(launch: &Launch) -> Result<(), OpError> {
    TestDevice::default().launch(launch)
}

/// Where a buffer lies.
fn at<T: bytemuck::Pod>(buffer: &Buffer<T>) -> Address {
    buffer.address()
}

/// Random numbers in −1..1 that bf16 holds exactly.
fn narrow_floats(seed: u64, count: usize) -> Vec<f32> {
    let narrow = |x: f32| bf16::from_f32(x).to_f32();
    floats(seed, count).into_iter().map(narrow).collect()
}

/// On the device as bf16.
fn narrowed(values: &[f32]) -> Buffer<u16> {
    Buffer::new(&bits(values))
}

fn bits(values: &[f32]) -> Vec<u16> {
    values
        .iter()
        .map(|&x| bf16::from_f32(x).to_bits())
        .collect()
}

fn widened(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|&x| bf16::from_bits(x).to_f32()).collect()
}

/// A sum in f64: what it is, and the sum of its terms' sizes.
type Exact = (f64, f64);

fn exact_sum(terms: impl Iterator<Item = f64>) -> Exact {
    terms.fold((0.0, 0.0), |(sum, size), term| {
        (sum + term, size + term.abs())
    })
}

/// What `silu(gate) · up` is, and by how much a kernel may miss it that sums `k` terms in f32 in some order, rounds gate and up
/// to bf16, and then the result.
fn activated((gate, gate_size): Exact, (up, up_size): Exact, k: usize) -> (f64, f64) {
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let summed = f64::from(f32::EPSILON) * (k as f64).sqrt();
    let (gate_off, up_off) = (
        gate.abs() / 256.0 + summed * gate_size,
        up.abs() / 256.0 + summed * up_size,
    );
    // The slope of silu is below 1.1 everywhere.
    let exact = silu(gate) * up;
    let off = 1.1 * gate_off * (up.abs() + up_off) + silu(gate).abs() * up_off;
    // The fast exponential, a quotient, a product; then one rounding to bf16.
    let computed = 16.0 * f64::from(f32::EPSILON) * exact.abs();
    (exact, off + computed + (exact.abs() + off) / 256.0)
}

/// Compares bf16 with f64: half a unit in the last of bf16's 8 digits (at most 2⁻⁸ of the value), and `sums` roundings of f32.
fn assert_rounded(given: &[f32], exact: &[f64], sums: usize) {
    assert_eq!(given.len(), exact.len());
    let tolerance = 2f64.powi(-8) + sums as f64 * f32::EPSILON as f64;
    for (at, (&given, &exact)) in given.iter().zip(exact).enumerate() {
        let error = (given as f64 - exact).abs();
        assert!(
            error <= tolerance * exact.abs() + 1e-30,
            "element {at}: {given}, not {exact}"
        );
    }
}
