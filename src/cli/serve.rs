//! `mixgate serve`: config, logs, gate, model, engine, listener, screen; then wait, drain, end.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;

use super::Failure;
use super::certificates::keep_fresh;
use super::drain::{Ask, Signals, until_asked};
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
    warn_of_exposure(&config);
    let runtime = runtime()?;
    let result = runtime.block_on(serve(config, args, start, out));
    // A model that still loads, or a stream that was cut off, must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn serve(
    config: Config,
    args: &Args,
    start: Instant,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let config = Arc::new(config);
    let mut signals = Signals::listen()
        .map_err(|error| Failure::new("cannot listen for signals").caused_by(&error))?;
    let rooms = tokio::select! {
        rooms = open(config.clone()) => rooms?,
        // Nobody is served yet: there is nothing to wait for. As process 1 of a container we would not be killed.
        signal = signals.next() => {
            tracing::info!(signal, "stopped while loading");
            return Ok(());
        }
    };
    let server = rooms.listen(&config).await?;
    let facts = server.facts(&config, args, start.elapsed());
    announce(&facts, io::stdout().is_terminal(), out)?;
    let ledger = server.ledger().clone();
    let fresh = tokio::spawn(keep_fresh(server.certificates()));
    until_asked(&mut signals, |draining| server.serve(draining)).await;
    fresh.abort();
    // The engine has stopped, or nobody waits for it: what is known now is what remains.
    ledger.flush();
    Ok(())
}

/// What works and is rarely meant.
fn warn_of_exposure(config: &Config) {
    if config.is_plaintext_in_public() {
        tracing::warn!(
            host = %config.server.host,
            "tokens and prompts travel as plain text: set tls_cert_file and tls_key_file, or let a proxy in front speak TLS"
        );
    }
    if config.is_internal_in_public() {
        tracing::warn!(
            "whoever reaches the internal port reads metrics and model names without a token"
        );
    }
}

/// Loads on a thread of its own: reading weights takes minutes, during which signals are heard.
async fn open(config: Arc<Config>) -> Result<Rooms, Failure> {
    let opened = spawn_blocking(move || Rooms::open(&config)).await;
    opened.unwrap_or_else(|error| Err(Failure::new("loading has failed").caused_by(&error)))
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

/// The threads of connections. The engine and the model have their own.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("mixgate-http")
        .build()
        .map_err(|error| Failure::new("cannot start threads").caused_by(&error))
}

#[cfg(test)]
mod tests {
    use super::super::startup::tests::facts;
    use super::*;

    /// A pipe whose reader has gone.
    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_terminal_gets_the_screen_and_a_program_one_json_line() {
        let said = |is_terminal| {
            let mut out = Vec::new();
            announce(&facts(), is_terminal, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(said(true), facts().screen());
        assert_eq!(said(false), facts().json_line());
    }

    #[test]
    fn a_reader_who_has_gone_does_not_stop_the_server() {
        announce(&facts(), true, &mut Gone).unwrap();
    }
}
