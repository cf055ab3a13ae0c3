//! Networks, and who calls from them.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Who may call at all, before anything else is known of a caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AddressLists {
    /// `None`: from everywhere.
    pub allow: Option<Vec<IpNet>>,
    pub deny: Vec<IpNet>,
}

impl AddressLists {
    /// | `allow` | `deny` | |
    /// |---|---|---|
    /// | absent, or a match | no match | heard |
    /// | absent, or a match | a match | refused |
    /// | no match, as in an empty list | | refused |
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        let allowed = self.allow.as_deref().is_none_or(|it| any(it, address));
        allowed && !any(&self.deny, address)
    }
}

/// Whether one of `networks` holds `address`, IPv4 also if mapped into IPv6.
pub(super) fn any(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// A network, or an address, which is a network of one.
///
/// # Errors
/// What is wrong, and what was probably meant.
pub(super) fn network(text: &str) -> Result<IpNet, (String, Option<String>)> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text
            .parse::<IpNet>()
            .map_err(|_| (format!("`{text}` is no network"), Some(EXAMPLE.to_owned())))?,
    };
    if network.trunc() != network {
        let meant = format!("write {}, or {} alone", network.trunc(), network.addr());
        return Err((
            format!("`{text}` has bits beyond its prefix length"),
            Some(meant),
        ));
    }
    Ok(canonical(network))
}

/// Networks of mapped IPv4 addresses as what they are.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else {
        return network;
    };
    let length = v6.prefix_len().checked_sub(MAPPED);
    match (v6.addr().to_ipv4_mapped(), length) {
        (Some(v4), Some(length)) => Ipv4Net::new(v4, length).map_or(network, IpNet::V4),
        _ => network,
    }
}

/// Bits of `::ffff:0:0/96`.
const MAPPED: u8 = 96;
const EXAMPLE: &str = "write it as 10.0.0.0/8, 2001:db8::/32 or 10.1.2.3";
