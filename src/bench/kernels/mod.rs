//! Kernels one by one, on any [`Device`]: what a launch takes, against what the device's memory and tensor cores allow.
//!
//! First two ceilings are measured: copies, and a bf16 product of square matrices, by our own kernel and by a library
//! where there is one. Then each kernel runs at a model's shapes over numbers of rows. A kernel must move some bytes and do
//! some operations; at the ceilings that takes a least time, and a row tells how much of its own time that is. Knows no
//! engine and no requests.

mod cases;
mod ceilings;
mod pool;
mod routing;
mod timer;

use std::time::Duration;

use serde::Serialize;

use self::pool::Pool;
use self::timer::launch_time;
use crate::model::MixtralConfig;
use crate::ops::{Device, OpError, QuantiseError};

pub use self::ceilings::{By, Ceilings};

/// The sizes that kernels run at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside of an expert.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Experts.
    pub experts: usize,
    /// Experts that see each token.
    pub top_k: usize,
    /// Tokens of a block of the KV cache.
    pub block_size: usize,
    /// Contexts, in tokens, of sequences that decode.
    pub contexts: Vec<usize>,
    /// Rows from which on they are measured as a prompt, too.
    pub least_prompt: usize,
    /// Tokens that a chunk of a prompt finds in the cache.
    pub cached: usize,
    /// Rows up to which such a chunk is measured.
    pub most_chunk: usize,
    /// Rows up to which what is done for sequences of a step, not for its tokens, is measured: the output layer, choices.
    pub most_logit_rows: usize,
    /// Rows from which on a device leaves products to its library.
    pub least_library_rows: usize,
}

impl Shape {
    /// The shape of a model, with contexts of 1,024 and 8,192 tokens in blocks of 16.
    pub fn of(config: &MixtralConfig) -> Self {
        Self {
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            vocab: config.vocab_size,
            experts: config.num_local_experts,
            top_k: config.num_experts_per_tok,
            block_size: 16,
            contexts: vec![1024, 8192],
            least_prompt: 64,
            cached: 7168,
            most_chunk: 1024,
            most_logit_rows: 256,
            least_library_rows: 64,
        }
    }

    fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// How much work goes into a measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effort {
    /// Bytes of the copy that memory's ceiling is measured with.
    pub copy_bytes: usize,
    /// Width of the square matrices that the tensor cores' ceiling is measured with.
    pub matrix_width: usize,
    /// A launch finds its tensors in no cache: others that move so many bytes come before it has its turn again.
    pub cold_bytes: usize,
    /// At most so many sets of tensors take turns, at least two.
    pub most_sets: usize,
    /// A graph is as many launches as take about so long.
    #[serde(skip)]
    pub graph_time: Duration,
    /// Graphs whose median counts.
    pub replays: usize,
    /// Device memory that a row may take, in bytes; one that needs more is left out.
    pub room: u64,
}

impl Effort {
    /// For a GPU with so many bytes of free memory.
    ///
    /// 256 MiB is five times the second-level cache of an H100. A graph of 10 ms makes its own launch and the wait for it,
    /// some 20 µs, a matter of 0.2 %.
    pub fn on_gpu(free: u64) -> Self {
        Self {
            copy_bytes: 1 << 30,
            matrix_width: 8192,
            cold_bytes: 256 << 20,
            most_sets: 256,
            graph_time: Duration::from_millis(10),
            replays: 7,
            room: free.saturating_sub(KEPT_FREE),
        }
    }

    /// Next to none, to see that all kernels run: the times mean nothing.
    pub fn brief(free: u64) -> Self {
        Self {
            copy_bytes: 1 << 16,
            matrix_width: 128,
            cold_bytes: 1,
            most_sets: 2,
            graph_time: Duration::ZERO,
            replays: 1,
            room: free / 2,
        }
    }
}

/// What a launch cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Bytes that are read or written once each: weights of experts that have rows, activations, results.
    pub bytes: u64,
    /// Multiplications and additions of products, two for each pair of factors.
    pub flops: u64,
}

/// What limits a launch at its best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// The bytes.
    Memory,
    /// The operations.
    Compute,
}

/// One kernel, or two that belong together, at one number of rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What ran, such as `experts q8_0`.
    pub name: String,
    /// Rows: tokens, or sequences that decode.
    pub rows: usize,
    /// Microseconds: of the median graph, divided by its launches.
    pub us: f64,
    /// What it had to do.
    #[serde(flatten)]
    pub cost: Cost,
    /// 10⁹ bytes per second of its time.
    pub gb_per_s: f64,
    /// 10¹² operations per second of its time.
    pub tflop_per_s: f64,
    /// Which of the two ceilings is lower for it.
    pub bound: Bound,
    /// The least time at that ceiling, in percent of its time. Over 100 where a ceiling was measured too low: memory reads
    /// somewhat faster than it copies.
    pub percent: f64,
    /// The least time at the rates of the card's datasheet, in percent of its time; `None` where they are not known.
    pub percent_of_datasheet: Option<f64>,
}

