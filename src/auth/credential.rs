//! Finds the one credential of a request: `Authorization: Bearer …`, and where the configuration says so an API key's
//! own header or the client certificate. Never in the query, a cookie or the body.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName};

use super::api_key;
use super::denied::{Denied, Reason};

/// What is known of a caller before anything that it says is believed.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The request's.
    pub headers: &'a HeaderMap,
    /// Where it calls from: the socket's peer, or what a trusted proxy says. Never IPv4 mapped into IPv6.
    pub address: IpAddr,
    /// The DER of the client certificate that the TLS handshake has verified, if there was one.
    pub certificate: Option<&'a [u8]>,
}

impl<'a> Caller<'a> {
    /// Somebody on this machine with these headers and nothing else.
    pub fn local(headers: &'a HeaderMap) -> Self {
        Self {
            headers,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            certificate: None,
        }
    }
}

/// The one credential of a request; its bytes may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presented<'a> {
    /// What should be a signed token.
    Token(&'a [u8]),
    /// What should be an API key.
    ApiKey(&'a [u8]),
    /// The DER of a verified client certificate.
    Certificate(&'a [u8]),
}

/// Where credentials are looked for, beside `Authorization: Bearer …`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Places {
    /// `api-key` and `x-api-key`.
    pub api_key_headers: bool,
    /// The client certificate, where no header says more.
    pub certificate: bool,
}

/// Finds the credential. Headers that [`Places`] does not name mean nothing here.
///
/// # Errors
/// `MultipleCredentials` for two fields that could carry one, whatever they hold: a proxy in front may have looked at
/// the other one. `MissingCredentials` for none, for another scheme and for a field with nothing in it.
pub(super) fn presented<'a>(caller: &Caller<'a>, places: Places) -> Result<Presented<'a>, Denied> {
    let names: &[HeaderName] = match places.api_key_headers {
        true => &[AUTHORIZATION, API_KEY, X_API_KEY],
        false => &[AUTHORIZATION],
    };
    let headers = caller.headers;
    let mut fields = names
        .iter()
        .flat_map(|name| headers.get_all(name).iter().map(move |field| (name, field)));
    let Some((name, field)) = fields.next() else {
        return match caller.certificate.filter(|_| places.certificate) {
            Some(der) => Ok(Presented::Certificate(der)),
            None => Err(missing("no Authorization header")),
        };
    };
    if fields.next().is_some() {
        return Err(Denied::new(
            Reason::MultipleCredentials,
            "more than one header with a credential",
        ));
    }
    if name == AUTHORIZATION {
        return bearer(field.as_bytes());
    }
    match field.as_bytes().trim_ascii() {
        [] => Err(missing("the API key's header is empty")),
        key => Ok(Presented::ApiKey(key)),
    }
}

fn bearer(field: &[u8]) -> Result<Presented<'_>, Denied> {
    let (scheme, rest) = match field.iter().position(|&byte| byte == b' ') {
        Some(space) => field.split_at(space),
        None => (field, &[][..]),
    };
    // RFC 9110 §11.1: schemes are case-insensitive.
    if !scheme.eq_ignore_ascii_case(b"Bearer") {
        return Err(missing(
            "the Authorization header has another scheme than Bearer",
        ));
    }
    match rest.trim_ascii() {
        [] => Err(missing(
            "the Authorization header has no token after `Bearer`",
        )),
        key if key.starts_with(api_key::PREFIX.as_bytes()) => Ok(Presented::ApiKey(key)),
        token => Ok(Presented::Token(token)),
    }
}

fn missing(detail: &str) -> Denied {
    Denied::new(Reason::MissingCredentials, detail)
}

const API_KEY: HeaderName = HeaderName::from_static("api-key");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
