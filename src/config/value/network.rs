//! Values of who may connect: networks, pages, certificates; and lists of them.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::{TomlKind, Value, quoted};
use crate::server::WebOrigin;

/// Several values; in a flag or a variable with a comma between each two, in a file as an array.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::config) struct List<T>(pub Vec<T>);

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum ClientAuth {
    Off,
    Optional,
    Required,
}

/// A value that can stand in a [`List`].
pub(in crate::config) trait Item: Sized {
    /// Words for several of them.
    const WANTED: &'static str;

    fn parse(text: &str) -> Option<Self>;

    fn text(&self) -> String;
}

impl<T: Item> Value for List<T> {
    const WANTED: &'static str = T::WANTED;
    const KINDS: &'static [TomlKind] = &[TomlKind::List, TomlKind::Text];

    /// No text at all is an empty list: a file can take back what nobody should have.
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(Vec::new()));
        }
        let items = text.split(',').map(|item| T::parse(item.trim()));
        items.collect::<Option<_>>().map(Self)
    }

    fn toml(&self) -> String {
        let items: Vec<String> = self.0.iter().map(|item| quoted(&item.text())).collect();
        format!("[{}]", items.join(", "))
    }

    fn unset() -> Option<Self> {
        Some(Self(Vec::new()))
    }
}

impl Item for IpNet {
    const WANTED: &'static str = "networks such as 10.0.0.0/8, or addresses";

    fn parse(text: &str) -> Option<Self> {
        parse_network(text)
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Item for WebOrigin {
    const WANTED: &'static str = "origins such as https://app.example, without a path or a star";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn text(&self) -> String {
        self.as_str().to_owned()
    }
}

/// A name of the DNS.
impl Item for String {
    const WANTED: &'static str = "names such as llm.example.com";

    fn parse(text: &str) -> Option<Self> {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let is_name = text.len() <= 253 && text.contains('.') && text.split('.').all(is_label);
        is_name.then(|| text.to_ascii_lowercase())
    }

    fn text(&self) -> String {
        self.clone()
    }
}

impl Value for ClientAuth {
    const WANTED: &'static str = "off, optional or required";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            "optional" => Some(Self::Optional),
            "required" => Some(Self::Required),
            _ => None,
        }
    }

    fn toml(&self) -> String {
        quoted(match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        })
    }
}

/// `10.0.0.0/8`, or one address. What is IPv4 mapped into IPv6 becomes IPv4, as callers' addresses do.
///
/// Bits behind the prefix must be zero: `10.0.0.1/8` is more likely a slip than a meaning.
pub(in crate::config) fn parse_network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    if network != network.trunc() {
        return None;
    }
    match network {
        IpNet::V6(mapped) if mapped.prefix_len() >= 96 => match mapped.addr().to_ipv4_mapped() {
            Some(address) => Ipv4Net::new(address, mapped.prefix_len() - 96)
                .ok()
                .map(IpNet::V4),
            None => Some(network),
        },
        _ => Some(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_cidr_or_single_addresses_and_never_mapped() {
        for (text, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("203.0.113.7", "203.0.113.7/32"),
            ("fd00::/8", "fd00::/8"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(parse_network(text).unwrap().to_string(), network);
        }
        for text in ["10.0.0.1/8", "10.0.0.0/33", "10.0.0", "*", "", "localhost"] {
            assert_eq!(parse_network(text), None, "{text}");
        }
    }

    #[test]
    fn a_list_is_all_of_its_items_or_nothing() {
        let list = List::<IpNet>::parse("10.0.0.0/8, ::1").unwrap();
        assert_eq!(list.toml(), r#"["10.0.0.0/8", "::1/128"]"#);
        assert_eq!(List::<IpNet>::parse("").unwrap().0, []);
        assert_eq!(List::<IpNet>::parse("10.0.0.0/8,"), None);
        assert_eq!(List::<IpNet>::parse("10.0.0.0/8,x"), None);
    }

    #[test]
    fn names_are_of_the_dns() {
        let names = List::<String>::parse("llm.example.com,B.Example.COM").unwrap();
        assert_eq!(names.0, ["llm.example.com", "b.example.com"]);
        for bad in ["localhost", "a..b", "-a.b", "a_b.c", "a.b/", "*.a.b"] {
            assert_eq!(List::<String>::parse(bad), None, "{bad}");
        }
    }
}
