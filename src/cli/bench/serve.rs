//! `mixgate bench serve`: token, target, run, reports, verdict.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::typed::Typed;
use crate::bench::load::report::{self, About};
use crate::bench::load::{
    Api, BenchError, Options, Progress, RequestFields, Results, Target, Token, first_model,
    run as run_bench,
};
use crate::cli::Failure;
use crate::cli::drain::{Ask, Signals};
use crate::cli::serve::runtime;
use crate::clock::Clock;
use crate::config::{Args, BENCH_TOKEN};
use crate::telemetry::Secret;

/// Measures, prints the table, writes what was asked for, and fails if the measurement is worth nothing.
pub(super) fn run(typed: &Typed, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let workload = typed.workload()?;
    let api = Api::of(&typed.endpoint).ok_or_else(|| {
        let words = format!(
            "--endpoint must end in chat/completions or completions; given {}",
            typed.endpoint
        );
        Failure::new(words).usage()
    })?;
    if workload.turns() > 1 && api == Api::Completions {
        return Err(Failure::new("conversations need an endpoint for chat").usage());
    }
    let files = [&typed.json, &typed.html, &typed.csv];
    // Found out now, not after an hour.
    files
        .into_iter()
        .flatten()
        .try_for_each(|path| touch(path))?;
    let token = token(typed, args)?;

    let runtime = runtime()?;
    let measured = runtime.block_on(measure(typed, token, api, workload));
    runtime.shutdown_background();
    let (results, about) = measured?;

    out.write_all(report::table(&results, &about).as_bytes())?;
    if let Some(path) = &typed.json {
        write(path, |to| {
            report::json(&results, &about, !typed.summary_only, to)
        })?;
    }
    if let Some(path) = &typed.html {
        write(path, |to| {
            to.write_all(report::html(&results, &about).as_bytes())
        })?;
    }
    if let Some(path) = &typed.csv {
        write(path, |to| to.write_all(report::csv(&results).as_bytes()))?;
    }
    verdict(&results, &about)
}

async fn measure(
    typed: &Typed,
    token: Option<Token>,
    api: Api,
    workload: crate::bench::load::Workload,
) -> Result<(Results, About), Failure> {
    let mut signals = Signals::listen()
        .map_err(|error| Failure::new("cannot listen for signals").caused_by(&error))?;
    let target = Target::new(&typed.url, &typed.endpoint, token.as_ref())
        .await
        .map_err(told)?;
    let model = match &typed.model {
        Some(model) => model.clone(),
        None => first_model(&target).await.map_err(told)?,
    };
    let load = typed.load();
    let about = About {
        unix_seconds: Clock::system().unix_seconds(),
        label: typed.label.clone(),
        server: target.shown.clone(),
        endpoint: target.path().to_owned(),
        model: model.clone(),
        num_prompts: typed.num_prompts,
        load,
        seed: typed.seed,
        settings: typed.settings(&workload),
        metadata: typed.metadata.clone(),
        max_lag_ms: load.arrivals.is_paced().then_some(typed.max_send_lag),
    };
    let options = Options {
        target,
        fields: RequestFields {
            api,
            model,
            ignore_eos: typed.ignore_eos,
            temperature: typed.temperature,
            more: typed.extra_body.clone().unwrap_or_default(),
        },
        workload,
        load,
        num_prompts: typed.num_prompts,
        num_warmups: typed.num_warmups,
        seed: typed.seed,
        think_time: typed.think_time(),
        timeout: Duration::try_from_secs_f64(typed.timeout).unwrap_or(Duration::MAX),
        calibration: typed.calibration(),
    };
    let progress = Arc::new(Progress::default());
    let shown = io::stderr()
        .is_terminal()
        .then(|| tokio::spawn(show(progress.clone())));
    let outcome = run_bench(options, progress, async {
        signals.next().await;
    })
    .await;
    if let Some(shown) = shown {
        shown.abort();
        // It ends at a moment when it writes nothing; then the line is ours to clear.
        let _ = shown.await;
        let _ = write!(io::stderr(), "{CLEAR}");
    }
    let outcome = outcome.map_err(told)?;
    Ok((Results::of(outcome, &typed.goals()), about))
}

/// Draws the progress, again and again, until it is aborted.
async fn show(progress: Arc<Progress>) {
    let mut ticks = interval(BETWEEN_LINES);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut earlier = (progress.snapshot(), Instant::now());
    loop {
        ticks.tick().await;
        let (now, time) = (progress.snapshot(), Instant::now());
        let line = now.line(&earlier.0, (time - earlier.1).as_secs_f64());
        earlier = (now, time);
        let _ = write!(io::stderr(), "{CLEAR}{line}");
    }
}

/// The token of `--token-file`, else of the environment, else none. Never of the command line, which others can see.
fn token(typed: &Typed, args: &Args) -> Result<Option<Token>, Failure> {
    let (text, origin) = match &typed.token_file {
        Some(path) if path.as_os_str() == "-" => {
            (read(io::stdin().lock(), "stdin")?, "stdin".to_owned())
        }
        Some(path) => {
            let shown = path.display().to_string();
            let file = fs::File::open(path).map_err(|error| {
                Failure::new(format!("cannot read the token from {shown}")).caused_by(&error)
            })?;
            (read(file, &shown)?, shown)
        }
        None => match args.env.var(BENCH_TOKEN) {
            Some(text) => (text.to_owned(), BENCH_TOKEN.to_owned()),
            None => return Ok(None),
        },
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::new(format!("the token from {origin} is empty")));
    }
    Ok(Some(Token {
        text: Secret::new(text.to_owned()),
        origin,
    }))
}

fn read(from: impl Read, shown: &str) -> Result<String, Failure> {
    let mut text = String::new();
    from.take(MOST_READ)
        .read_to_string(&mut text)
        .map_err(|error| {
            Failure::new(format!("cannot read the token from {shown}")).caused_by(&error)
        })?;
    Ok(text)
}

/// Makes sure that `path` can be written, and leaves what is in it.
fn touch(path: &Path) -> Result<(), Failure> {
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    opened.map(drop).map_err(|error| unwritable(path, &error))
}

fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let written = fs::File::create(path).and_then(|file| {
        let mut file = BufWriter::new(file);
        fill(&mut file)?;
        file.flush()
    });
    written.map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot write {}", path.display())).caused_by(error)
}

fn told(error: BenchError) -> Failure {
    Failure::of(&error).hint_if(error.hint().as_deref())
}

/// Fails if the numbers say nothing about the server.
fn verdict(results: &Results, about: &About) -> Result<(), Failure> {
    if results.is_client_bound(about) {
        let words = format!(
            "the client could not keep up: it sent requests {:.1} ms late (99th percentile), so these numbers are its \
             own and not the server's",
            results.lag.percentile(99.0)
        );
        return Err(Failure::new(words).hint(
            "lower --request-rate, give the client a machine of its own, or accept it with --max-send-lag",
        ));
    }
    if results.completed == 0 && !results.is_interrupted {
        return Err(Failure::new("no request was answered"));
    }
    Ok(())
}

const BETWEEN_LINES: Duration = Duration::from_millis(250);
/// To the line's beginning, and all of it away.
const CLEAR: &str = "\r\u{1b}[2K";
/// The longest token, and what people paste around it.
const MOST_READ: u64 = 17 << 10;
