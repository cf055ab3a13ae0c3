//! How a server ends: the first signal lets running streams finish, the second or the deadline ends them.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

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

/// Awaits `serving` to its end.
///
/// The first signal calls `drain`, after which `serving` should end by itself once its streams have. After `timeout`, or
/// at a second signal, `stop` is called, and `serving` has [`LAST_WORDS`] to tell its clients; then it is dropped.
pub(super) async fn run<T>(
    serving: impl Future<Output = T>,
    asks: &mut impl Ask,
    timeout: Duration,
    drain: impl FnOnce(),
    stop: impl FnOnce(),
) -> Option<T> {
    let mut serving = pin!(serving);
    tokio::select! {
        result = &mut serving => return Some(result),
        signal = asks.next() => tracing::info!(signal, ?timeout, "draining: running streams may finish"),
    }
    drain();
    tokio::select! {
        result = &mut serving => return Some(result),
        signal = asks.next() => tracing::warn!(signal, "stopping now: asked twice"),
        () = tokio::time::sleep(timeout) => tracing::warn!("stopping now: streams took longer than shutdown_timeout"),
    }
    stop();
    tokio::time::timeout(LAST_WORDS, serving).await.ok()
}

/// Time for clients to hear that their streams have ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::{pending, ready};

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use tokio::sync::watch;

    use super::*;

    impl Ask for UnboundedReceiver<&'static str> {
        async fn next(&mut self) -> &'static str {
            match self.recv().await {
                Some(signal) => signal,
                None => pending().await,
            }
        }
    }

    /// Runs a server that ends once `ends_when` was called, and tells what was called.
    async fn calls(
        signals: &[&'static str],
        timeout: Duration,
        ends_when: &str,
    ) -> (Vec<&'static str>, bool) {
        let (send, mut asks) = unbounded_channel();
        signals
            .iter()
            .for_each(|signal| send.send(*signal).unwrap());
        let (called, mut watched) = watch::channel("");
        let serving = async move { watched.wait_for(|call| *call == ends_when).await.is_ok() };
        let log = RefCell::new(Vec::new());
        let note = |call| {
            log.borrow_mut().push(call);
            called.send_replace(call);
        };
        let ended = run(
            serving,
            &mut asks,
            timeout,
            || note("drain"),
            || note("stop"),
        )
        .await;
        (log.into_inner(), ended == Some(true))
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_signal_drains_and_the_server_ends_by_itself() {
        assert_eq!(
            calls(&["SIGTERM"], LONG, "drain").await,
            (vec!["drain"], true)
        );
    }

    #[tokio::test]
    async fn a_second_signal_stops_at_once() {
        assert_eq!(
            calls(&["SIGINT", "SIGINT"], LONG, "stop").await,
            (vec!["drain", "stop"], true)
        );
    }

    #[tokio::test]
    async fn the_deadline_stops_streams_that_never_end() {
        assert_eq!(
            calls(&["SIGTERM"], Duration::ZERO, "stop").await,
            (vec!["drain", "stop"], true)
        );
    }

    #[tokio::test]
    async fn a_server_that_ends_by_itself_needs_no_signal() {
        let (_send, mut asks) = unbounded_channel();
        let ended = run(
            ready(7),
            &mut asks,
            LONG,
            || panic!("drained"),
            || panic!("stopped"),
        )
        .await;
        assert_eq!(ended, Some(7));
    }
}
