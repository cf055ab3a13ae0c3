//! Certificates from an authority that asks back on the same port (RFC 8555 and 8737), such as Let's Encrypt.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use rustls_acme::caches::DirCache;
use rustls_acme::{AcmeConfig, AcmeState, is_tls_alpn_challenge};
use tokio::sync::Mutex;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::files::Authorities;
use super::{CertificateSource, TlsError, provider};

/// An authority, and what it gave us last.
pub(super) struct Authority {
    /// Whoever holds this asks; nobody else ever waits for it.
    state: Mutex<AcmeState<std::io::Error>>,
    certificates: Arc<dyn ResolvesServerCert>,
    answer: Arc<ServerConfig>,
}

impl Authority {
    /// The authority that `source` names, if it names one. Makes the folder; asks nothing yet.
    pub(super) fn of(source: &CertificateSource) -> Result<Option<Self>, TlsError> {
        let CertificateSource::Acme {
            domains,
            contact,
            directory,
            directory_ca_file,
            folder,
        } = source
        else {
            return Ok(None);
        };
        private_folder(folder).map_err(|source| TlsError::AcmeFolder {
            folder: folder.clone(),
            source,
        })?;
        let roots = match directory_ca_file {
            Some(path) => Authorities::read(path)?.0,
            None => system_roots(),
        };
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Library)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let state = AcmeConfig::new_with_client_config(domains, Arc::new(client))
            .contact(contact)
            .directory(directory)
            .cache(DirCache::new(folder.clone()))
            .state();
        Ok(Some(Self {
            certificates: state.resolver(),
            answer: state.challenge_rustls_config_with_provider(provider()),
            state: Mutex::new(state),
        }))
    }

    /// Orders certificates and renews them, for ever. The library paces itself after failures.
    pub(super) async fn renew(&self) {
        let mut state = self.state.lock().await;
        while let Some(event) = state.next().await {
            match event {
                Ok(event) => tracing::info!(?event, "the certificate authority has answered"),
                Err(error) => tracing::warn!(%error, "no certificate from the authority"),
            }
        }
    }

    /// What handshakes with clients use: the latest certificate.
    pub(super) fn certificates(&self) -> Arc<dyn ResolvesServerCert> {
        self.certificates.clone()
    }

    /// Whether the authority asks if a name is ours.
    pub(super) fn asks(&self, hello: &ClientHello<'_>) -> bool {
        is_tls_alpn_challenge(hello)
    }

    /// What the handshake with it uses.
    pub(super) fn answer(&self) -> Arc<ServerConfig> {
        self.answer.clone()
    }
}

/// The cache's files hold keys and are made with the process's own mode: the folder keeps others out.
fn private_folder(folder: &Path) -> std::io::Result<()> {
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
        }
    }
}

fn system_roots() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // Some machines carry a broken root or two; the others do.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
}
