//! Names for requests and completions, and when a request arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::http::{HeaderMap, HeaderName};

/// Read from requests, set on every response.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// One request's name and arrival; in its extensions.
#[derive(Clone)]
pub(super) struct Arrival {
    pub(super) id: Arc<str>,
    pub(super) at: Instant,
    /// Set once somebody has taken over writing this request's log line.
    logged: Arc<AtomicBool>,
}

impl Arrival {
    /// Keeps the caller's `x-request-id` if it is harmless in a header and a log line; draws one otherwise.
    pub(super) fn new(headers: &HeaderMap) -> Self {
        let sent = headers
            .get(X_REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(|id| is_sane(id));
        let id = sent.map_or_else(|| random_id("req-"), str::to_owned).into();
        Self {
            id,
            at: Instant::now(),
            logged: Arc::default(),
        }
    }

    /// From now on the caller writes the log line.
    pub(super) fn take_log_line(&self) {
        self.logged.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::take_log_line`] was called.
    pub(super) fn log_line_taken(&self) -> bool {
        self.logged.load(Ordering::Relaxed)
    }
}

/// `prefix` and 128 random bits.
pub(super) fn random_id(prefix: &str) -> String {
    let mut bits = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bits)
        .expect("the random source works once the process runs. This is a bug.");
    format!("{prefix}{:032x}", u128::from_be_bytes(bits))
}

fn is_sane(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn id_for(sent: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(sent).unwrap());
        Arrival::new(&headers).id.to_string()
    }

    #[test]
    fn a_sane_request_id_is_kept() {
        assert_eq!(id_for(b"Trace-1.a_B"), "Trace-1.a_B");
        assert_eq!(id_for(&[b'a'; 128]), "a".repeat(128));
    }

    #[test]
    fn an_odd_request_id_is_replaced() {
        for odd in [&b""[..], b"a b", b"a\tb", b"{}", b"\xff", &[b'a'; 129]] {
            let id = id_for(odd);
            assert!(
                id.starts_with("req-") && id.len() == 36,
                "{odd:?} became {id}"
            );
        }
    }

    #[test]
    fn drawn_ids_differ() {
        assert_ne!(random_id("x"), random_id("x"));
    }
}
