//! Why a run cannot be made, and why one request of a run has failed.

use std::fmt;
use std::io;

use super::chunk::ErrorBody;

/// Why a run cannot be made. Never holds a token or a prompt.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The URL is none, or none that can be used.
    #[error("the URL {url:?} cannot be used: {why}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A token that cannot stand in a header.
    #[error(
        "the token from {origin} is no token: it holds a line break or another byte that no header may hold"
    )]
    Token {
        /// Where the token came from.
        origin: String,
    },
    /// No address for the host.
    #[error("no address is known for {host:?}")]
    Resolve {
        /// The host of the URL.
        host: String,
        /// The operating system's reason.
        #[source]
        source: Option<io::Error>,
    },
    /// TLS without anything to trust.
    #[error("this machine has no certificate authorities to judge https servers by")]
    Roots,
    /// The first request failed.
    #[error("{address}: {failure}")]
    Unusable {
        /// Where the request went.
        address: String,
        /// Where the token came from; `None` if none was given.
        origin: Option<String>,
        /// What happened.
        failure: RequestFailure,
    },
    /// The server does not say which models it has.
    #[error("{address} does not say which model it serves")]
    NoModel {
        /// Where the question went.
        address: String,
    },
}

impl BenchError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        let failure = match self {
            Self::Url { .. } => return Some("such as http://127.0.0.1:8000".to_owned()),
            Self::Roots => {
                return Some("install ca-certificates, or set SSL_CERT_FILE".to_owned());
            }
            Self::NoModel { .. } => return Some("name it with --model".to_owned()),
            Self::Token { .. } | Self::Resolve { .. } => return None,
            Self::Unusable { failure, .. } => failure,
        };
        let Self::Unusable { origin, .. } = self else {
            return None;
        };
        match failure {
            RequestFailure::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Some("nothing listens there: is the server running? (mixgate serve)".to_owned())
            }
            RequestFailure::Status { status: 401, .. } => Some(match origin {
                Some(origin) => format!(
                    "the token from {origin} was refused; `mixgate token verify` says why, `mixgate token mint` makes one"
                ),
                None => "no token was given: --token-file FILE or MIXGATE_BENCH_TOKEN".to_owned(),
            }),
            RequestFailure::Status { status: 403, .. } => {
                let origin = origin.as_deref().unwrap_or("nowhere");
                Some(format!("the token from {origin} does not allow this"))
            }
            RequestFailure::Status { status: 404, .. } => {
                Some("check --model and --endpoint".to_owned())
            }
            _ => None,
        }
    }
}

/// Why one request has failed.
#[derive(Debug)]
pub enum RequestFailure {
    /// No connection.
    Connect(io::Error),
    /// No TLS, or no HTTP, on the connection.
    Handshake(String),
    /// An answer that is not 200.
    Status {
        /// Such as 503.
        status: u16,
        /// The error's code, as the server spells it; may be empty.
        code: String,
        /// The server's words, shortened; may be empty.
        message: String,
    },
    /// The connection ended, or broke the rules of HTTP, before the answer did.
    Broken(String),
    /// An error object in the stream.
    InStream {
        /// The error's code, as the server spells it; may be empty.
        code: String,
        /// The server's words, shortened; may be empty.
        message: String,
    },
    /// Something in the stream that is not JSON.
    Garbled,
    /// The stream ended, in good order, but neither with a reason nor with `[DONE]`.
    Unfinished,
    /// The answer has ended without a single chunk.
    Empty,
    /// It took too long.
    TimedOut,
}

impl RequestFailure {
    /// What failures of the same kind are counted under.
    pub fn kind(&self) -> String {
        match self {
            Self::Connect(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                _ if error.raw_os_error() == Some(TOO_MANY_FILES) => {
                    "too many open files: raise the limit (ulimit -n)".to_owned()
                }
                kind => format!("no connection: {kind}"),
            },
            Self::Handshake(_) => "no TLS or HTTP".to_owned(),
            Self::Status { status, code, .. } if code.is_empty() => format!("HTTP {status}"),
            Self::Status { status, code, .. } => format!("HTTP {status} {code}"),
            Self::Broken(_) => "broken connection".to_owned(),
            Self::InStream { code, .. } if code.is_empty() => "error in the stream".to_owned(),
            Self::InStream { code, .. } => format!("error in the stream: {code}"),
            Self::Garbled => "no JSON in the stream".to_owned(),
            Self::Unfinished => "unfinished stream".to_owned(),
            Self::Empty => "empty stream".to_owned(),
            Self::TimedOut => "timed out".to_owned(),
        }
    }

    pub(super) fn status(status: u16, body: ErrorBody) -> Self {
        Self::Status {
            status,
            code: body.code,
            message: body.message,
        }
    }

    pub(super) fn in_stream(body: ErrorBody) -> Self {
        Self::InStream {
            code: body.code,
            message: body.message,
        }
    }
}

impl fmt::Display for RequestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind())?;
        match self {
            Self::Connect(error) if error.kind() != io::ErrorKind::ConnectionRefused => {
                write!(f, " ({error})")
            }
            Self::Handshake(detail) | Self::Broken(detail) => write!(f, " ({detail})"),
            Self::Status { message, .. } | Self::InStream { message, .. }
                if !message.is_empty() =>
            {
                write!(f, ": {message}")
            }
            _ => Ok(()),
        }
    }
}

/// `EMFILE`, which the standard library has no kind for.
const TOO_MANY_FILES: i32 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn unusable(failure: RequestFailure, origin: Option<&str>) -> BenchError {
        BenchError::Unusable {
            address: "http://127.0.0.1:8000".to_owned(),
            origin: origin.map(str::to_owned),
            failure,
        }
    }

    fn status(status: u16) -> RequestFailure {
        RequestFailure::Status {
            status,
            code: "c".to_owned(),
            message: "m".to_owned(),
        }
    }

    #[test]
    fn a_refused_token_is_traced_to_where_it_came_from() {
        let hint = unusable(status(401), Some("token.txt")).hint().unwrap();
        assert!(hint.contains("the token from token.txt"), "{hint}");
        let hint = unusable(status(401), None).hint().unwrap();
        assert!(hint.contains("no token was given"), "{hint}");
    }

    #[test]
    fn a_refused_connection_asks_whether_the_server_runs() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = unusable(RequestFailure::Connect(refused), None);
        assert_eq!(
            error.to_string(),
            "http://127.0.0.1:8000: connection refused"
        );
        assert!(error.hint().unwrap().contains("running"));
    }

    #[test]
    fn kinds_leave_out_what_differs_from_request_to_request() {
        assert_eq!(status(503).kind(), "HTTP 503 c");
        assert_eq!(status(503).to_string(), "HTTP 503 c: m");
        assert_eq!(
            RequestFailure::Broken("os error 104".to_owned()).kind(),
            "broken connection"
        );
    }
}
