//! `mixgate bench engine`: the engine without HTTP, over batch sizes; a table, and JSON on request.

use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::results::Results;
use crate::bench::engine::{Admission, Row, Timed, Workload, measure};
use crate::bench::machine::Machine;
use crate::cli::loading::{self, ModelFacts};
use crate::cli::startup::shell_word;
use crate::cli::{Failure, serve};
use crate::config::{Args, Config, Origin, Setting};
use crate::engine::{Engine, EngineConfig};
use crate::telemetry;

/// What can be typed after `mixgate bench engine`, settings aside.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct BenchEngine {
    /// How many requests at once: one run for each
    #[arg(
        long,
        value_name = "N,N,…",
        value_delimiter = ',',
        default_value = "1,8,32,64,128,256,1024",
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    pub batch: Vec<u32>,
    /// Tokens of each prompt; no two prompts are alike
    #[arg(long, value_name = "TOKENS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt_len: u32,
    /// Tokens that each request generates
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub output_len: u32,
    /// Instead: as many as it takes for so many steps to decode the whole batch at once
    #[arg(long, value_name = "STEPS", conflicts_with = "output_len", hide_short_help = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub decode_steps: Option<u32>,
    /// Begin each batch with the prompts of the one before, which the prefix cache still has: fewer to compute, each still
    /// with keys and values of its own. TTFT then says nothing
    #[arg(long, hide_short_help = true)]
    pub reuse_prompts: bool,
    /// Makes the prompts: the same seed, the same prompts
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Also write the results to this file, anew after each row
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Measures, row by row.
pub(super) fn run(typed: &BenchEngine, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let mut config = Config::load(args)?;
    telemetry::init(&config.log);
    widen(&mut config, typed);
    let loaded = loading::load(&config)?;
    let words = loading::plain_words(&loaded.text);
    if words.is_empty() {
        return Err(Failure::new(
            "the tokenizer has no plain words to make prompts of",
        ));
    }
    let prompts = (loaded.text.bos(), &words[..]);
    let (executor, log) = Timed::new(loaded.executor);
    let engine = Engine::start(executor, config.engine.clone(), loaded.eos);
    let workloads = workloads(typed, &config.engine);
    check_length(&workloads, engine.max_model_len())?;
    let admission = Admission::new().map_err(|error| Failure::of(&error))?;
    let runtime = serve::runtime()?;

    write!(out, "{}", title(typed, &config, &loaded.facts))?;
    writeln!(out, "{HEADER}")?;
    let results = Results::to(typed.json.as_ref());
    let (mut rows, mut short) = (Vec::new(), Vec::new());
    for workload in workloads {
        let row = runtime
            .block_on(measure(&engine, &log, &admission, prompts, workload))
            .map_err(|error| Failure::of(&error))?;
        writeln!(out, "{}", line(&row))?;
        out.flush()?;
        let least = typed
            .decode_steps
            .map_or_else(|| workload.least_decode_steps(), |it| it as usize);
        if row.decode_steps() < least {
            short.push((workload, row.decode_steps(), least));
        }
        rows.push(row);
        let document = || document(typed, &config, &loaded.facts, &rows);
        results.write(document, false)?;
    }
    engine.shutdown();
    results.write(|| document(typed, &config, &loaded.facts, &rows), true)?;
    match short.first() {
        None => Ok(()),
        Some(&(workload, steps, least)) => {
            Err(too_few_steps(workload, steps, least, &config.engine))
        }
    }
}

/// A run for each batch.
fn workloads(typed: &BenchEngine, engine: &EngineConfig) -> Vec<Workload> {
    let run = |(run, &batch): (usize, &u32)| {
        let (batch, prompt_len) = (batch as usize, typed.prompt_len as usize);
        let width = batch.min(engine.max_num_seqs);
        Workload {
            batch,
            width,
            prompt_len,
            output_len: match typed.decode_steps {
                None => typed.output_len as usize,
                Some(steps) => Workload::output_len_for(steps as usize, width, prompt_len, engine),
            },
            seed: match typed.reuse_prompts {
                true => typed.seed,
                false => Workload::own_seed(typed.seed, run),
            },
        }
    };
    typed.batch.iter().enumerate().map(run).collect()
}

fn check_length(workloads: &[Workload], limit: usize) -> Result<(), Failure> {
    let lengths = workloads.iter().map(|it| it.prompt_len + it.output_len);
    let needed = lengths.max().unwrap_or(0);
    if needed <= limit {
        return Ok(());
    }
    let message = format!("a request needs {needed} tokens of context, at most {limit} fit");
    Err(Failure::new(message)
        .hint("choose a smaller --prompt-len or --output-len")
        .usage())
}

/// The rate of a batch is one of steps that decode all of it; without them there is none.
fn too_few_steps(workload: Workload, steps: usize, least: usize, engine: &EngineConfig) -> Failure {
    let Workload {
        batch,
        width,
        prompt_len,
        ..
    } = workload;
    let enough = Workload::output_len_for(least, width, prompt_len, engine);
    Failure::new(format!(
        "batch {batch}: {steps} steps decoded {width} sequences at once, {least} are needed for a rate"
    ))
    .hint(format!(
        "--output-len {enough} is enough if the KV cache holds {} tokens; a larger --max-num-batched-tokens takes prompts in sooner",
        width * (prompt_len + enough)
    ))
}

