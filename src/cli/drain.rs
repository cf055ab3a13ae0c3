//! How a server ends: the first signal lets running streams finish, the second ends them.

use std::future::Future;
use std::io;
use std::pin::pin;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// The signals that end a server.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on: a signal no longer kills the process at once.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Something that asks a server to stop, more and more insistently.
pub(super) trait Ask {
    /// The name of the next signal.
    fn next(&mut self) -> impl Future<Output = &'static str> + Send;
}

impl Ask for Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, or after its last stream.
    Finished,
    /// At once, because it was asked twice; its streams broke off.
    CutOff,
}

/// Runs `serve` to its end. The future that `serve` is given completes at the first signal: from then on it should end
/// by itself, within its own deadline. A second signal drops it.
pub(super) async fn until_asked<S: Future<Output = ()>>(
    asks: &mut impl Ask,
    serve: impl FnOnce(oneshot::Receiver<()>) -> S,
) -> Ended {
    let (drain, draining) = oneshot::channel();
    let mut serving = pin!(serve(draining));
    tokio::select! {
        () = &mut serving => return Ended::Finished,
        signal = asks.next() => tracing::info!(signal, "asked to stop; a second signal stops at once"),
    }
    // Fails if the server no longer waits for it, which is what it asks for.
    let _ = drain.send(());
    tokio::select! {
        () = &mut serving => Ended::Finished,
        signal = asks.next() => {
            tracing::warn!(signal, "asked twice: stopping at once");
            Ended::CutOff
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    impl Ask for UnboundedReceiver<&'static str> {
        async fn next(&mut self) -> &'static str {
            match self.recv().await {
                Some(signal) => signal,
                None => pending().await,
            }
        }
    }

    fn asked(signals: &[&'static str]) -> UnboundedReceiver<&'static str> {
        let (send, asks) = unbounded_channel();
        signals
            .iter()
            .for_each(|signal| send.send(*signal).unwrap());
        // Without a sender left, nothing more is ever asked.
        asks
    }

    #[tokio::test]
    async fn the_first_signal_lets_the_server_end_by_itself() {
        let mut told = false;
        let mut asks = asked(&["SIGTERM"]);
        let ended = until_asked(&mut asks, async |draining| told = draining.await.is_ok());
        assert_eq!(ended.await, Ended::Finished);
        assert!(told);
    }

    #[tokio::test]
    async fn the_second_signal_ends_a_server_that_would_go_on() {
        let mut asks = asked(&["SIGINT", "SIGINT"]);
        let ended = until_asked(&mut asks, |_| pending());
        assert_eq!(ended.await, Ended::CutOff);
    }

    #[tokio::test]
    async fn a_server_that_ends_by_itself_needs_no_signal() {
        assert_eq!(
            until_asked(&mut asked(&[]), |_| ready(())).await,
            Ended::Finished
        );
    }
}
