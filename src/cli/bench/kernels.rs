//! `mixgate bench kernels`: each kernel on a GPU against what the GPU does at best; a table, and JSON on request.

use std::path::PathBuf;

use crate::config::DeviceName;

/// What can be typed after `mixgate bench kernels`.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct BenchKernels {
    /// The GPU, such as cuda:0
    #[arg(long, value_name = "DEVICE", default_value = "cuda:0", value_parser = gpu_number)]
    pub device: usize,
    /// Rows of a step, tokens or sequences: one run for each
    #[arg(
        long,
        value_name = "N,N,…",
        value_delimiter = ',',
        default_value = "1,2,4,8,16,32,64,128,256,1024,4096",
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    pub rows: Vec<u32>,
    /// Also write the results to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn gpu_number(text: &str) -> Result<usize, String> {
    match DeviceName::named(text) {
        Some(DeviceName::Cuda(ordinal)) => Ok(ordinal),
        _ => Err("kernels run on a GPU: cuda:0 is the first".to_owned()),
    }
}

#[cfg(not(feature = "cuda"))]
pub(super) fn run(
    typed: &BenchKernels,
    _out: &mut dyn std::io::Write,
) -> Result<(), crate::cli::Failure> {
    Err(crate::cli::gpu::built_for_the_cpu(typed.device))
}

#[cfg(feature = "cuda")]
pub(super) use measuring::run;

// A binary for the CPU has nothing to print, but its tests do.
#[cfg(any(feature = "cuda", test))]
mod measuring {
    use std::fs;
    use std::io::Write;
    use std::time::{SystemTime, UNIX_EPOCH};

    use serde_json::json;

    use super::BenchKernels;
    use crate::bench::kernels::{Bound, Ceilings, Effort, Heard, Row, Shape, measure};
    use crate::bench::machine::Machine;
    use crate::cli::Failure;
    use crate::cli::startup::shell_word;
    use crate::ops::Device;

    /// Measures, row by row.
    #[cfg(feature = "cuda")]
    pub fn run(typed: &BenchKernels, out: &mut dyn Write) -> Result<(), Failure> {
        use crate::model::{MixtralConfig, ModelSource, Synthetic};

        let device = crate::cli::gpu::open(typed.device)?
            .with_warpgroups()
            .map_err(|error| Failure::of(&error))?;
        let (free, _) = device.memory_bytes().map_err(|error| Failure::of(&error))?;
        let source = Synthetic::parse(MODEL).map_err(|error| Failure::of(&error))?;
        let config = MixtralConfig::of(&ModelSource::Synthetic(source))
            .map_err(|error| Failure::of(&error))?;
        measure_on(
            &device,
            typed,
            &Shape::of(&config),
            &Effort::on_gpu(free),
            out,
        )
    }

    /// The same on any device, at any shape.
    pub fn measure_on<D: Device>(
        device: &D,
        typed: &BenchKernels,
        shape: &Shape,
        effort: &Effort,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let rows: Vec<usize> = typed.rows.iter().map(|&rows| rows as usize).collect();
        let gpu = device.describe();
        writeln!(out, "kernels  ·  {gpu}  ·  shapes of {MODEL}")?;
        let mut ceilings = None;
        let (mut measured, mut skipped) = (Vec::new(), Vec::new());
        measure(device, shape, &rows, effort, |heard| {
            match heard {
                Heard::Ceilings(known) => {
                    writeln!(out, "{}{HEADER}", title(known))?;
                    ceilings = Some(known);
                }
                Heard::Row(row) => {
                    writeln!(out, "{}", line(&row))?;
                    measured.push(row);
                }
                Heard::Skipped { name, rows } => {
                    writeln!(out, "  {name:<24}  {rows:5}  does not fit")?;
                    skipped.push(json!({ "name": name, "rows": rows }));
                }
            }
            out.flush()
        })
        .map_err(|error| Failure::of(&error))?;
        let Some(path) = &typed.json else {
            return Ok(());
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let words = std::env::args().skip(1).map(|word| shell_word(&word));
        let command: Vec<String> = std::iter::once("mixgate".to_owned()).chain(words).collect();
        let document = json!({
            "benchmark": "kernels",
            "version": env!("CARGO_PKG_VERSION"),
            "unix_seconds": now.unwrap_or_default().as_secs(),
            "command": command.join(" "),
            "machine": Machine::this(),
            "device": gpu,
            "shape": shape,
            "effort": effort,
            "ceilings": ceilings,
            "rows": measured,
            "skipped": skipped,
        });
        fs::write(path, format!("{document:#}\n")).map_err(|error| {
            Failure::new(format!("cannot write {}", path.display())).caused_by(&error)
        })
    }

    fn title(ceilings: Ceilings) -> String {
        format!(
            "  ceilings  copy {:.0} GB/s (read + written), bf16 product {:.0} TFLOP/s (our own, of square matrices)\n",
            ceilings.copy_gb_per_s, ceilings.bf16_tflop_per_s
        )
    }

    fn line(row: &Row) -> String {
        let bound = match row.bound {
            Bound::Memory => "memory",
            Bound::Compute => "compute",
        };
        format!(
            "  {:<24}  {:5}  {:10.2}  {:10.3}  {:10.3}  {:7.1}  {:7.2}  {:5.1} % {bound}",
            row.name,
            row.rows,
            row.us,
            row.cost.bytes as f64 / 1e6,
            row.cost.flops as f64 / 1e9,
            row.gb_per_s,
            row.tflop_per_s,
            row.percent,
        )
    }

    const HEADER: &str = "  kernel                     rows          µs          MB       GFLOP     GB/s  TFLOP/s  of the bound";

    /// Whose shapes kernels are measured at.
    const MODEL: &str = "mixtral-8x7b";
}

pub(super) const EXAMPLES: &str = "\
Each launch finds its tensors in no cache. The last column is the time that memory or the tensor cores need at their \
ceilings, whichever is longer, in percent of the time that the kernel took. Rows that do not fit are left out.

Examples:
  mixgate bench kernels
  mixgate bench kernels --device cuda:1 --rows 1,16,256 --json kernels.json";

#[cfg(test)]
mod tests;
