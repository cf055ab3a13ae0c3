//! Which rows are open without a credential on the public door, and to whom: for routers and scrapers that probe the
//! port that they send requests to, and have no token.

use std::net::IpAddr;

use axum::http::request::Parts;
use ipnet::IpNet;

use super::peer::{Door, Peer};
use super::proxies::{is_forwarded, is_in};
use super::{Access, Doors, ROUTES, Route, literal_row};

/// Rows that some addresses may ask for without a credential. By default there are none but the public probes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenRoutes {
    routes: Vec<&'static str>,
    from: Vec<IpNet>,
}

/// Why rows cannot be opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// A path that has no row, or whose row always asks for a credential.
    #[error("{path:?} cannot be opened; these can: {}", openable().join(", "))]
    NotOpenable {
        /// As configured.
        path: String,
    },
    /// A range that half the world shares.
    #[error("{network} is a wide range of public addresses, and {path} is more than a probe")]
    TooWide {
        /// As configured.
        network: IpNet,
        /// One of the routes.
        path: &'static str,
    },
    /// One list without the other.
    #[error("`routes` and `from` must both name something")]
    Empty,
}

impl OpenError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotOpenable { .. } => "everything else needs a token, whoever asks",
            Self::TooWide { .. } => {
                "name the machines that probe, or at most a /16 (/32 of IPv6); private ranges may be as wide as they are"
            }
            Self::Empty => {
                "leave [public.open] out, or give both: which paths, and the addresses that need no token for them"
            }
        }
    }
}

impl OpenRoutes {
    /// Opens `routes` to the addresses `from`.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn new(routes: &[String], from: Vec<IpNet>) -> Result<Self, OpenError> {
        if routes.is_empty() || from.is_empty() {
            return Err(OpenError::Empty);
        }
        let rows = routes.iter().map(|path| {
            let row = ROUTES
                .iter()
                .find(|row| row.path == path && can_be_open(row));
            row.ok_or_else(|| OpenError::NotOpenable { path: path.clone() })
        });
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        if let Some(row) = rows.iter().find(|row| row.access != Access::Public)
            && let Some(network) = from.iter().find(|network| is_too_wide(network))
        {
            return Err(OpenError::TooWide {
                network: *network,
                path: row.path,
            });
        }
        Ok(Self {
            routes: rows.iter().map(|row| row.path).collect(),
            from,
        })
    }

    /// The row that answers this request without asking who calls, if one does.
    pub(super) fn row(
        &self,
        peer: &Peer,
        request: &Parts,
        trusted: &[IpNet],
    ) -> Option<&'static Route> {
        let row = literal_row(&request.method, request.uri.path())?;
        let open = match (row.access, peer.door, row.doors) {
            (Access::Public, door, doors) => doors.has(door, false),
            (_, Door::Internal, Doors::OpenInside) => true,
            (_, Door::Public, Doors::OpenInside) => {
                self.routes.contains(&row.path) && self.is_exempt(peer, request, trusted)
            }
            _ => false,
        };
        open.then_some(row)
    }

    /// The machine itself must be on the list. A request that it passes on for another is not its own, so that a proxy
    /// that probes us opens nothing for those behind it.
    fn is_exempt(&self, peer: &Peer, request: &Parts, trusted: &[IpNet]) -> bool {
        let own = !is_forwarded(&request.headers) || is_in(peer.socket, trusted);
        own && is_in(peer.socket, &self.from) && is_in(peer.address, &self.from)
    }
}

/// Rows that read and do not generate, and have one literal path.
fn can_be_open(row: &Route) -> bool {
    row.doors == Doors::OpenInside && row.method == "GET"
}

fn openable() -> Vec<&'static str> {
    let rows = ROUTES.iter().filter(|row| can_be_open(row));
    rows.map(|row| row.path).collect()
}

fn is_too_wide(network: &IpNet) -> bool {
    let (prefix, least) = match network.network() {
        IpAddr::V4(_) => (network.prefix_len(), 16),
        IpAddr::V6(_) => (network.prefix_len(), 32),
    };
    let private = PRIVATE.iter().any(|range| {
        range
            .parse::<IpNet>()
            .is_ok_and(|range| range.contains(network))
    });
    prefix < least && !private
}

