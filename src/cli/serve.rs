//! `mixgate serve`: config, logs, gate, model, engine, listener, screen; then wait, drain, end.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use super::Failure;
use super::drain::{self, Signals};
use super::rooms::Rooms;
use super::startup::Facts;
use crate::config::{Args, Config};
use crate::telemetry;

/// Serves until a signal, then until the last stream has ended.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let start = Instant::now();
    let config = Config::load(args)?;
    config.check_exposure()?;
    telemetry::init(&config.log);
    runtime()?.block_on(serve(&config, args, start, out))
}

async fn serve(
    config: &Config,
    args: &Args,
    start: Instant,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    // Before the model loads, so that a signal while loading ends in the same way as later.
    let mut signals = Signals::listen()
        .map_err(|error| Failure::new("cannot listen for signals").caused_by(&error))?;
    let rooms = Rooms::open(config).await?;
    announce(
        &rooms.facts(config, args, start.elapsed()),
        io::stdout().is_terminal(),
        out,
    )?;
    let (drainer, stopper) = (rooms.ending(), rooms.ending());
    let ended = drain::run(
        rooms.serve(),
        &mut signals,
        config.server.shutdown_timeout,
        || drainer.drain(),
        || stopper.stop(),
    )
    .await;
    match ended {
        Some(Err(error)) => Err(Failure::new("the server has failed").caused_by(&error)),
        Some(Ok(())) | None => Ok(()),
    }
}

/// Says that the server is ready. A reader who has gone away is no reason to stop serving.
fn announce(facts: &Facts, is_terminal: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let text = if is_terminal {
        facts.screen()
    } else {
        facts.json_line()
    };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The runtime of connections. The engine and the model have threads of their own.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("mixgate-http")
        .build()
        .map_err(|error| Failure::new("cannot start threads").caused_by(&error))
}
