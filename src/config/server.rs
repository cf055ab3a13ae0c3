//! The server's part: where to listen, for whom, how long to wait.

use std::net::SocketAddr;

use super::ConfigError;
use super::layers::Layers;
use super::settings::Settings;
use super::three_quarters;
use super::value::ClientAuth;
use crate::server::{CertificateSource, ClientCertificates, ServerConfig, TlsConfig};

/// # Errors
/// [`ConfigError::Alone`], [`ConfigError::Conflict`], and what is wrong with `[public.open]`.
pub(super) fn config(settings: &Settings, layers: &Layers) -> Result<ServerConfig, ConfigError> {
    let max_connections = settings.max_connections.get();
    Ok(ServerConfig {
        host: settings.host,
        port: settings.port,
        max_body_bytes: settings.max_body_bytes.0,
        body_timeout: settings.body_timeout.0,
        header_timeout: settings.header_timeout.0,
        shutdown_timeout: settings.shutdown_timeout,
        ping_interval: settings.ping_interval.0,
        write_timeout: settings.write_timeout.0,
        max_connections,
        max_connections_per_address: settings
            .max_connections_per_address
            .map_or_else(|| three_quarters(max_connections), usize::from),
        tls: tls(settings, layers)?,
        internal: settings
            .internal_port
            .map(|port| SocketAddr::new(settings.internal_host, port)),
        admin_on_public: settings.admin_on_public,
        open: layers.open()?,
        trusted_proxies: settings.trusted_proxies.0.clone(),
        cors_origins: settings.cors_origins.0.clone(),
        public_url: settings.public_url.clone(),
        audit_subjects: settings.audit_subjects,
        audit_denials_per_second: settings.audit_denials_per_second.0,
        max_failures_per_minute: settings.max_failures_per_minute.0,
    })
}

fn tls(settings: &Settings, layers: &Layers) -> Result<Option<TlsConfig>, ConfigError> {
    let alone = |given: &'static str, needs: &'static str| ConfigError::Alone {
        given,
        origin: layers.origin(given).clone(),
        needs,
    };
    let files = match (&settings.tls_cert_file, &settings.tls_key_file) {
        (Some(certificate), Some(key)) => Some(CertificateSource::Files {
            certificate: certificate.clone(),
            key: key.clone(),
        }),
        (Some(_), None) => return Err(alone("tls_cert_file", "tls_key_file")),
        (None, Some(_)) => return Err(alone("tls_key_file", "tls_cert_file")),
        (None, None) => None,
    };
    let domains = &settings.acme_domains.0;
    let authority = (!domains.is_empty()).then(|| CertificateSource::Acme {
        domains: domains.clone(),
        contact: settings.acme_contact.clone(),
        directory: settings.acme_directory.clone(),
        directory_ca_file: settings.acme_directory_ca_file.clone(),
        folder: settings.state_dir.join("acme"),
    });
    let certificate = match (files, authority) {
        (Some(_), Some(_)) => {
            return Err(ConfigError::Conflict {
                one: "tls_cert_file".to_owned(),
                one_origin: layers.origin("tls_cert_file").clone(),
                other: "acme_domains".to_owned(),
                other_origin: layers.origin("acme_domains").clone(),
            });
        }
        (files, authority) => files.or(authority),
    };
    let clients = match (settings.tls_client_auth, &settings.tls_client_ca_file) {
        (ClientAuth::Off, None) => ClientCertificates::Off,
        // Authorities without a use for them: whoever lists them believes that they are asked.
        (ClientAuth::Off, Some(_)) => return Err(alone("tls_client_ca_file", "tls_client_auth")),
        (_, None) => return Err(alone("tls_client_auth", "tls_client_ca_file")),
        (ClientAuth::Optional, Some(file)) => ClientCertificates::Optional {
            authorities: file.clone(),
        },
        (ClientAuth::Required, Some(file)) => ClientCertificates::Required {
            authorities: file.clone(),
        },
    };
    match certificate {
        Some(certificate) => Ok(Some(TlsConfig {
            certificate,
            clients,
        })),
        None if clients != ClientCertificates::Off => {
            Err(alone("tls_client_auth", "tls_cert_file"))
        }
        None => Ok(None),
    }
}
