//! Where an issuer's keys come from: the configuration itself, or one URL.

use std::net::IpAddr;

use reqwest::Url;

use super::preset::{TEMPLATE, discovery_url};
use crate::auth::{Discovery, IssuerConfig, IssuerProblem};

/// Where keys are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// The set itself.
    Jwks(Url),
    /// The document that says where the set is.
    Discovery(Url),
}

impl Location {
    /// The one place that `config` names; `None` if the keys are in the configuration.
    ///
    /// # Errors
    /// None or several sources, or a URL that may not be fetched.
    pub fn of(config: &IssuerConfig) -> Result<Option<Self>, IssuerProblem> {
        let discovery = match &config.discovery {
            None | Some(Discovery::Usual(false)) => None,
            Some(Discovery::At(url)) => Some(url.clone()),
            Some(Discovery::Usual(true)) => Some(
                discovery_url(config.preset, &config.issuer)
                    .ok_or(IssuerProblem::NoUsualDiscovery)?,
            ),
        };
        let check = |field, text: &str| {
            fetchable(text, config.allow_http_loopback).map_err(|fault| IssuerProblem::Url {
                field,
                given: text.to_owned(),
                fault,
            })
        };
        match (config.keys.is_empty(), &config.jwks_url, discovery) {
            (false, None, None) => Ok(None),
            (true, Some(url), None) => Ok(Some(Self::Jwks(check("jwks_url", url)?))),
            (true, None, Some(url)) => Ok(Some(Self::Discovery(check("discovery", &url)?))),
            (true, None, None) => Err(IssuerProblem::NoKeys),
            _ => Err(IssuerProblem::SeveralKeySources),
        }
    }

    /// What is fetched first.
    pub fn url(&self) -> &Url {
        match self {
            Self::Jwks(url) | Self::Discovery(url) => url,
        }
    }
}

/// A URL that keys may come from: https, or http to this machine where that is allowed.
///
/// # Errors
/// What is wrong with it.
pub(super) fn fetchable(text: &str, allow_http_loopback: bool) -> Result<Url, &'static str> {
    if text.contains(TEMPLATE) {
        return Err("a template is no place");
    }
    let url = Url::parse(text).map_err(|_| "it is no URL")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user name or a password");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if !is_loopback(&url) => Err("it is not https"),
        "http" if allow_http_loopback => Ok(url),
        "http" => Err("http on this machine needs allow_http_loopback = true"),
        _ => Err("it is not https"),
    }
}

/// The address that a URL names literally, if it does.
pub(super) fn literal_address(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

fn is_loopback(url: &Url) -> bool {
    url.host_str() == Some("localhost")
        || literal_address(url).is_some_and(|address| address.to_canonical().is_loopback())
}
