//! Who is at the other end of a connection, and through which door they came.

use std::net::IpAddr;
use std::sync::Arc;

/// The other end of the connection that a request came on; in the request's extensions.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// The socket's own, IPv4 even if mapped into IPv6.
    pub(super) address: IpAddr,
    /// Which listener accepted it.
    #[allow(dead_code)]
    pub(super) door: Door,
    /// The DER of the client certificate that TLS has verified.
    pub(super) certificate: Option<Arc<[u8]>>,
}

/// A listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)] // until there is a second listener
pub(super) enum Door {
    /// For callers: everything needs a credential.
    Public,
    /// For the operator's own machines: probes and metrics are open there.
    Internal,
}
