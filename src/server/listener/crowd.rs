//! Counts connections by address, so that no single one can take all places.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use ipnet::IpNet;

use crate::server::proxies::is_in;

/// Open connections of each address. Trusted proxies carry many callers' and are not counted.
#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    exempt: Vec<IpNet>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's entry; dropping it takes it back.
#[derive(Debug)]
pub(super) struct Seat(Option<(Arc<Crowd>, IpAddr)>);

impl Crowd {
    /// At most `most` connections for each address that is not in `exempt`.
    pub(super) fn new(most: usize, exempt: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self {
            most,
            exempt,
            open: Mutex::default(),
        })
    }

    /// `None` if `address` has its share already.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        if is_in(address, &self.exempt) {
            return Some(Seat(None));
        }
        let key = whose(address);
        let mut open = self.lock();
        let count = open.entry(key).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Seat(Some((self.clone(), key))))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Nothing in here panics halfway.
        self.open
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some((crowd, key)) = self.0.take() else {
            return;
        };
        let mut open = crowd.lock();
        if let Some(count) = open.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&key);
            }
        }
    }
}

/// One subscriber of IPv6 has 2⁶⁴ addresses, and any of them is the same caller.
fn whose(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let crowd = Crowd::new(2, Vec::new());
        let one = crowd.enter(at("203.0.113.1")).unwrap();
        let _two = crowd.enter(at("203.0.113.1")).unwrap();
        assert!(crowd.enter(at("203.0.113.1")).is_none());
        assert!(crowd.enter(at("203.0.113.2")).is_some());
        drop(one);
        assert!(crowd.enter(at("203.0.113.1")).is_some());
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_caller() {
        let crowd = Crowd::new(1, Vec::new());
        let _one = crowd.enter(at("2001:db8:0:1::1")).unwrap();
        assert!(crowd.enter(at("2001:db8:0:1:ffff::2")).is_none());
        assert!(crowd.enter(at("2001:db8:0:2::1")).is_some());
    }

    #[test]
    fn a_trusted_proxy_is_not_counted() {
        let crowd = Crowd::new(1, vec!["10.0.0.0/8".parse().unwrap()]);
        let seats: Vec<_> = (0..10).map(|_| crowd.enter(at("10.0.0.1"))).collect();
        assert!(seats.iter().all(Option::is_some));
    }

    #[test]
    fn who_has_left_leaves_nothing_behind() {
        let crowd = Crowd::new(1, Vec::new());
        drop(crowd.enter(at("203.0.113.1")));
        assert!(crowd.lock().is_empty());
    }
}
