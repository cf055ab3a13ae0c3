//! Finds out where a request comes from when proxies stand between, believing only those that the operator trusts.
//!
//! Each proxy appends the address that it saw to `X-Forwarded-For`, so the list is true from its right end as far as
//! trusted proxies reach, and anything to the left of that may have been invented by the caller.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// Where the request came from: `socket`, unless that is a trusted proxy's; then the rightmost hop that is not.
///
/// A hop that is no address ends the walk: the answer is the last one that was, a proxy's own. The same holds for a
/// list of nothing but trusted proxies.
pub(super) fn caller(socket: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut known = socket;
    // Each field is a part of the list; later fields were added later.
    let fields = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let mut hops = fields.flat_map(|field| field.as_bytes().rsplit(|&byte| byte == b','));
    while is_in(known, trusted) {
        match hops.next().and_then(hop) {
            Some(address) => known = address,
            None => break,
        }
    }
    known
}

/// Whether `address` is in one of `networks`.
pub(super) fn is_in(address: IpAddr, networks: &[IpNet]) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Whether somebody says that this request was passed on.
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    [X_FORWARDED_FOR, FORWARDED]
        .iter()
        .any(|name| headers.contains_key(name))
}

/// One entry of the list: an address, with or without a port, as some proxies write it.
fn hop(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_ascii();
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok();
    address
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .map(|address| address.to_canonical())
}

/// Where a request with these fields comes from, for the fuzz targets; networks that are none are left out.
#[doc(hidden)]
pub fn fuzz_caller(socket: IpAddr, headers: &HeaderMap, trusted: &[&str]) -> IpAddr {
    let trusted: Vec<IpNet> = trusted.iter().filter_map(|it| it.parse().ok()).collect();
    caller(socket, headers, &trusted)
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// RFC 7239. Not read: who wants to be believed must be able to say it in one way only.
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// The answer to a request from `socket` with these `X-Forwarded-For` fields; 10.0.0.0/8 and fd00::/8 are trusted.
    fn from(socket: &str, fields: &[&str]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for field in fields {
            let value = HeaderValue::from_bytes(field.as_bytes()).unwrap();
            headers.append(X_FORWARDED_FOR, value);
        }
        let socket = socket.parse::<IpAddr>().unwrap().to_canonical();
        caller(socket, &headers, &trusted).to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(from("203.0.113.9", &["10.1.1.1"]), "203.0.113.9");
        assert_eq!(from("203.0.113.9", &[]), "203.0.113.9");
        // The trusted network is IPv4: an address that only looks like it is a stranger's.
        assert_eq!(from("2001:db8::10", &["198.51.100.1"]), "2001:db8::10");
    }

    #[test]
    fn the_rightmost_hop_that_is_not_trusted_counts() {
        for (fields, address) in [
            (&["198.51.100.7"][..], "198.51.100.7"),
            // What the caller wrote itself stands to the left.
            (&["127.0.0.1, 198.51.100.7"], "198.51.100.7"),
            (&["1.1.1.1, 198.51.100.7, 10.2.2.2"], "198.51.100.7"),
            (&["1.1.1.1", "198.51.100.7", "10.2.2.2"], "198.51.100.7"),
            (&["198.51.100.7,fd00::1 , 10.9.9.9"], "198.51.100.7"),
            (&["10.3.3.3"], "10.3.3.3"),
            (&["10.4.4.4, 10.3.3.3"], "10.4.4.4"),
        ] {
            assert_eq!(from("10.0.0.1", fields), address, "{fields:?}");
        }
    }

    #[test]
    fn a_hop_that_is_no_address_ends_the_walk_at_the_last_good_one() {
        for bad in [
            "unknown",
            "",
            "1.2.3",
            "198.51.100.7, nonsense",
            "198.51.100.7,",
            "198.51.100.7, 10.2.2.2;",
            "1.2.3.4\u{a0}",
            "01.2.3.4",
        ] {
            assert_eq!(from("10.0.0.1", &[bad]), "10.0.0.1", "{bad:?}");
        }
        assert_eq!(from("10.0.0.1", &["6.6.6.6, x, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(from("10.0.0.1", &["6.6.6.6", "", "10.2.2.2"]), "10.2.2.2");
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        for (field, address) in [
            ("198.51.100.7:4711", "198.51.100.7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
        ] {
            assert_eq!(from("10.0.0.1", &[field]), address, "{field}");
            assert_eq!(from("::ffff:10.0.0.1", &[field]), address, "{field}");
        }
    }
}
