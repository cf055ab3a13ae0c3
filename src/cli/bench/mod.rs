//! `mixgate bench …`: one file per thing that can be measured.

mod engine;
mod kernels;
mod results;
mod serve;
mod targets;
mod typed;

use std::io::Write;

use super::Failure;
use crate::config::Args;

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(super) enum BenchCommand {
    /// Measure a server over HTTP: latency, throughput, goodput
    #[command(long_about = typed::ABOUT, after_long_help = typed::EXAMPLES)]
    Serve(Box<typed::Typed>),
    /// Measure the engine without HTTP, over batch sizes
    #[command(after_long_help = engine::EXAMPLES)]
    Engine(engine::BenchEngine),
    /// Measure each kernel on a GPU against what the GPU does at best
    #[command(after_long_help = kernels::EXAMPLES)]
    Kernels(kernels::BenchKernels),
    /// Hold what scripts/gpu-check/run has measured against what was aimed at
    Targets(targets::BenchTargets),
}

/// Runs `mixgate bench …`.
pub(super) fn run(command: &BenchCommand, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        BenchCommand::Serve(typed) => serve::run(typed, args, out),
        BenchCommand::Engine(typed) => engine::run(typed, args, out),
        BenchCommand::Kernels(typed) => kernels::run(typed, out),
        BenchCommand::Targets(typed) => targets::run(typed, out),
    }
}