impl Row {
    fn new(name: String, rows: usize, time: Duration, cost: Cost, ceilings: &Ceilings) -> Self {
        let seconds = time.as_secs_f64();
        let (gigabytes, teraflops) = (cost.bytes as f64 / 1e9, cost.flops as f64 / 1e12);
        let memory = gigabytes / ceilings.copy_gb_per_s;
        let compute = teraflops / ceilings.tflop_per_s();
        let sheet = ceilings.datasheet.map(|sheet| {
            let memory = gigabytes / sheet.gb_per_s;
            memory.max(teraflops / sheet.bf16_tflop_per_s)
        });
        Self {
            name,
            rows,
            us: seconds * 1e6,
            cost,
            gb_per_s: gigabytes / seconds,
            tflop_per_s: teraflops / seconds,
            bound: if memory >= compute {
                Bound::Memory
            } else {
                Bound::Compute
            },
            percent: 100.0 * memory.max(compute) / seconds,
            percent_of_datasheet: sheet.map(|least| 100.0 * least / seconds),
        }
    }
}

/// What a measurement says, as soon as it is known.
#[derive(Debug)]
pub enum Heard {
    /// First of all.
    Ceilings(Ceilings),
    /// A kernel was measured.
    Row(Row),
    /// A kernel was left out: its tensors do not fit.
    Skipped {
        /// What would have run.
        name: String,
        /// Rows.
        rows: usize,
    },
}

/// Which kernels are measured, and at which sizes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Numbers of rows.
    pub rows: Vec<usize>,
    /// Parts of kernels' names; none of them for all kernels.
    pub only: Vec<String>,
}

impl Wanted {
    fn has(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
    }
}

/// The names of all kernels that can be measured at `shape`.
pub fn names(shape: &Shape) -> Vec<String> {
    let all = cases::all(shape).into_iter();
    all.map(cases::Kernel::name).collect()
}

/// Measures the ceilings, then each kernel that is wanted; `hear` is told. `library` is the same device with a library for
/// products, or why there is none.
///
/// # Errors
/// [`KernelBenchError`] if the device fails, or if there is no room for the ceilings.
pub fn measure<D: Device>(
    device: &D,
    library: Result<&D, String>,
    shape: &Shape,
    wanted: &Wanted,
    effort: &Effort,
    mut hear: impl FnMut(Heard) -> std::io::Result<()>,
) -> Result<(), KernelBenchError> {
    let ceilings = Ceilings::measure(device, library.clone(), effort)?;
    hear(Heard::Ceilings(ceilings.clone()))?;
    for kernel in cases::all(shape) {
        let name = kernel.name();
        let device = match (kernel.is_librarys(), &library) {
            _ if !wanted.has(&name) => continue,
            (false, _) => device,
            (true, Ok(library)) if ceilings.library_tflop_per_s.is_some() => *library,
            (true, _) => continue,
        };
        for &rows in wanted
            .rows
            .iter()
            .filter(|&&rows| kernel.takes(shape, rows))
        {
            let name = name.clone();
            let mut pool = Pool::new(device, effort);
            let heard = match kernel.prepare(&mut pool, shape, rows) {
                Ok(case) => {
                    let time = launch_time(&pool, &case.sets, effort)?;
                    Heard::Row(Row::new(name, rows, time, case.cost, &ceilings))
                }
                Err(KernelBenchError::NoRoom { .. }) => Heard::Skipped { name, rows },
                Err(error) => return Err(error),
            };
            hear(heard)?;
        }
    }
    Ok(())
}

/// Why kernels could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum KernelBenchError {
    /// The device failed.
    #[error(transparent)]
    Op(#[from] OpError),
    /// Weights of this shape cannot be stored so.
    #[error("a matrix of the bench {0}")]
    Quantise(#[from] QuantiseError),
    /// Tensors take more memory than a row may, or than there is.
    #[error("tensors of {wanted} bytes, and there is room for {room}")]
    NoRoom {
        /// All of them together, as far as they were asked for.
        wanted: u64,
        /// As [`Effort::room`]; where the device refused, those that it gave.
        room: u64,
    },
    /// Nobody can be told.
    #[error("cannot write results: {0}")]
    Write(#[from] std::io::Error),
}

/// Left to the driver and to graphs.
const KEPT_FREE: u64 = 1 << 30;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod traffic;
