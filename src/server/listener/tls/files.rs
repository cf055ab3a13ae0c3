//! Reads certificates and keys from PEM files.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{TlsError, provider};
use crate::auth::KeyFile;

/// A certificate with its chain and its key, of use now.
pub(super) struct Pair {
    pub(super) certified: CertifiedKey,
    /// Unix seconds.
    pub(super) expires: i64,
}

impl Pair {
    /// Reads both files and checks that they belong together, and that the time is within the certificate's.
    pub(super) fn read(certificate: &Path, key: &Path, now: u64) -> Result<Self, TlsError> {
        let chain = certificates(certificate)?;
        let secret = private_key(key)?;
        let expires = expiry(&chain[0], certificate, now)?;
        let certified =
            CertifiedKey::from_der(chain, secret, &provider()).map_err(|error| match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Mismatch {
                    certificate: certificate.to_owned(),
                    key: key.to_owned(),
                },
                other => TlsError::BadKey {
                    path: key.to_owned(),
                    reason: other.to_string(),
                },
            })?;
        Ok(Self { certified, expires })
    }
}

/// Who may vouch for clients.
pub(super) struct Authorities(pub(super) Arc<RootCertStore>);

impl Authorities {
    /// Reads a file of at least one certificate.
    pub(super) fn read(path: &Path) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .map_err(|error| TlsError::BadAuthorities {
                    path: path.to_owned(),
                    reason: error.to_string(),
                })?;
        }
        Ok(Self(Arc::new(roots)))
    }
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = KeyFile::read(path)?;
    let chain = CertificateDer::pem_slice_iter(&file.bytes).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|_| TlsError::BadCertificate {
        path: path.to_owned(),
    })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = KeyFile::read(path)?.secret()?;
    PrivateKeyDer::from_pem_slice(&file.bytes).map_err(|_| TlsError::NoKey {
        path: path.to_owned(),
    })
}

/// When it expires, which must be later than now.
fn expiry(certificate: &CertificateDer<'_>, path: &Path, now: u64) -> Result<i64, TlsError> {
    let path = path.to_owned();
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Err(TlsError::BadCertificate { path });
    };
    let validity = parsed.validity();
    let (from, until) = (validity.not_before, validity.not_after);
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if now > until.timestamp() {
        let on = until.to_string();
        return Err(TlsError::Expired { path, on });
    }
    // A server whose clock is a little slow is no reason to refuse a certificate that was issued this minute.
    if now + CLOCK_SKEW_S < from.timestamp() {
        let from = from.to_string();
        return Err(TlsError::NotYetValid { path, from });
    }
    Ok(until.timestamp())
}

const CLOCK_SKEW_S: i64 = 60;
