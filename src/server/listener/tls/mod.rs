//! TLS on the public door: the handshake, the certificate in force, and how a new one takes its place.
//!
//! A handshake takes the certificate that is in force when the client's first message is in. Connections keep theirs.

#[cfg(feature = "acme")]
mod acme;
mod error;
mod files;

use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::{Acceptor, NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, ConfigBuilder, ServerConfig, WantsVerifier, crypto, server};
use tokio_rustls::server::TlsStream;

pub use error::TlsError;
use files::{Authorities, Pair};

use crate::clock::Clock;

/// How the public door speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Where the certificate comes from.
    pub certificate: CertificateSource,
    /// Whether clients show one too.
    pub clients: ClientCertificates,
}

/// Where the server's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// PEM files, read anew when they change.
    Files {
        /// The chain, the server's own certificate first.
        certificate: PathBuf,
        /// Its key; readable by its owner alone.
        key: PathBuf,
    },
    /// An authority that is asked for one (RFC 8555, TLS-ALPN-01), in builds with the feature `acme`.
    Acme {
        /// The names that it is for.
        domains: Vec<String>,
        /// Who hears of trouble, such as `mailto:ops@example.com`.
        contact: Option<String>,
        /// The authority's directory.
        directory: String,
        /// PEM file of the roots that vouch for the directory itself; `None`: the system's.
        directory_ca_file: Option<PathBuf>,
        /// Where account and certificates are kept.
        folder: PathBuf,
    },
}

/// Whether clients show certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked for any.
    Off,
    /// Those who show one must have a good one.
    Optional {
        /// PEM file of the authorities that may vouch for them.
        authorities: PathBuf,
    },
    /// Without a good one there is no connection.
    Required {
        /// PEM file of the authorities that may vouch for them.
        authorities: PathBuf,
    },
}

impl TlsConfig {
    /// The files that make a new certificate count when they change.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = match &self.certificate {
            CertificateSource::Files { certificate, key } => vec![certificate.clone(), key.clone()],
            CertificateSource::Acme { .. } => Vec::new(),
        };
        match &self.clients {
            ClientCertificates::Off => {}
            ClientCertificates::Optional { authorities }
            | ClientCertificates::Required { authorities } => files.push(authorities.clone()),
        }
        files
    }

    /// Reads all files and judges them as a start would. Asks no authority and writes nothing.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn check(&self, clock: &Clock) -> Result<(), TlsError> {
        match &self.certificate {
            CertificateSource::Acme { .. } if cfg!(feature = "acme") => match &self.clients {
                ClientCertificates::Off => Ok(()),
                ClientCertificates::Optional { authorities }
                | ClientCertificates::Required { authorities } => {
                    Authorities::read(authorities).map(drop)
                }
            },
            _ => in_force(self, clock).map(drop),
        }
    }
}

/// TLS as it is in force.
pub(super) struct Tls {
    settings: TlsConfig,
    clock: Clock,
    current: RwLock<Arc<InForce>>,
    #[cfg(feature = "acme")]
    authority: Option<acme::Authority>,
}

