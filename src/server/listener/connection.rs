//! One connection from its first byte to its last.
//!
//! What a silent, slow or hostile peer can hold is bounded here: header size and time, HTTP/2 streams and their
//! buffers, the time that a reply may lie.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::reply::Reply;
use crate::server::app::Shared;
use crate::server::front;
use crate::server::in_flight::InFlight;
use crate::server::peer::Peer;

/// Serves one connection until the peer closes it, breaks the rules, or the server stops.
pub(super) async fn serve(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
    router: Router,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let (header_timeout, write_timeout) =
        (shared.config.header_timeout, shared.config.write_timeout);
    let open = Arc::new(InFlight::default());
    let service = {
        let open = open.clone();
        service_fn(move |request: Request<Incoming>| {
            let guard = open.enter();
            let (shared, router, peer) = (shared.clone(), router.clone(), peer.clone());
            async move {
                let response: Response<Body> =
                    front::answer(&shared, router, peer, request.map(Body::new)).await;
                // The request is open until the last byte of its response is on its way.
                Ok::<_, Infallible>(response.map(|body| Reply::new(body, guard, write_timeout)))
            }
        })
    };
    let builder = protocols(header_timeout);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    {
        // hyper's own timer needs first bytes and knows HTTP/1 only; this one ends any peer that asks for nothing.
        let mut idle = pin!(open.idle(header_timeout));
        tokio::select! {
            // An error is the peer's doing and there is nobody left to tell.
            _ended = &mut connection => return,
            () = &mut idle => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ended = &mut connection => {}
        // A request may have come in at the last moment: it is answered before its connection ends.
        () = open.idle(FAREWELL) => {}
    }
}

fn protocols(header_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .max_send_buf_size(MAX_UNSENT_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        // Streams that are opened and reset at once cost their sender nothing: such a peer is cut off (CVE-2023-44487).
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_STREAM_ERRORS)
        // A peer that does not answer a ping is gone.
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// Room for a 16 KiB token, tracing headers and cookies.
const MAX_HEADER_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
/// HTTP/2 streams per connection.
const MAX_STREAMS: u32 = 128;
/// What is kept of one stream's response until its client takes it: some hundred events.
const MAX_UNSENT_BYTES: usize = 64 << 10;
/// What a client may send of one body before we have read it, and of all bodies of a connection.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Streams that were reset before we had looked at them.
const MAX_RESETS: usize = 20;
/// Streams that we reset because the peer broke the protocol.
const MAX_STREAM_ERRORS: usize = 128;
/// How long connections have for their last bytes once they are to end.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
