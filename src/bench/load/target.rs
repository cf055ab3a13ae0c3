//! Where requests go, and what every request carries in its head.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::Uri;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, USER_AGENT,
};
use tokio::net::lookup_host;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::BenchError;
use crate::telemetry::Secret;

/// A bearer token and where it came from.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token, without `Bearer`.
    pub text: Secret<String>,
    /// A file's name or a variable's, for messages.
    pub origin: String,
}

/// A server's address, resolved once.
#[derive(Clone)]
pub struct Target {
    /// Scheme, host and port, for people.
    pub shown: String,
    /// The path alone: what a request line holds.
    pub(super) uri: Uri,
    pub(super) token_origin: Option<String>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) headers: HeaderMap,
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// Understands `url` and finds the host's addresses. `endpoint` is appended to the URL's own path; a `/v1` that is
    /// in both is there once.
    ///
    /// # Errors
    /// [`BenchError`], naming the part that cannot be used.
    pub async fn new(url: &str, endpoint: &str, token: Option<&Token>) -> Result<Self, BenchError> {
        let wrong = |why| BenchError::Url {
            url: without_user(url),
            why,
        };
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it holds a user name; give a token instead"));
        }
        if uri.query().is_some() {
            return Err(wrong("it holds a query"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority
            .port_u16()
            .unwrap_or(if is_tls { 443 } else { 80 });
        let (addresses, reason) = match lookup_host((host.as_str(), port)).await {
            Ok(found) => (found.collect::<Vec<_>>(), None),
            Err(error) => (Vec::new(), Some(error)),
        };
        if addresses.is_empty() {
            return Err(BenchError::Resolve {
                host,
                source: reason,
            });
        }
        let tls = if is_tls {
            let name = ServerName::try_from(host)
                .map_err(|_| wrong("its host is no name that a certificate could have"))?;
            Some((connector()?, name))
        } else {
            None
        };
        let uri = join(uri.path(), endpoint)
            .parse()
            .map_err(|_| wrong("it makes no path together with the endpoint"))?;
        Ok(Self {
            shown: format!("{}://{authority}", if is_tls { "https" } else { "http" }),
            uri,
            token_origin: token.map(|token| token.origin.clone()),
            addresses,
            headers: headers(authority.as_str(), token).map_err(|()| BenchError::Token {
                origin: token.map_or_else(String::new, |token| token.origin.clone()),
            })?,
            tls,
        })
    }

    /// Where requests are sent to, without the server.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The same server, asked at another path.
    pub(super) fn at(&self, uri: Uri) -> Self {
        Self {
            uri,
            ..self.clone()
        }
    }
}

/// A URL without what stands before an `@`, which may be a password.
fn without_user(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => url.to_owned(),
    }
}

/// One path of two, without doubling slashes or a version that both name.
fn join(base: &str, endpoint: &str) -> String {
    let base = base.trim_end_matches('/');
    let endpoint = endpoint.trim_start_matches('/');
    let base = match endpoint.split_once('/') {
        Some((first, _)) if base.ends_with(&format!("/{first}")) => {
            &base[..base.len() - first.len() - 1]
        }
        _ => base,
    };
    format!("{base}/{endpoint}")
}

fn headers(authority: &str, token: Option<&Token>) -> Result<HeaderMap, ()> {
    let mut headers = HeaderMap::new();
    let host = HeaderValue::from_str(authority).map_err(|_| ())?;
    headers.insert(HOST, host);
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("mixgate-bench/", env!("CARGO_PKG_VERSION"))),
    );
    if let Some(token) = token {
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", token.text.expose())).map_err(|_| ())?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

/// TLS that trusts what the machine trusts.
fn connector() -> Result<TlsConnector, BenchError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(BenchError::Roots);
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc has the ciphers of TLS 1.2 and 1.3. This is a bug.")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_join_without_doubling() {
        for (base, endpoint, wanted) in [
            ("/", "/v1/chat/completions", "/v1/chat/completions"),
            ("/v1", "/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/", "v1/completions", "/v1/completions"),
            ("/openai", "/v1/completions", "/openai/v1/completions"),
            ("/av1", "/v1/completions", "/av1/v1/completions"),
            ("/v1", "chat/completions", "/v1/chat/completions"),
        ] {
            assert_eq!(join(base, endpoint), wanted, "{base} {endpoint}");
        }
    }

    async fn refused(url: &str, token: Option<&Token>) -> BenchError {
        let made = Target::new(url, "/v1/chat/completions", token).await;
        made.map(|target| target.shown).unwrap_err()
    }

    #[tokio::test]
    async fn urls_that_cannot_be_used_say_why() {
        for (url, why) in [
            ("127.0.0.1:8000", "http"),
            ("ftp://127.0.0.1", "http"),
            ("http://me:secret@127.0.0.1", "user name"),
            ("http://127.0.0.1/?a=b", "query"),
            ("http://127.0.0.1:8000/a b", "no URL"),
        ] {
            let error = refused(url, None).await.to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_token_with_a_line_break_is_refused_and_not_shown() {
        let token = Token {
            text: Secret::new("ey.evil\r\nx-admin: 1".to_owned()),
            origin: "t.txt".to_owned(),
        };
        let error = refused("http://127.0.0.1:1", Some(&token)).await;
        let text = format!("{error} {error:?}");
        assert!(text.contains("t.txt") && !text.contains("evil"), "{text}");
    }

    #[tokio::test]
    async fn addresses_and_heads_are_made_once() {
        let token = Token {
            text: Secret::new("abc".to_owned()),
            origin: "t.txt".to_owned(),
        };
        let target = Target::new("http://[::1]:81/v1", "/v1/completions", Some(&token))
            .await
            .unwrap();
        assert_eq!(target.addresses, ["[::1]:81".parse().unwrap()]);
        assert_eq!(target.uri.path(), "/v1/completions");
        assert_eq!(target.headers[HOST], "[::1]:81");
        assert_eq!(target.headers[AUTHORIZATION], "Bearer abc");
        assert!(!format!("{:?}", target.headers).contains("abc"));
    }
}
