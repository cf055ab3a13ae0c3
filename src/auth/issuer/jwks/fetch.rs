//! Fetches a key set over HTTP, bounded in every direction: https, no redirects, no proxies, seconds, kilobytes.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, HeaderMap};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Url};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};

use super::super::source::{Location, fetchable, literal_address};
use super::resolve::{PublicOnly, is_public};
use super::set::SetError;
use crate::auth::files::KeyFile;
use crate::auth::{IssuerConfig, IssuerProblem, MAX_DEPTH};
use crate::strict_json;

/// Where keys come from; a stand-in in tests.
pub(in crate::auth) trait Fetch: fmt::Debug + Send + Sync {
    /// Fetches the set once.
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + '_>>;

    /// What was fetched last was worth nothing: look again where it is.
    fn failed(&self) {}

    /// Where from.
    fn url(&self) -> String;
}

/// A key set as it came.
#[derive(Debug, Clone)]
pub(in crate::auth) struct Fetched {
    pub body: Vec<u8>,
    /// What `Cache-Control` says.
    pub max_age: Option<Duration>,
}

/// How a fetch ended, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) enum Outcome {
    Ok,
    Unreachable,
    Refused,
    Invalid,
}

impl Outcome {
    pub const ALL: [Self; 4] = [Self::Ok, Self::Unreachable, Self::Refused, Self::Invalid];

    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
        }
    }
}

/// Why no keys came.
#[derive(Debug, thiserror::Error)]
pub(in crate::auth) enum FetchError {
    #[error("no answer from {host}: {cause}")]
    Unreachable { host: String, cause: String },
    #[error("{host} answered {status}, 200 is wanted and redirects are not followed")]
    Status { host: String, status: u16 },
    #[error("the answer of {host} has more than {MAX_BYTES} bytes")]
    TooLarge { host: String },
    #[error("the answer of {host} is encoded as nobody asked for")]
    Encoded { host: String },
    #[error("the discovery document is no JSON object with the strings `issuer` and `jwks_uri`")]
    NotDiscovery,
    #[error("the discovery document is of another issuer")]
    OtherIssuer,
    #[error("the discovery document's `jwks_uri` is not taken: {fault}")]
    KeysUrl { fault: &'static str },
    #[error("{host} is a private address, and refuse_private_addresses is set")]
    Private { host: String },
    #[error(transparent)]
    Set(SetError),
}

impl FetchError {
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Unreachable { .. } => Outcome::Unreachable,
            Self::Status { .. } => Outcome::Refused,
            _ => Outcome::Invalid,
        }
    }
}

/// Fetches from a [`Location`].
#[derive(Debug)]
pub(in crate::auth) struct Http {
    location: Location,
    /// What a discovery document must say.
    issuer: String,
    allow_http_loopback: bool,
    public_only: bool,
    /// Instead of the system's.
    roots: Option<Vec<Certificate>>,
    /// Where a discovery document said that the keys are, and when.
    found: Mutex<Option<(Url, Instant)>>,
}

