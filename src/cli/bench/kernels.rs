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
    /// Only kernels whose names have one of these in them, such as `experts,route`
    #[arg(long, value_name = "PART,PART,…", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Whose shapes: a synthetic model's name
    #[arg(long, value_name = "NAME", default_value = "mixtral-8x7b")]
    pub shape: String,
    /// Measure next to nothing, to see that all kernels run: the times mean nothing
    #[arg(long, hide_short_help = true)]
    pub brief: bool,
    /// Also write the results to this file, anew after each row
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
    use std::io::Write;
    use std::time::{SystemTime, UNIX_EPOCH};

    use serde_json::{Value, json};

    use super::BenchKernels;
    use crate::bench::datasheet::Datasheet;
    use crate::bench::kernels::{
        Bound, By, Ceilings, Effort, Heard, Row, Shape, Wanted, measure, names,
    };
    use crate::bench::machine::Machine;
    use crate::cli::Failure;
    use crate::cli::bench::results::Results;
    use crate::cli::startup::shell_word;
    use crate::ops::Device;

    /// Measures, row by row.
    #[cfg(feature = "cuda")]
    pub fn run(typed: &BenchKernels, out: &mut dyn Write) -> Result<(), Failure> {
        use crate::model::{MixtralConfig, ModelSource, Synthetic};

        let open = || crate::cli::gpu::open(typed.device);
        // The same GPU twice: one multiplies by itself, the other by the library.
        let device = open()?
            .with_warpgroups()
            .map_err(|error| Failure::of(&error))?;
        let library = open()?.with_library();
        let library = library.as_ref().map_err(|error| error.to_string());
        let (free, _) = device.memory_bytes().map_err(|error| Failure::of(&error))?;
        let source = Synthetic::parse(&typed.shape).map_err(|error| Failure::of(&error).usage())?;
        let config = MixtralConfig::of(&ModelSource::Synthetic(source))
            .map_err(|error| Failure::of(&error))?;
        measure_on(
            (&device, library),
            typed,
            &Shape::of(&config),
            &match typed.brief {
                false => Effort::on_gpu(free),
                true => Effort::brief(free),
            },
            out,
        )
    }

    /// The same on any device, at any shape.
    pub fn measure_on<D: Device>(
        (device, library): (&D, Result<&D, String>),
        typed: &BenchKernels,
        shape: &Shape,
        effort: &Effort,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let wanted = Wanted {
            rows: typed.rows.iter().map(|&rows| rows as usize).collect(),
            only: typed.only.clone(),
        };
        check_names(&wanted.only, &names(shape))?;
        let gpu = device.describe();
        writeln!(out, "kernels  ·  {gpu}  ·  shapes of {}", typed.shape)?;
        let results = Results::to(typed.json.as_ref());
        let of = [&*gpu, &*typed.shape];
        let mut known = Known::default();
        // A failure to write is not one of the bench: it ends it all the same.
        let mut failure = None;
        let mut told = |heard| {
            known.hear(heard, out)?;
            let document = || known.document(of, shape, effort);
            results.write(document, false).map_err(|failed| {
                failure = Some(failed);
                std::io::Error::other("results")
            })
        };
        let done = measure(device, library, shape, &wanted, effort, &mut told);
        if let Some(failure) = failure {
            return Err(failure);
        }
        done.map_err(|error| Failure::of(&error))?;
        results.write(|| known.document(of, shape, effort), true)
    }

    /// Each part must be one of some kernel's name.
    fn check_names(only: &[String], names: &[String]) -> Result<(), Failure> {
        let is_none = |part: &&String| !names.iter().any(|name| name.contains(part.as_str()));
        match only.iter().find(is_none) {
            None => Ok(()),
            Some(part) => Err(Failure::new(format!("no kernel's name has {part:?} in it"))
                .hint(format!("there are {}", names.join(", ")))
                .usage()),
        }
    }

    /// What was measured so far.
    #[derive(Default)]
    struct Known {
        ceilings: Option<Ceilings>,
        rows: Vec<Row>,
        skipped: Vec<Value>,
    }

    impl Known {
        fn hear(&mut self, heard: Heard, out: &mut dyn Write) -> std::io::Result<()> {
            match heard {
                Heard::Ceilings(known) => {
                    writeln!(out, "{}{HEADER}", title(&known))?;
                    self.ceilings = Some(known);
                }
                Heard::Row(row) => {
                    writeln!(out, "{}", line(&row))?;
                    self.rows.push(row);
                }
                Heard::Skipped { name, rows } => {
                    writeln!(out, "  {name:<24}  {rows:5}  does not fit")?;
                    self.skipped.push(json!({ "name": name, "rows": rows }));
                }
            }
            out.flush()
        }

        fn document(&self, [gpu, model]: [&str; 2], shape: &Shape, effort: &Effort) -> Value {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let words = std::env::args().skip(1).map(|word| shell_word(&word));
            let command: Vec<String> = std::iter::once("mixgate".to_owned()).chain(words).collect();
            json!({
                "benchmark": "kernels",
                "version": env!("CARGO_PKG_VERSION"),
                "unix_seconds": now.unwrap_or_default().as_secs(),
                "command": command.join(" "),
                "machine": Machine::this(),
                "device": gpu,
                "shape": shape,
                "effort": effort,
                "model": model,
                "ceilings": self.ceilings,
                "rows": self.rows,
                "skipped": self.skipped,
            })
        }
    }

    fn title(ceilings: &Ceilings) -> String {
        let sheet = |rate: fn(&Datasheet) -> f64| match &ceilings.datasheet {
            Some(sheet) => format!("{:.0}", rate(sheet)),
            None => "unknown".to_owned(),
        };
        let library = match (&ceilings.library_tflop_per_s, &ceilings.library_missing) {
            (Some(rate), _) => format!("cuBLASLt {rate:.0}"),
            (None, why) => format!("cuBLASLt not measured ({})", why.as_deref().unwrap_or("?")),
        };
        let whose = match ceilings.compute_ceiling {
            By::Own => "our own product's",
            By::Library => "cuBLASLt's",
        };
        format!(
            "  copy      {:.0} GB/s, read + written; datasheet {}\n\
             \x20 product   bf16 of square matrices, TFLOP/s: ours {:.0}, {library}; datasheet {} (dense)\n\
             \x20 bounds    that copy and {whose} rate; the last column is of the datasheet's\n",
            ceilings.copy_gb_per_s,
            sheet(|it| it.gb_per_s),
            ceilings.bf16_tflop_per_s,
            sheet(|it| it.bf16_tflop_per_s),
        )
    }

    fn line(row: &Row) -> String {
        let bound = match row.bound {
            Bound::Memory => "memory",
            Bound::Compute => "compute",
        };
        let sheet = match row.percent_of_datasheet {
            Some(percent) => format!("{percent:5.1} %"),
            None => "-".to_owned(),
        };
        format!(
            "  {:<24}  {:5}  {:10.2}  {:10.3}  {:10.3}  {:7.1}  {:7.2}  {:5.1} % {bound:<7}  {sheet:>7}",
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

    const HEADER: &str = "  kernel                     rows          µs          MB       GFLOP     GB/s  TFLOP/s  of the bound     of sheet";
}

pub(super) const EXAMPLES: &str = "\
Each launch finds its tensors in no cache. The column before the last is the time that memory or the tensor cores need at their \
ceilings, whichever is longer, in percent of the time that the kernel took; beside it the same at the rates of the \
card's datasheet. Rows that do not fit are left out.

Examples:
  mixgate bench kernels
  mixgate bench kernels --device cuda:1 --rows 1,16,256 --json kernels.json
  mixgate bench kernels --rows 16 --only experts,route";

#[cfg(test)]
mod tests;
