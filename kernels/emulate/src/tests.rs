//! What kernels may do, gives what a GPU would give; what they may not, is named.

mod memory;
mod numbers;
mod order;
mod tensor_cores;
mod traffic;
mod warpgroups;
mod warps;

use super::*;

fn launch(kernel: &str, blocks: u32, threads: u32, arguments: Vec<Argument>) -> Result<(), String> {
    let launch = Launch {
        kernel,
        grid: [blocks, 1, 1],
        block: [threads, 1, 1],
        shared_bytes: 0,
        programmatic: false,
        architecture: Architecture::Hopper,
        arguments,
    };
    launch.run().map_err(|fault| fault.to_string())
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 37 % 101) as f32 - 50.0).collect()
}
