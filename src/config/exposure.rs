//! Whether an address may be served with the issuers at hand.

use std::net::IpAddr;

use super::ConfigError;

/// Lets `host` be served if only this machine can reach it, if an issuer is configured, or if the operator said that
/// the built-in issuer will do.
///
/// # Errors
/// [`ConfigError::PublicAddress`] otherwise.
pub fn check_exposure(
    host: IpAddr,
    issuers_configured: bool,
    allowed: bool,
) -> Result<(), ConfigError> {
    // `::ffff:127.0.0.1` is loopback too.
    if host.to_canonical().is_loopback() || issuers_configured || allowed {
        return Ok(());
    }
    Err(ConfigError::PublicAddress { host })
}
