//! What others need to know to get and to check tokens: protected-resource metadata (RFC 9728) and the built-in
//! issuer's public keys. Public, because whoever asks has no token yet.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HOST, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::auth::Access;

use super::app::Shared;
use super::peer::{Door, Peer};
use super::{ApiError, routes};

/// Where the metadata is.
pub(super) const RESOURCE_PATH: &str = "/.well-known/oauth-protected-resource";
/// Where the built-in issuer's keys are.
pub(super) const JWKS_PATH: &str = "/.well-known/jwks.json";

/// The origin by which callers reach this server, such as `https://llm.example.com`.
///
/// Scheme, host and perhaps a port, all of them plain: it can stand in a header and in JSON as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(Box<str>);

impl PublicUrl {
    /// Parses an `http` or `https` URL without user, path, query or fragment. One slash at the end is dropped.
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_suffix('/').unwrap_or(text);
        let host = bare
            .strip_prefix("https://")
            .or_else(|| bare.strip_prefix("http://"))?;
        is_plain_host(host).then(|| Self(bare.into()))
    }

    /// The URL, without a slash at the end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a challenge says about where the metadata is.
    pub(super) fn challenge(&self) -> String {
        format!(r#", resource_metadata="{}{RESOURCE_PATH}""#, self.0)
    }
}

/// Whether the public row `path` exists on this server and for this request.
pub(super) fn applies(shared: &Shared, parts: &Parts) -> bool {
    match parts.uri.path() {
        JWKS_PATH => shared.app.gate.builtin_jwks().is_some(),
        RESOURCE_PATH => resource(shared, parts).is_some(),
        _ => true,
    }
}

/// `GET /.well-known/oauth-protected-resource`
pub(super) async fn protected_resource(
    State(shared): State<Arc<Shared>>,
    parts: Parts,
) -> Result<Response, ApiError> {
    let Some((resource, is_configured)) = resource(&shared, &parts) else {
        return Err(ApiError::unknown_url(&parts.method, parts.uri.path()));
    };
    let mut scopes: Vec<&str> = Vec::new();
    for row in routes() {
        if let Access::Scope(scope) = row.access
            && !scopes.contains(&scope)
        {
            scopes.push(scope);
        }
    }
    let mut about = json!({
        "resource": resource.as_str(),
        "bearer_methods_supported": ["header"],
        "scopes_supported": scopes,
        "resource_name": "Mixgate",
    });
    let gate = &shared.app.gate;
    // The built-in issuer is no authorization server: nobody can ask it for a token over the network.
    let servers: Vec<String> = gate
        .issuers()
        .into_iter()
        .map(|summary| summary.issuer)
        .filter(|issuer| issuer.starts_with("https://"))
        .collect();
    if !servers.is_empty() {
        about["authorization_servers"] = json!(servers);
    }
    if gate.builtin_jwks().is_some() {
        about["jwks_uri"] = json!(format!("{}{JWKS_PATH}", resource.as_str()));
    }
    // What follows from one caller's Host must not be kept for another.
    let keep = if is_configured {
        "public, max-age=3600"
    } else {
        "no-store"
    };
    Ok(document("application/json", keep, &about))
}

/// `GET /.well-known/jwks.json`: the key that signs and the earlier ones that still verify.
pub(super) async fn jwks(
    State(shared): State<Arc<Shared>>,
    parts: Parts,
) -> Result<Response, ApiError> {
    match shared.app.gate.builtin_jwks() {
        // Short, because a key may be dropped in haste.
        Some(keys) => Ok(document(
            "application/jwk-set+json",
            "public, max-age=60",
            &keys,
        )),
        None => Err(ApiError::unknown_url(&parts.method, parts.uri.path())),
    }
}

/// Adds to a challenge where the metadata is, if the server knows its own name.
pub(super) fn point_to(shared: &Shared, headers: &mut HeaderMap) {
    let Some(url) = &shared.config.public_url else {
        return;
    };
    if let Some(challenge) = headers.get(WWW_AUTHENTICATE)
        && let Ok(whole) =
            HeaderValue::from_bytes(&[challenge.as_bytes(), url.challenge().as_bytes()].concat())
    {
        headers.insert(WWW_AUTHENTICATE, whole);
    }
}

/// This server's name, and whether it is the configured one; otherwise what the caller called it, if that is plain.
fn resource(shared: &Shared, parts: &Parts) -> Option<(PublicUrl, bool)> {
    if let Some(url) = &shared.config.public_url {
        return Some((url.clone(), true));
    }
    let host = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => {
            let mut fields = parts.headers.get_all(HOST).iter();
            let field = fields.next()?;
            if fields.next().is_some() {
                return None;
            }
            field.to_str().ok()?
        }
    };
    // Behind somebody else's TLS only the configured name is right; this one is for trying things on one machine.
    let scheme = match (&shared.config.tls, parts.extensions.get::<Peer>()) {
        (Some(_), Some(peer)) if peer.door == Door::Public => "https",
        _ => "http",
    };
    PublicUrl::parse(&format!("{scheme}://{host}")).map(|url| (url, false))
}

/// `name`, `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`, in lower case.
fn is_plain_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_port = |port: &str| {
        (1..=5).contains(&port.len())
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok()
    };
    let is_address = |inner: &str| {
        let is_lower = !inner.bytes().any(|byte| byte.is_ascii_uppercase());
        is_lower && inner.parse::<std::net::Ipv6Addr>().is_ok()
    };
    let is_name = |name: &str| {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        name.len() <= 253 && name.split('.').all(is_label)
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    port.is_none_or(is_port) && bracketed.map_or_else(|| is_name(host), is_address)
}

fn document(kind: &'static str, keep: &'static str, content: &Value) -> Response {
    (
        [
            (CONTENT_TYPE, kind),
            (CACHE_CONTROL, keep),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ],
        content.to_string(),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_an_origin() {
        for (text, parsed) in [
            ("https://llm.example.com", "https://llm.example.com"),
            ("https://llm.example.com/", "https://llm.example.com"),
            ("http://localhost:8000", "http://localhost:8000"),
            ("http://192.0.2.1:80", "http://192.0.2.1:80"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
            ("https://[::1]", "https://[::1]"),
        ] {
            assert_eq!(PublicUrl::parse(text).unwrap().as_str(), parsed);
        }
    }

    #[test]
    fn what_could_forge_a_header_or_name_another_place_is_no_public_url() {
        for text in [
            "",
            "https://",
            "llm.example.com",
            "ftp://llm.example.com",
            "https://LLM.example.com",
            "https://llm.example.com/v1",
            "https://llm.example.com//",
            "https://user@llm.example.com",
            "https://llm.example.com?x",
            "https://llm.example.com#x",
            "https://a\"b",
            "https://a b",
            "https://a\r\nb",
            "https://a..b",
            "https://a:",
            "https://a:b",
            "https://a:99999",
            "https://a:+80",
            "https://a:80:80",
            "https://[::1",
            "https://[nonsense]",
            "https://[2001:DB8::1]",
            "https://::1",
            "https://ä.example",
        ] {
            assert_eq!(PublicUrl::parse(text), None, "{text:?}");
        }
    }
}
