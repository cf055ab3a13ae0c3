//! Finds the one credential of a request: `Authorization: Bearer …`. Never in the query, a cookie or the body.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

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

/// The bytes after `Bearer `, which may be anything.
///
/// # Errors
/// `MultipleCredentials` for two `Authorization` fields, whatever they hold: a proxy in front may have looked at the
/// other one. `MissingCredentials` for none, for another scheme and for `Bearer` with nothing behind it.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&[u8], Denied> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let missing = |detail: &str| Denied::new(Reason::MissingCredentials, detail);
    let Some(field) = fields.next() else {
        return Err(missing("no Authorization header"));
    };
    if fields.next().is_some() {
        return Err(Denied::new(
            Reason::MultipleCredentials,
            "more than one Authorization header",
        ));
    }
    let field = field.as_bytes();
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
        token => Ok(token),
    }
}