/// Limits that nobody chose give way to the largest batch: it is to be measured at once, not in turns, and prompts are
/// to be in soon, so that it decodes together for a while.
fn widen(config: &mut Config, typed: &BenchEngine) {
    let most = typed.batch.iter().max().map_or(1, |&batch| batch as usize);
    let is_free = |name| Setting::named(name).is_none() || *config.origin(name) == Origin::Default;
    let free = ["max_num_seqs", "max_waiting", "max_waiting_per_subject"].map(is_free);
    let free_budgets = ["max_num_batched_tokens", "max_prefill_tokens"].map(is_free);
    let engine = &mut config.engine;
    let limits = [
        &mut engine.max_num_seqs,
        &mut engine.max_waiting,
        &mut engine.max_waiting_per_subject,
    ];
    for (limit, _) in limits.into_iter().zip(free).filter(|(_, free)| *free) {
        *limit = most.max(*limit);
    }
    let budgets = [
        &mut engine.max_num_batched_tokens,
        &mut engine.max_prefill_tokens,
    ];
    for (budget, _) in budgets
        .into_iter()
        .zip(free_budgets)
        .filter(|(_, free)| *free)
    {
        *budget = most.max(BUDGET);
    }
}

fn title(typed: &BenchEngine, config: &Config, facts: &ModelFacts) -> String {
    let EngineConfig {
        max_num_batched_tokens,
        max_num_seqs,
        ..
    } = config.engine;
    let generated = match typed.decode_steps {
        None => format!("{} generated", typed.output_len),
        Some(steps) => format!("{steps} steps that decode all"),
    };
    let mut text = format!(
        "{} ({})  ·  {}  ·  {} prompt tokens, {generated}\n",
        config.model.served_model_name, facts.dtype, facts.device, typed.prompt_len
    );
    if typed.reuse_prompts {
        text += "  prompts   those of the batch before come first, from the prefix cache: TTFT says nothing\n";
    }
    if let Some(caution) = &facts.caution {
        text += &format!("  null      {caution}\n");
    }
    text + &format!(
        "  limits    {max_num_batched_tokens} tokens per step, {max_num_seqs} sequences, {} tokens of KV cache\n",
        facts.kv_cache_tokens
    )
}

const HEADER: &str = "  batch  decoding  decode tok/s  step ms   p99  host µs   p99  TTFT ms     p99  all tok/s  preempted";

fn line(row: &Row) -> String {
    let decode = match &row.decode {
        Some(decode) => format!(
            "{:8}  {:12.0}  {:7.2} {:5.2}  {:7.1} {:5.0}",
            decode.sequences,
            decode.tokens_per_second,
            decode.step_ms.p50,
            decode.step_ms.p99,
            decode.host_us.p50,
            decode.host_us.p99,
        ),
        None => format!(
            "{:>8}  {:>12}  {:>7} {:>5}  {:>7} {:>5}",
            "-", "-", "-", "-", "-", "-"
        ),
    };
    format!(
        "  {:5}  {decode}  {:7.1} {:7.1}  {:9.0}  {:9}",
        row.batch, row.ttft_ms.p50, row.ttft_ms.p99, row.output_tokens_per_second, row.preemptions,
    )
}

/// A row, with what its decode steps read at least.
fn with_floor(row: &Row, facts: &ModelFacts) -> Value {
    let mut value = json!(row);
    if let (Some(floor), Some(decode)) = (facts.floor, &row.decode) {
        value["decode"]["floor"] = json!(floor.decode(decode.sequences, decode.context));
    }
    value
}

fn document(typed: &BenchEngine, config: &Config, facts: &ModelFacts, rows: &[Row]) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let words = std::env::args().skip(1).map(|word| shell_word(&word));
    let command: Vec<String> = std::iter::once("mixgate".to_owned()).chain(words).collect();
    json!({
        "benchmark": "engine",
        "version": env!("CARGO_PKG_VERSION"),
        "unix_seconds": now.unwrap_or_default().as_secs(),
        "command": command.join(" "),
        "machine": Machine::this(),
        "model": config.model.served_model_name,
        "caution": facts.caution,
        "dtype": facts.dtype,
        "device": facts.device,
        "prompt_len": typed.prompt_len,
        "prompt_flops": facts.floor.map(|floor| floor.prompt_flops(typed.prompt_len as usize)),
        "decode_steps": typed.decode_steps,
        "reuses_prompts": typed.reuse_prompts,
        "seed": typed.seed,
        "max_num_batched_tokens": config.engine.max_num_batched_tokens,
        "max_prefill_tokens": config.engine.max_prefill_tokens,
        "max_num_seqs": config.engine.max_num_seqs,
        "prefix_caching": config.engine.prefix_caching,
        "block_size": config.model.block_size,
        "kv_cache_tokens": facts.kv_cache_tokens,
        "rows": rows.iter().map(|row| with_floor(row, facts)).collect::<Vec<_>>(),
    })
}

/// Tokens per step unless told otherwise.
const BUDGET: usize = 8192;

pub(super) const EXAMPLES: &str = "\
Decoding is measured in steps that compute one token for each sequence of a batch, all of them, and no prompt. Where \
there are too few of them, there is no rate, and the command fails when all is measured.

Limits on sequences and tokens per step grow with the largest batch unless they are set.

Examples:
  mixgate bench engine --batch 1,8,32 --prompt-len 128 --output-len 64
  mixgate bench engine --model null:mixtral-8x7b
  mixgate bench engine --batch 1,8,32 --prompt-len 512 --decode-steps 16 --reuse-prompts
  mixgate bench engine --model null:mixtral-8x7b@a100-w4a16 --batch 64 --json a100.json";
