//! What can be wrong with certificates, and what to do about it.

use std::path::{Path, PathBuf};

use tokio_rustls::rustls;
use tokio_rustls::rustls::server::VerifierBuilderError;

use crate::auth::FileError;

/// Why TLS cannot be spoken, or a new certificate is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read, is far too large, or holds a key that others may have read.
    #[error(transparent)]
    File(#[from] FileError),
    /// No certificate where there should be one.
    #[error("there is no certificate in {}", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// Something that calls itself one and is not.
    #[error("{} holds a certificate that cannot be read", path.display())]
    BadCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// No key where there should be one.
    #[error("there is no private key in {}", path.display())]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
    /// A key that cannot sign, or is not this certificate's.
    #[error("the key in {} is not that of the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A key of a kind that is not taken.
    #[error("the key in {} cannot be used: {reason}", path.display())]
    BadKey {
        /// Which file.
        path: PathBuf,
        /// The library's words.
        reason: String,
    },
    /// Clients would refuse it.
    #[error("the certificate in {} expired on {on}", path.display())]
    Expired {
        /// Which file.
        path: PathBuf,
        /// When.
        on: String,
    },
    /// Clients would refuse it still.
    #[error("the certificate in {} is valid from {from} only", path.display())]
    NotYetValid {
        /// Which file.
        path: PathBuf,
        /// When.
        from: String,
    },
    /// The authorities that should vouch for clients.
    #[error("the certificates in {} cannot vouch for clients: {reason}", path.display())]
    BadAuthorities {
        /// Which file.
        path: PathBuf,
        /// The library's words.
        reason: String,
    },
    /// An authority was to be asked, and this program cannot.
    #[error("acme_domains is set, and this build cannot ask an authority for certificates")]
    NoAcme,
    /// What is kept of the authority's certificates.
    #[error("cannot keep certificates in {}: {source}", folder.display())]
    AcmeFolder {
        /// Where.
        folder: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// The library does not come up.
    #[error("TLS cannot be set up: {0}")]
    Library(rustls::Error),
}

impl TlsError {
    pub(super) fn authorities(path: &Path) -> impl Fn(VerifierBuilderError) -> Self {
        move |error| Self::BadAuthorities {
            path: path.to_owned(),
            reason: error.to_string(),
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File(error) => error.hint(),
            Self::NoCertificate { .. } | Self::BadCertificate { .. } => Some(
                "tls_cert_file is the PEM file of the server's certificate, followed by those between it and its root",
            ),
            Self::NoKey { .. } => Some(
                "tls_key_file is the PEM file of the key; one with a passphrase cannot be read: openssl pkey -in old -out new",
            ),
            Self::Mismatch { .. } => Some(
                "give the two files of one issuance; in a chain the server's own certificate stands first",
            ),
            Self::BadKey { .. } => Some(
                "RSA (2048 bits or more), ECDSA P-256, P-384, P-521 and Ed25519 keys are taken",
            ),
            Self::Expired { .. } => {
                Some("renew it; a file that is replaced while the server runs is read anew")
            }
            Self::NotYetValid { .. } => Some("wait until then, or correct this machine's clock"),
            Self::BadAuthorities { .. } => {
                Some("tls_client_ca_file is a PEM file of the authorities' own certificates")
            }
            Self::NoAcme => {
                Some("build it with --features acme, or give tls_cert_file and tls_key_file")
            }
            Self::AcmeFolder { .. } => {
                Some("--state-dir names a folder that this user may write to")
            }
            Self::Library(_) => None,
        }
    }
}