impl Http {
    /// Reads the certificates, if any are named.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn new(location: Location, config: &IssuerConfig) -> Result<Self, IssuerProblem> {
        let roots = match &config.ca_file {
            None => None,
            Some(path) => {
                let file = KeyFile::read(path).map_err(IssuerProblem::CaFile)?;
                let none = || IssuerProblem::NoCertificate { path: path.clone() };
                let roots = Certificate::from_pem_bundle(&file.bytes).map_err(|_| none())?;
                if roots.is_empty() {
                    return Err(none());
                }
                // Building the client is what reads them.
                let builder = Client::builder().tls_certs_only(roots.clone());
                builder.build().map_err(|_| none())?;
                Some(roots)
            }
        };
        Ok(Self {
            location,
            issuer: config.issuer.clone(),
            allow_http_loopback: config.allow_http_loopback,
            public_only: config.refuse_private_addresses,
            roots,
            found: Mutex::new(None),
        })
    }

    /// A client of its own for each fetch: the system's certificates may have changed in between, and no connection
    /// lingers.
    async fn client(&self) -> Result<Client, FetchError> {
        let mut builder = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .https_only(!self.allow_http_loopback)
            .connect_timeout(CONNECT)
            .timeout(TOTAL)
            .user_agent(concat!("mixgate/", env!("CARGO_PKG_VERSION")));
        if let Some(roots) = &self.roots {
            builder = builder.tls_certs_only(roots.clone());
        }
        if self.public_only {
            builder = builder.dns_resolver(Arc::new(PublicOnly));
        }
        // It reads the system's certificates from disk.
        let built = tokio::task::spawn_blocking(|| builder.build()).await;
        let failed = |cause: String| FetchError::Unreachable {
            host: host(self.location.url()),
            cause,
        };
        match built {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(failed(causes(&error))),
            Err(_) => Err(failed("the HTTPS client could not be made".to_owned())),
        }
    }

    /// Where the keys are now.
    async fn keys_url(&self, client: &Client) -> Result<Url, FetchError> {
        let document = match &self.location {
            Location::Jwks(url) => return Ok(url.clone()),
            Location::Discovery(url) => url,
        };
        let known = {
            let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = |(_, at): &&(Url, Instant)| at.elapsed() < REDISCOVER;
            found.as_ref().filter(fresh).map(|(url, _)| url.clone())
        };
        if let Some(url) = known {
            return Ok(url);
        }
        let (body, _) = self.read(client, document).await?;
        let document =
            strict_json::object(&body, MAX_DEPTH).map_err(|_| FetchError::NotDiscovery)?;
        let text = |name| text(&document, name).ok_or(FetchError::NotDiscovery);
        // OpenID Connect Discovery §4.3: byte for byte, or another provider's keys would vouch for this one.
        if text("issuer")? != self.issuer {
            return Err(FetchError::OtherIssuer);
        }
        let url = fetchable(text("jwks_uri")?, self.allow_http_loopback)
            .map_err(|fault| FetchError::KeysUrl { fault })?;
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        *found = Some((url.clone(), Instant::now()));
        Ok(url)
    }

    /// One bounded GET.
    async fn read(
        &self,
        client: &Client,
        url: &Url,
    ) -> Result<(Vec<u8>, Option<Duration>), FetchError> {
        let host = host(url);
        let public = literal_address(url).is_none_or(is_public);
        if self.public_only && !public {
            return Err(FetchError::Private { host });
        }
        let unreachable = |error: reqwest::Error| FetchError::Unreachable {
            host: host.clone(),
            cause: causes(&error),
        };
        let request = client.get(url.clone()).header(ACCEPT, "application/json");
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(FetchError::Status { host, status });
        }
        // Nothing was offered, so whatever this is would be read as something else.
        let encoding = response.headers().get(CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return Err(FetchError::Encoded { host });
        }
        let max_age = max_age(response.headers());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLarge { host });
            }
            body.extend_from_slice(&chunk);
        }
        Ok((body, max_age))
    }
}

impl Fetch for Http {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + '_>> {
        Box::pin(async {
            let whole = timeout(WHOLE, async {
                let client = self.client().await?;
                let url = self.keys_url(&client).await?;
                let (body, max_age) = self.read(&client, &url).await?;
                Ok(Fetched { body, max_age })
            });
            whole.await.unwrap_or_else(|_| {
                Err(FetchError::Unreachable {
                    host: host(self.location.url()),
                    cause: "it took too long".to_owned(),
                })
            })
        })
    }

    fn failed(&self) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn url(&self) -> String {
        self.location.url().to_string()
    }
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or("the key server").to_owned()
}

/// An error with its causes, without the URL: its query may hold what is nobody's business.
fn causes(error: &reqwest::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    if error.is_timeout() {
        said.push("it took too long".to_owned());
    }
    let mut source = error.source();
    while let Some(cause) = source {
        said.push(cause.to_string());
        source = cause.source();
    }
    if said.is_empty() {
        said.push("the connection failed".to_owned());
    }
    said.join(": ").chars().take(MAX_CAUSE).collect()
}

fn text<'a>(document: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    document.get(name)?.as_str()
}

/// `max-age` of `Cache-Control`; zero for what must not be kept.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut seconds = None;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in value.to_str().ok()?.split(',') {
            let directive = directive.trim().to_ascii_lowercase();
            if directive == "no-store" || directive == "no-cache" {
                return Some(Duration::ZERO);
            }
            if let Some(given) = directive.strip_prefix("max-age=") {
                seconds = given.trim_matches('"').parse().ok();
            }
        }
    }
    seconds.map(Duration::from_secs)
}

const CONNECT: Duration = Duration::from_secs(2);
/// For one request, body included.
const TOTAL: Duration = Duration::from_secs(5);
/// For the discovery document and the keys together.
const WHOLE: Duration = Duration::from_secs(10);
/// 512 KiB; a set of 100 RSA keys with their certificates has some 300 KiB.
const MAX_BYTES: usize = 512 << 10;
const MAX_CAUSE: usize = 300;
/// How long a discovery document is believed while fetches succeed.
const REDISCOVER: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
