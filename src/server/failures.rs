//! Counts bad credentials by address, so that a flood of them costs little and fills no log.
//!
//! Only what fails is counted, and only the answer to what fails changes: a good token is taken whatever else comes from
//! its address, so that a network behind one address cannot be locked out by one of its own. For the same reason
//! addresses may share a bucket, and the table has a fixed size.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::auth::{Denied, Reason};
use crate::clock::Uptime;

/// A token bucket for each address, IPv6 by its /64: whoever has one address there has all of them.
pub(super) struct Failures {
    buckets: Mutex<Box<[Bucket]>>,
    /// Drawn at start: nobody can choose addresses that share a bucket.
    hasher: RandomState,
    /// The bucket's size, and what it regains in a minute.
    per_minute: f64,
    uptime: Uptime,
}

/// Failures that are still to be forgotten.
#[derive(Clone, Copy, Default)]
struct Bucket {
    level: f64,
    at: Duration,
}

impl Failures {
    /// Lets each address fail `per_minute` times at once, and as often in each minute from then on.
    pub(super) fn new(per_minute: u32, uptime: Uptime) -> Self {
        Self {
            buckets: Mutex::new(vec![Bucket::default(); BUCKETS].into()),
            hasher: RandomState::new(),
            per_minute: f64::from(per_minute.max(1)),
            uptime,
        }
    }

    /// Counts `denied` if it is a bad credential; what `address` is told instead when it has sent too many.
    pub(super) fn judge(&self, address: IpAddr, denied: Denied) -> Denied {
        // Not a missing one, which guesses nothing; nor one that an issuer has signed, expired or not.
        if !matches!(
            denied.reason(),
            Reason::InvalidToken | Reason::InvalidApiKey
        ) {
            return denied;
        }
        match self.over(address) {
            Some(retry_after) => denied.too_many(retry_after),
            None => denied,
        }
    }

    /// Counts one failure; if there is no room for it, the time until there is.
    fn over(&self, address: IpAddr) -> Option<Duration> {
        let slot = self.hasher.hash_one(network(address)) as usize % BUCKETS;
        let now = self.uptime.now();
        let rate = self.per_minute / 60.0;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = &mut buckets[slot];
        let forgotten = now.saturating_sub(bucket.at).as_secs_f64() * rate;
        let level = (bucket.level - forgotten).max(0.0);
        let over = level + 1.0 > self.per_minute;
        *bucket = Bucket {
            level: if over { level } else { level + 1.0 },
            at: now,
        };
        over.then(|| Duration::from_secs_f64((level + 1.0 - self.per_minute) / rate))
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
    }
}

/// 384 KiB. Ten thousand addresses that fail at the same time share few buckets.
const BUCKETS: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::auth::{AuthConfig, BuiltinIssuer, Caller, Gate};
    use crate::clock::Clock;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// What the gate says to this `Authorization`.
    fn denied(authorization: Option<&str>) -> Denied {
        let builtin = BuiltinIssuer::ephemeral().unwrap();
        let gate = Gate::new(&AuthConfig::default(), Some(builtin), Clock::system()).unwrap();
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert("authorization", value.parse().unwrap());
        }
        let answer = gate.authenticate(Caller::local(&headers)).now_or_never();
        answer.unwrap().unwrap_err()
    }

    fn codes(failures: &Failures, from: &str, count: usize) -> Vec<&'static str> {
        let bad = denied(Some("Bearer x"));
        (0..count)
            .map(|_| failures.judge(address(from), bad.clone()).code())
            .collect()
    }

    #[test]
    fn an_address_that_fails_too_often_is_told_when_to_come_again() {
        let (uptime, hand) = Uptime::manual();
        let failures = Failures::new(3, uptime);
        assert_eq!(
            codes(&failures, "192.0.2.1", 4),
            [
                "invalid_token",
                "invalid_token",
                "invalid_token",
                "too_many_failures"
            ]
        );
        let told = failures.judge(address("192.0.2.1"), denied(Some("Bearer x")));
        assert_eq!(
            told.reason(),
            Reason::TooManyFailures {
                retry_after: Duration::from_secs(20)
            }
        );
        // Three a minute: one is forgotten each 20 s, and refused ones were not added.
        hand.advance(Duration::from_secs(20));
        assert_eq!(
            codes(&failures, "192.0.2.1", 2),
            ["invalid_token", "too_many_failures"]
        );
        hand.advance(Duration::from_secs(3600));
        assert_eq!(
            codes(&failures, "192.0.2.1", 4)[2..],
            ["invalid_token", "too_many_failures"]
        );
    }

    #[test]
    fn addresses_are_counted_apart_and_a_64_as_one() {
        let failures = Failures::new(1, Uptime::manual().0);
        assert_eq!(codes(&failures, "192.0.2.1", 1), ["invalid_token"]);
        assert_eq!(codes(&failures, "192.0.2.2", 1), ["invalid_token"]);
        assert_eq!(codes(&failures, "2001:db8::1", 1), ["invalid_token"]);
        assert_eq!(
            codes(&failures, "2001:db8::ffff:0:0:1", 1),
            ["too_many_failures"]
        );
        assert_eq!(codes(&failures, "2001:db8:0:1::1", 1), ["invalid_token"]);
    }

    #[test]
    fn only_bad_credentials_count() {
        let failures = Failures::new(1, Uptime::manual().0);
        for _ in 0..5 {
            let told = failures.judge(address("192.0.2.1"), denied(None));
            assert_eq!(told.code(), "missing_credentials");
        }
        assert_eq!(codes(&failures, "192.0.2.1", 1), ["invalid_token"]);
    }

    #[test]
    fn any_number_of_addresses_fits() {
        let failures = Failures::new(1, Uptime::manual().0);
        let bad = denied(Some("Bearer x"));
        for n in 0..100_000_u32 {
            failures.judge(IpAddr::V4(n.into()), bad.clone());
        }
        assert_eq!(failures.buckets.lock().unwrap().len(), BUCKETS);
    }
}
