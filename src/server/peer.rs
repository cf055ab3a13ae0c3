//! Who is at the other end of a connection, and through which door they came.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use ipnet::IpNet;

use super::proxies;

/// The other end of the connection that a request came on; in the request's extensions.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Where the caller is: the socket's own address, or what a trusted proxy says. IPv4 even if mapped into IPv6.
    pub(super) address: IpAddr,
    /// The socket's own address, IPv4 even if mapped into IPv6: a proxy's, if one stands between.
    pub(super) socket: IpAddr,
    /// Which listener accepted it.
    pub(super) door: Door,
    /// The DER of the client certificate that TLS has verified.
    pub(super) certificate: Option<Arc<[u8]>>,
}

impl Peer {
    /// Somebody who has just connected from `socket`.
    pub(super) fn new(socket: IpAddr, door: Door) -> Self {
        let socket = socket.to_canonical();
        Self {
            address: socket,
            socket,
            door,
            certificate: None,
        }
    }

    /// The same, as one request of theirs shows them: behind proxies, if the socket is a trusted one's.
    pub(super) fn of_request(self, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        Self {
            address: proxies::caller(self.socket, headers, trusted),
            ..self
        }
    }
}

/// A listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// For callers: everything needs a credential.
    Public,
    /// For the operator's own machines: probes and metrics are open there.
    Internal,
}

impl Door {
    /// Its name in logs and metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
        }
    }
}
