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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_address_without_an_issuer_is_refused_with_the_ways_out() {
        let error = check_exposure("0.0.0.0".parse().unwrap(), false, false).unwrap_err();
        assert_eq!(
            format!("error: {error}\nhint: {}", error.hint().unwrap()),
            "error: 0.0.0.0 can be reached from other machines, and no issuer is configured\n\
             hint: add [[auth.issuers]] to mixgate.toml, or listen on --host 127.0.0.1; \
             --allow-public-builtin-issuer lets tokens of this machine's own key in"
        );
        let allowed = |host: &str, issuers, flag| {
            check_exposure(host.parse().unwrap(), issuers, flag).is_ok()
        };
        for loopback in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"] {
            assert!(allowed(loopback, false, false), "{loopback}");
        }
        for public in ["0.0.0.0", "::", "192.168.1.2", "::ffff:10.0.0.1"] {
            assert!(!allowed(public, false, false), "{public}");
            assert!(allowed(public, true, false), "{public}");
            assert!(allowed(public, false, true), "{public}");
        }
    }
}