/// Ranges that no stranger on the internet has an address in.
const PRIVATE: [&str; 7] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
    "fe80::/10",
];

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn open(routes: &[&str], from: &[&str]) -> Result<OpenRoutes, OpenError> {
        let routes: Vec<String> = routes.iter().map(|&path| path.to_owned()).collect();
        OpenRoutes::new(&routes, nets(from))
    }

    #[test]
    fn generation_and_unknown_paths_can_never_be_opened() {
        for path in [
            "/v1/chat/completions",
            "/v1/models/{*id}",
            "/",
            "/metrics/",
            "*",
            "/nothing",
        ] {
            let error = open(&["/health", path], &["10.0.0.0/24"]).unwrap_err();
            assert!(matches!(error, OpenError::NotOpenable { .. }), "{path}");
            assert_eq!(
                error.to_string(),
                format!(
                    "{path:?} cannot be opened; these can: /livez, /readyz, /health, /v1/models, /version, /metrics"
                )
            );
        }
    }

    #[test]
    fn a_wide_public_range_opens_probes_only() {
        for wide in ["0.0.0.0/0", "::/0", "8.0.0.0/8", "2001::/16", "172.0.0.0/8"] {
            assert_eq!(
                open(&["/readyz", "/metrics"], &["10.0.0.1/32", wide]),
                Err(OpenError::TooWide {
                    network: wide.parse().unwrap(),
                    path: "/metrics"
                })
            );
            assert!(open(&["/readyz", "/health"], &[wide]).is_ok(), "{wide}");
        }
        for fine in [
            "10.0.0.0/8",
            "192.168.0.0/16",
            "fd00::/8",
            "203.0.113.0/24",
            "2001:db8::/32",
        ] {
            assert!(open(&["/metrics"], &[fine]).is_ok(), "{fine}");
        }
        assert_eq!(open(&[], &["10.0.0.0/8"]), Err(OpenError::Empty));
        assert_eq!(open(&["/health"], &[]), Err(OpenError::Empty));
    }

    /// The path of the row that answers without a credential.
    fn answers(
        socket: &str,
        door: Door,
        line: &str,
        headers: &[(&str, &str)],
    ) -> Option<&'static str> {
        let trusted = nets(&["10.0.0.2/32"]);
        let open = open(&["/metrics", "/v1/models"], &["10.0.0.0/24"]).unwrap();
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap().into_parts().0;
        let peer = Peer::new(socket.parse().unwrap(), door).of_request(&request.headers, &trusted);
        open.row(&peer, &request, &trusted).map(|row| row.path)
    }

    #[test]
    fn listed_rows_are_open_to_listed_sockets_alone() {
        let public = |socket: &str, line: &str| answers(socket, Door::Public, line, &[]);
        assert_eq!(public("10.0.0.9", "GET /metrics"), Some("/metrics"));
        assert_eq!(public("10.0.0.9", "HEAD /metrics"), Some("/metrics"));
        assert_eq!(
            public("::ffff:10.0.0.9", "GET /v1/models"),
            Some("/v1/models")
        );
        for (socket, line) in [
            ("10.0.1.9", "GET /metrics"),
            ("203.0.113.1", "GET /metrics"),
            ("10.0.0.9", "POST /metrics"),
            ("10.0.0.9", "GET /metrics/"),
            ("10.0.0.9", "GET /METRICS"),
            ("10.0.0.9", "GET //metrics"),
            ("10.0.0.9", "GET /v1/models/x"),
            ("10.0.0.9", "GET /version"),
            ("10.0.0.9", "POST /v1/chat/completions"),
        ] {
            assert_eq!(public(socket, line), None, "{socket} {line}");
        }
        assert_eq!(public("203.0.113.1", "GET /readyz"), Some("/readyz"));
    }

    #[test]
    fn what_a_listed_machine_passes_on_for_others_is_not_open() {
        let via =
            |socket, name, value| answers(socket, Door::Public, "GET /metrics", &[(name, value)]);
        // Not trusted, so nobody knows for whom it asks.
        assert_eq!(via("10.0.0.9", "x-forwarded-for", "10.0.0.8"), None);
        assert_eq!(via("10.0.0.9", "forwarded", "for=10.0.0.8"), None);
        // Trusted, and asking for a stranger.
        assert_eq!(via("10.0.0.2", "x-forwarded-for", "203.0.113.1"), None);
        assert_eq!(
            via("10.0.0.2", "x-forwarded-for", "10.0.0.8"),
            Some("/metrics")
        );
        // A stranger who claims to be on the list.
        assert_eq!(via("203.0.113.1", "x-forwarded-for", "10.0.0.8"), None);
    }

    #[test]
    fn the_internal_door_opens_probes_and_metrics_to_whoever_reaches_it() {
        let inside = |line: &str| answers("203.0.113.1", Door::Internal, line, &[]);
        for path in [
            "/livez",
            "/readyz",
            "/health",
            "/metrics",
            "/version",
            "/v1/models",
        ] {
            assert_eq!(inside(&format!("GET {path}")), Some(path));
        }
        assert_eq!(inside("POST /v1/chat/completions"), None);
        assert_eq!(inside("GET /v1/models/x"), None);
    }
}
