//! Accepts connections, serves them, and ends them in good order.

mod accept;
mod connection;
mod crowd;
mod patience;
mod reply;
mod tls;

use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::app::{App, ServerConfig, Shared};
use super::peer::Door;
use accept::Entrance;
use connection::FAREWELL;
use tls::Tls;

pub use tls::{CertificateSource, ClientCertificates, TlsConfig, TlsError};

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
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl ServerError {
    /// The next step, for the last line of the message.
    pub fn hint(&self) -> Option<&'static str> {
        let source = match self {
            Self::Bind { source, .. } => source,
            Self::Tls(error) => return error.hint(),
        };
        Some(match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has this port; choose one with --port, or 0 for any"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need privileges; choose a higher one with --port"
            }
            _ => "--host takes an address of this machine",
        })
    }
}

/// A server that listens; [`Server::run`] serves.
pub struct Server {
    public: Entrance,
    internal: Option<Entrance>,
    shared: Arc<Shared>,
}

impl Server {
    /// Reads the certificate and binds the configured addresses. Connections wait in the backlog until
    /// [`Server::run`].
    ///
    /// # Errors
    /// [`ServerError`]
    pub async fn bind(config: ServerConfig, app: App) -> Result<Self, ServerError> {
        let tls = match &config.tls {
            Some(settings) => Some(Arc::new(Tls::new(settings.clone(), app.clock.clone())?)),
            None => None,
        };
        let wanted = SocketAddr::new(config.host, config.port);
        let public = listen(wanted, Door::Public, tls).await?;
        let internal = match config.internal {
            Some(address) => Some(listen(address, Door::Internal, None).await?),
            None => None,
        };
        let shared = Arc::new(Shared::new(config, app));
        if let Some(tls) = &public.tls {
            shared.metrics.transport.certificate(tls.expires());
        }
        Ok(Self {
            public,
            internal,
            shared,
        })
    }

    /// Where it listens for callers, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.public.address
    }

    /// Where it listens for the operator's own machines, with the real port, if it does.
    pub fn internal_address(&self) -> Option<SocketAddr> {
        self.internal.as_ref().map(|entrance| entrance.address)
    }

    /// Whether callers speak TLS.
    pub fn is_tls(&self) -> bool {
        self.public.tls.is_some()
    }

    /// A means to have the certificates read anew.
    pub fn certificates(&self) -> Certificates {
        Certificates {
            tls: self.public.tls.clone(),
            shared: self.shared.clone(),
        }
    }

    /// Serves until `shutdown` completes, then ends in good order: `/readyz` says 503 and new generations are refused
    /// at once; running ones go on until they end or `shutdown_timeout` has passed, and then end with an error;
    /// probes are answered to the last. Returns once the engine has stopped.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        self.shared.app.gate.start();
        let (stop, stopped) = watch::channel(false);
        let mut connections = [JoinSet::new(), JoinSet::new()];
        {
            let [public, internal] = &mut connections;
            let mut accepting = pin!(async {
                tokio::join!(
                    self.public.accept(&self.shared, &stopped, public),
                    async {
                        match &self.internal {
                            Some(door) => door.accept(&self.shared, &stopped, internal).await,
                            None => pending().await,
                        }
                    },
                    renew(&self.public),
                );
            });
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
        let _ = spawn_blocking(move || engine.shutdown()).await;
        // Nobody listens if no connection is left.
        let _ = stop.send(true);
        let _ = timeout(FAREWELL, async {
            for door in &mut connections {
                while door.join_next().await.is_some() {}
            }
        })
        .await;
        for door in &mut connections {
            door.shutdown().await;
        }
        tracing::info!("stopped");
    }
}

/// Reads certificates anew, on a signal or when their files have changed.
#[derive(Clone)]
pub struct Certificates {
    tls: Option<Arc<Tls>>,
    shared: Arc<Shared>,
}

impl Certificates {
    /// Puts the files as they are now in force for the handshakes to come, all or none. Bad files change nothing; log
    /// and metric say so. Without TLS this does nothing.
    pub async fn reload(&self) {
        let Some(tls) = self.tls.clone() else {
            return;
        };
        let reading = tls.clone();
        let Ok(outcome) = spawn_blocking(move || reading.reload()).await else {
            return;
        };
        let transport = &self.shared.metrics.transport;
        transport.reloaded(outcome.is_ok());
        match outcome {
            Ok(()) => {
                transport.certificate(tls.expires());
                tracing::info!("the certificates were read anew");
            }
            Err(error) => tracing::error!(
                %error,
                hint = error.hint(),
                "the new certificates are not used; the old ones stay in force"
            ),
        }
    }

    /// The files to watch; empty without TLS.
    pub fn files(&self) -> Vec<std::path::PathBuf> {
        self.tls.as_ref().map(|tls| tls.files()).unwrap_or_default()
    }
}

async fn listen(
    wanted: SocketAddr,
    door: Door,
    tls: Option<Arc<Tls>>,
) -> Result<Entrance, ServerError> {
    let bound = TcpListener::bind(wanted).await;
    match bound.and_then(|listener| Ok((listener.local_addr()?, listener))) {
        Ok((address, listener)) => Ok(Entrance {
            door,
            listener,
            address,
            tls,
        }),
        Err(source) => Err(ServerError::Bind {
            address: wanted,
            source,
        }),
    }
}

/// Never returns.
async fn renew(door: &Entrance) {
    if let Some(tls) = &door.tls {
        tls.renew().await;
    }
    pending().await
}
