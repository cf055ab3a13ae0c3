//! Measures a server from outside, as its clients see it.
//!
//! Knows HTTP, the OpenAI wire format and the clock; knows nothing of the inside of any server, ours included. The
//! definitions and the names of the results are those of `vllm bench serve`, so that its plots can be used.
//!
//! [`run`] is the way through: [`Target`] (where to), a probe that also measures tokens per word, a [`Workload`]
//! (what), a [`Load`] (when), one [`Record`] per request, [`Results`] from all of them, and [`report`].
//!
//! Everything that does not touch the network is pure and seeded: equal seeds make equal prompts, lengths and arrival
//! times.

mod arrivals;
mod ask;
mod body;
mod chunk;
mod connection;
mod error;
mod lengths;
mod lines;
mod probe;
mod progress;
mod record;
pub mod report;
mod results;
mod run;
mod target;
mod words;
mod workload;

pub use arrivals::{Arrivals, RampUp};
pub use body::{Api, RequestFields};
pub use error::{BenchError, RequestFailure};
pub use lengths::{LengthKind, Lengths};
pub use probe::{Calibration, first_model};
pub use progress::{Progress, Snapshot};
pub use record::Record;
pub use results::{Goals, Results};
pub use run::{Load, Options, Outcome, run};
pub use target::{Target, Token};
pub use workload::{Shape, Workload};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// What random numbers are drawn for. Each has its own stream, so that another rate leaves the prompts as they are.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Arrivals,
    InputLengths,
    OutputLengths,
    Words,
    Prefixes,
    Order,
}

/// The random numbers of `purpose` under `seed`: the same on every machine.
fn random(seed: u64, purpose: Purpose) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(purpose as u64);
    random
}
