//! Lets connections in: one door with its places, its crowd and its TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::connection::serve;
use super::crowd::Crowd;
use super::patience::Patient;
use super::tls::Tls;
use crate::server::app::Shared;
use crate::server::peer::{Door, Peer};
use crate::server::router;

/// A door that listens.
pub(super) struct Entrance {
    pub(super) door: Door,
    pub(super) listener: TcpListener,
    /// Where it listens, with the real port.
    pub(super) address: SocketAddr,
    /// `None`: plain text.
    pub(super) tls: Option<Arc<Tls>>,
}

impl Entrance {
    /// Lets connections in for ever.
    pub(super) async fn accept(
        &self,
        shared: &Arc<Shared>,
        stopped: &watch::Receiver<bool>,
        connections: &mut JoinSet<()>,
    ) {
        let router = router(shared, self.door);
        let config = &shared.config;
        let (places, most) = match self.door {
            Door::Public => (config.max_connections, config.max_connections_per_address),
            Door::Internal => (INTERNAL_CONNECTIONS, INTERNAL_CONNECTIONS),
        };
        let places = Arc::new(Semaphore::new(places));
        let crowd = Crowd::new(most, config.trusted_proxies.clone());
        loop {
            // Only once there is room: until then peers wait in the backlog, which costs them nothing here.
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let (socket, peer, seat) = loop {
                let (socket, address) = self.next(connections).await;
                let peer = Peer::new(address.ip(), self.door);
                match crowd.enter(peer.socket) {
                    Some(seat) => break (socket, peer, seat),
                    None => {
                        shared.metrics.transport.turned_away();
                        tracing::debug!(address = %peer.socket, "an address has all connections that it may have");
                    }
                }
            };
            let (router, shared, stopped) = (router.clone(), shared.clone(), stopped.clone());
            let tls = self.tls.clone();
            connections.spawn(async move {
                let _held = (place, seat, shared.metrics.transport.connected(peer.door));
                welcome(socket, peer, tls, router, shared, stopped).await;
            });
        }
    }

    async fn next(&self, connections: &mut JoinSet<()>) -> (TcpStream, SocketAddr) {
        loop {
            tokio::select! {
                Some(_ended) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => return accepted,
                    // Out of file descriptors, or the peer has gone already. The pause keeps the first from spinning.
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
    }
}

/// A connection's first bytes are its TLS handshake, where there is one. It runs here and not in the accept loop: who
/// is slow at it delays nobody else.
async fn welcome(
    socket: TcpStream,
    peer: Peer,
    tls: Option<Arc<Tls>>,
    router: Router,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    // Tokens are small and should leave at once. A failure only costs time.
    let _ = socket.set_nodelay(true);
    let socket = Patient::new(socket, shared.config.write_timeout);
    let Some(tls) = tls else {
        return serve(socket, peer, router, shared, stopped).await;
    };
    let shaken = tokio::select! {
        shaken = tls.handshake(socket) => shaken,
        _ = stopped.wait_for(|stopped| *stopped) => return,
    };
    match shaken {
        Ok(Some((stream, certificate))) => {
            let peer = Peer {
                certificate,
                ..peer
            };
            Box::pin(serve(stream, peer, router, shared, stopped)).await;
        }
        // An authority has asked whether this name is ours, and has its answer.
        Ok(None) => {}
        Err(error) => {
            shared.metrics.transport.handshake_failed();
            tracing::debug!(address = %peer.socket, %error, "a TLS handshake failed");
        }
    }
}

/// Places behind the internal door, on top of the public ones: a crowd outside must not keep probes out.
const INTERNAL_CONNECTIONS: usize = 256;
