//! A response's body on its way out: it counts as in flight until it ends, and is dropped when its client no longer
//! takes it.
//!
//! A client can read its connection and yet leave one HTTP/2 stream lying, by never opening its window. The socket
//! shows nothing of that; here it shows as a body that nobody asks for its next part.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::server::in_flight::InFlightGuard;

/// A body that is watched over.
pub(super) struct Reply {
    state: Arc<Mutex<State>>,
    /// Tells the watcher, by being dropped, that there is nothing left to watch.
    _open: Option<oneshot::Sender<()>>,
}

struct State {
    /// Taken away once it has ended or was given up. Dropping a stream ends its sequence.
    running: Option<(Body, InFlightGuard)>,
    was_given_up: bool,
    /// When the client was given the last part, if it has not asked for the next one since.
    handed_over: Option<Instant>,
}

impl Reply {
    /// Watches `body`. One that comes piece by piece is given up once a piece has lain for `patience`.
    pub(super) fn new(body: Body, open: InFlightGuard, patience: Duration) -> Self {
        let is_stream = body.size_hint().exact().is_none();
        let state = Arc::new(Mutex::new(State {
            running: Some((body, open)),
            was_given_up: false,
            handed_over: None,
        }));
        let open = is_stream.then(|| {
            let (open, closed) = oneshot::channel();
            tokio::spawn(watch(state.clone(), closed, patience));
            open
        });
        Self { state, _open: open }
    }
}

/// Ends when the reply does.
async fn watch(state: Arc<Mutex<State>>, mut closed: oneshot::Receiver<()>, patience: Duration) {
    loop {
        // Whoever is asked for the next part later than now has until then at least.
        let since = lock(&state).handed_over.unwrap_or_else(Instant::now);
        tokio::select! {
            _ = &mut closed => return,
            () = sleep_until(since + patience) => {}
        }
        let abandoned = {
            let mut state = lock(&state);
            let lies = state.handed_over.is_some_and(|at| at.elapsed() >= patience);
            state.was_given_up |= lies;
            if lies { state.running.take() } else { None }
        };
        if abandoned.is_some() {
            tracing::info!("a client has stopped reading its stream; it is ended");
            return;
        }
    }
}

/// A panic while the lock was held was a handler's; the body is dropped with it.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut state = lock(&self.state);
        if state.was_given_up {
            return Poll::Ready(Some(Err(axum::Error::new(GivenUp))));
        }
        let Some((body, _)) = &mut state.running else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(context);
        state.handed_over = None;
        match ready!(polled) {
            Some(frame) => {
                state.handed_over = Some(Instant::now());
                Poll::Ready(Some(frame))
            }
            None => {
                state.running = None;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = lock(&self.state);
        let ended = |(body, _): &(Body, InFlightGuard)| body.is_end_stream();
        !state.was_given_up && state.running.as_ref().is_none_or(ended)
    }

    fn size_hint(&self) -> SizeHint {
        match &lock(&self.state).running {
            Some((body, _)) => body.size_hint(),
            None => SizeHint::default(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the client stopped reading")]
struct GivenUp;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{FutureExt, StreamExt, stream};
    use http_body_util::BodyExt;
    use tokio::time::sleep;

    use super::*;
    use crate::server::in_flight::InFlight;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A stream of parts, `pause` apart.
    fn parts(pause: Duration) -> Body {
        Body::from_stream(stream::repeat("part").then(move |part| async move {
            sleep(pause).await;
            Ok::<_, Infallible>(part)
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_left_lying_is_dropped() {
        let open = InFlight::default();
        let began = Instant::now();
        let mut reply = Reply::new(parts(Duration::ZERO), open.enter(), MINUTE);
        reply.frame().await.unwrap().unwrap();
        open.empty().await;
        let waited = began.elapsed();
        assert!((MINUTE..2 * MINUTE).contains(&waited), "{waited:?}");
        let error = reply.frame().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the client stopped reading");
        assert!(!reply.is_end_stream(), "it must not look complete");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_stream_that_is_read_goes_on() {
        let open = InFlight::default();
        let mut reply = Reply::new(parts(MINUTE * 5), open.enter(), MINUTE);
        for _ in 0..3 {
            reply.frame().await.unwrap().unwrap();
            sleep(MINUTE - Duration::from_secs(1)).await;
        }
        assert!(open.empty().now_or_never().is_none());
        drop(reply);
        open.empty().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_nobody_has_begun_to_read_waits() {
        // The head of the response may take its time on a slow line; the socket's own patience covers that.
        let open = InFlight::default();
        let reply = Reply::new(parts(Duration::ZERO), open.enter(), MINUTE);
        sleep(MINUTE * 10).await;
        assert!(open.empty().now_or_never().is_none());
        drop(reply);
    }

    #[tokio::test]
    async fn a_body_of_known_size_ends_as_it_is() {
        let open = InFlight::default();
        let reply = Reply::new(Body::from("whole"), open.enter(), MINUTE);
        assert_eq!(reply.size_hint().exact(), Some(5));
        let bytes = reply.collect().await.unwrap().to_bytes();
        assert_eq!(bytes, "whole");
        assert!(open.empty().now_or_never().is_some());
    }
}