/// What handshakes use, all from one reading of the files.
struct InForce {
    config: Arc<ServerConfig>,
    /// When the certificate expires, in Unix seconds; `None` while an authority has the say.
    expires: Option<i64>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`]: what is wrong with one of them, or that the certificate is of no use now.
    pub(super) fn new(settings: TlsConfig, clock: Clock) -> Result<Self, TlsError> {
        #[cfg(feature = "acme")]
        let authority = acme::Authority::of(&settings.certificate)?;
        #[cfg(feature = "acme")]
        let current = match &authority {
            Some(authority) => in_force_by(authority, &settings)?,
            None => in_force(&settings, &clock)?,
        };
        #[cfg(not(feature = "acme"))]
        let current = in_force(&settings, &clock)?;
        Ok(Self {
            settings,
            clock,
            current: RwLock::new(Arc::new(current)),
            #[cfg(feature = "acme")]
            authority,
        })
    }

    /// Reads the files again and puts them in force, all or none. Blocks on the disk for a moment.
    ///
    /// # Errors
    /// As [`Tls::new`]; then what was in force stays so.
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        #[cfg(feature = "acme")]
        let fresh = match &self.authority {
            Some(authority) => in_force_by(authority, &self.settings)?,
            None => in_force(&self.settings, &self.clock)?,
        };
        #[cfg(not(feature = "acme"))]
        let fresh = in_force(&self.settings, &self.clock)?;
        match self.current.write() {
            Ok(mut current) => *current = Arc::new(fresh),
            Err(poisoned) => *poisoned.into_inner() = Arc::new(fresh),
        }
        Ok(())
    }

    /// The files to watch.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.settings.files()
    }

    /// When the certificate in force expires, in Unix seconds, if files gave it.
    pub(super) fn expires(&self) -> Option<i64> {
        self.current().expires
    }

    /// Asks the authority for certificates for ever; returns at once if there is none to ask.
    pub(super) async fn renew(&self) {
        #[cfg(feature = "acme")]
        if let Some(authority) = &self.authority {
            authority.renew().await;
        }
    }

    fn current(&self) -> Arc<InForce> {
        match self.current.read() {
            Ok(current) => current.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    /// Speaks TLS with a client that has just connected: the stream, and the DER of the certificate that it has shown.
    /// `None`: it was the authority's own question, which is answered.
    pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
    ) -> Result<Option<(TlsStream<S>, Option<Arc<[u8]>>)>, HandshakeError> {
        let shaken = timeout(HANDSHAKE_TIMEOUT, self.shake(socket)).await;
        shaken.map_err(|_elapsed| HandshakeError::Slow)?
    }

    async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
    ) -> Result<Option<(TlsStream<S>, Option<Arc<[u8]>>)>, HandshakeError> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        #[cfg(feature = "acme")]
        if let Some(authority) = &self.authority
            && authority.asks(&hello.client_hello())
        {
            hello.into_stream(authority.answer()).await?;
            return Ok(None);
        }
        let stream = hello.into_stream(self.current().config.clone()).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let certificate = shown.and_then(|chain| chain.first());
        let certificate = certificate.map(|own| Arc::from(own.as_ref()));
        Ok(Some((stream, certificate)))
    }
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("it took longer than {HANDSHAKE_TIMEOUT:?}")]
    Slow,
    #[error(transparent)]
    Broken(#[from] std::io::Error),
}

fn in_force(settings: &TlsConfig, clock: &Clock) -> Result<InForce, TlsError> {
    let CertificateSource::Files { certificate, key } = &settings.certificate else {
        return Err(TlsError::NoAcme);
    };
    let pair = Pair::read(certificate, key, clock.unix_seconds())?;
    let expires = pair.expires;
    let resolver = rustls::sign::SingleCertAndKey::from(pair.certified);
    let config = config(&settings.clients, Arc::new(resolver))?;
    Ok(InForce {
        config: Arc::new(config),
        expires: Some(expires),
    })
}

#[cfg(feature = "acme")]
fn in_force_by(authority: &acme::Authority, settings: &TlsConfig) -> Result<InForce, TlsError> {
    Ok(InForce {
        config: Arc::new(config(&settings.clients, authority.certificates())?),
        expires: None,
    })
}

fn config(
    clients: &ClientCertificates,
    certificates: Arc<dyn server::ResolvesServerCert>,
) -> Result<ServerConfig, TlsError> {
    let builder = versions()?;
    let builder = match clients {
        ClientCertificates::Off => builder.with_no_client_auth(),
        ClientCertificates::Optional { authorities } => {
            let verifier = verifier(authorities)?.allow_unauthenticated();
            let verifier = verifier
                .build()
                .map_err(TlsError::authorities(authorities))?;
            builder.with_client_cert_verifier(verifier)
        }
        ClientCertificates::Required { authorities } => {
            let verifier = verifier(authorities)?.build();
            let verifier = verifier.map_err(TlsError::authorities(authorities))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // What comes before the handshake's end can be sent again by anybody who saw it.
    config.max_early_data_size = 0;
    if *clients != ClientCertificates::Off {
        // A resumed session does not look at the client's certificate again, which may have expired meanwhile.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// TLS 1.2 and 1.3, with the one crypto library that the tokens' signatures use too.
fn versions() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, TlsError> {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Library)
}

fn verifier(authorities: &std::path::Path) -> Result<server::ClientCertVerifierBuilder, TlsError> {
    let Authorities(roots) = Authorities::read(authorities)?;
    Ok(WebPkiClientVerifier::builder_with_provider(
        roots,
        provider(),
    ))
}

fn provider() -> Arc<crypto::CryptoProvider> {
    Arc::new(crypto::aws_lc_rs::default_provider())
}

/// From the connection to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
