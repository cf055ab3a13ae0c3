//! Accepts connections, serves them, and ends them in good order.
//!
//! What a silent or slow peer can hold is bounded here: connections, header size and time, HTTP/2 streams.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::app::{App, ServerConfig, Shared};
use super::in_flight::{InFlight, InFlightGuard};
use super::peer::{Door, Peer};
use super::{front, router};

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

impl ServerError {
    /// The next step, for the last line of the message.
    pub fn hint(&self) -> &'static str {
        let Self::Bind { source, .. } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has this port; choose one with --port, or 0 for any"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need privileges; choose a higher one with --port"
            }
            _ => "--host takes an address of this machine",
        }
    }
}

/// A server that listens; [`Server::run`] serves.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// Binds the configured address. Connections wait in the backlog until [`Server::run`].
    ///
    /// # Errors
    /// [`ServerError::Bind`]
    pub async fn bind(config: ServerConfig, app: App) -> Result<Self, ServerError> {
        let wanted = SocketAddr::new(config.host, config.port);
        let bound = TcpListener::bind(wanted).await;
        match bound.and_then(|listener| Ok((listener.local_addr()?, listener))) {
            Ok((address, listener)) => Ok(Self {
                listener,
                address,
                shared: Arc::new(Shared::new(config, app)),
            }),
            Err(source) => Err(ServerError::Bind {
                address: wanted,
                source,
            }),
        }
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes, then ends in good order: `/readyz` says 503 and new generations are refused
    /// at once; running ones go on until they end or `shutdown_timeout` has passed, and then end with an error;
    /// probes are answered to the last. Returns once the engine has stopped.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let (stop, stopped) = watch::channel(false);
        let acceptor = Acceptor {
            listener: self.listener,
            router: router(&self.shared),
            shared: self.shared.clone(),
            slots: Arc::new(Semaphore::new(self.shared.config.max_connections)),
            stopped,
        };
        let mut connections = JoinSet::new();
        let app = &self.shared.app;
        let following = tokio::spawn(app.gate.follow(app.ledger.clone()));
        {
            let mut accepting = pin!(acceptor.accept(&mut connections));
            tokio::select! {
                () = shutdown => {}
                () = &mut accepting => {}
            }
            self.shared.app.engine.drain();
            let deadline = self.shared.config.shutdown_timeout;
            tracing::info!(
                deadline_s = deadline.as_secs_f32(),
                "shutting down: running requests may finish"
            );
            tokio::select! {
                () = self.shared.in_flight.empty() => {}
                () = sleep(deadline) => tracing::warn!("requests were still running at the deadline; they are ended"),
                () = &mut accepting => {}
            }
        }
        let engine = self.shared.app.engine.clone();
        // It blocks until the engine's thread has ended. Should it panic, there is nothing left to stop.
        let _ = tokio::task::spawn_blocking(move || engine.shutdown()).await;
        following.abort();
        // Nobody listens if no connection is left.
        let _ = stop.send(true);
        let _ = timeout(FAREWELL, async {
            while connections.join_next().await.is_some() {}
        })
        .await;
        connections.shutdown().await;
        tracing::info!("stopped");
    }
}

struct Acceptor {
    listener: TcpListener,
    router: Router,
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Acceptor {
    /// Never returns.
    async fn accept(&self, connections: &mut JoinSet<()>) {
        loop {
            // Only once there is room: until then peers wait in the backlog, which costs them nothing here.
            let Ok(slot) = self.slots.clone().acquire_owned().await else {
                return;
            };
            let (socket, address) = loop {
                tokio::select! {
                    Some(_ended) = connections.join_next() => {}
                    accepted = self.listener.accept() => match accepted {
                        Ok((socket, address)) => break (socket, address.ip().to_canonical()),
                        // Out of file descriptors, or the peer has gone already. The pause keeps the first from
                        // spinning.
                        Err(error) => {
                            tracing::warn!(%error, "a connection could not be accepted");
                            sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
            };
            let (router, shared, stopped) = (
                self.router.clone(),
                self.shared.clone(),
                self.stopped.clone(),
            );
            connections.spawn(async move {
                let peer = Peer {
                    address,
                    door: Door::Public,
                    certificate: None,
                };
                serve(socket, peer, router, shared, stopped).await;
                drop(slot);
            });
        }
    }
}

/// Serves one connection until the peer closes it, breaks the rules, or the server stops.
async fn serve(
    socket: TcpStream,
    peer: Peer,
    router: Router,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    // Tokens are small and should leave at once. A failure only costs time.
    let _ = socket.set_nodelay(true);
    let header_timeout = shared.config.header_timeout;
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
                Ok::<_, Infallible>(response.map(|body| Counted { body, _open: guard }))
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

/// A response's body that counts as in flight until it is dropped.
struct Counted {
    body: Body,
    _open: InFlightGuard,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
/// How long connections have for their last bytes once they are to end.
const FAREWELL: Duration = Duration::from_secs(2);
