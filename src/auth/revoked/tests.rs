use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::auth::identity::Claimed;
use crate::auth::{KEYS_ISSUER, Permit};
use crate::ledger::RevokedName;

const NOW: u64 = 1_800_000_000;

struct Bench {
    revoked: Arc<Revoked>,
    clock: crate::clock::ManualClock,
    uptime: crate::clock::ManualUptime,
}

impl Bench {
    fn new() -> Self {
        let (clock, manual_clock) = Clock::manual(NOW);
        let (uptime, manual_uptime) = Uptime::manual();
        Self {
            revoked: Arc::new(Revoked::new(clock, uptime)),
            clock: manual_clock,
            uptime: manual_uptime,
        }
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.uptime.advance(Duration::from_secs(seconds));
    }

    fn watch(&self, identity: &Identity, on_expiry: Expiry) -> (Watched, Revocation) {
        let rights = Arc::new(Rights {
            on_expiry,
            ..Rights::default()
        });
        let revocation = Revocation::default();
        let identity = Arc::new(identity.clone());
        let watched = self.revoked.watch(&identity, &rights, revocation.clone());
        (watched, revocation)
    }

    fn live(&self) -> usize {
        self.revoked.live().requests.len()
    }
}

/// What a revocation can look at.
#[derive(Debug, Clone)]
struct Who {
    issuer: String,
    subject: String,
    client: Option<String>,
    token_id: Option<String>,
    key_id: Option<String>,
    issued: Option<u64>,
    expires: Option<u64>,
}

fn ann() -> Who {
    Who {
        issuer: "idp".to_owned(),
        subject: "ann".to_owned(),
        client: Some("app".to_owned()),
        token_id: Some("t1".to_owned()),
        key_id: Some("k1".to_owned()),
        issued: Some(NOW - 10),
        expires: Some(NOW + 100),
    }
}

fn identity(who: &Who) -> Identity {
    let name = |name: &Option<String>| name.as_deref().map(Arc::from);
    Identity::new(Claimed {
        issuer: who.issuer.as_str().into(),
        subject: who.subject.as_str().into(),
        tenant: None,
        client: name(&who.client),
        token_id: name(&who.token_id),
        scopes: Vec::new(),
        expires: who.expires,
        issued: who.issued,
        credential: match &*who.issuer {
            KEYS_ISSUER => Credential::ApiKey,
            _ => Credential::Token,
        },
        key_id: name(&who.key_id),
        claims: Map::new(),
    })
}

fn record(what: RevokedName, at: u64, until: Option<u64>) -> RevocationRecord {
    RevocationRecord {
        what,
        issuer: "idp".to_owned(),
        at,
        until,
    }
}

fn every_kind(name: &str) -> [RevokedName; 5] {
    [
        RevokedName::Token(name.to_owned()),
        RevokedName::Subject(name.to_owned()),
        RevokedName::Client(name.to_owned()),
        RevokedName::Key(name.to_owned()),
        RevokedName::Issuer,
    ]
}

#[test]
fn each_kind_of_revocation_refuses_what_it_names_and_says_by_what() {
    let bench = Bench::new();
    for (what, by) in [
        (RevokedName::Token("t1".into()), "revoked by its id"),
        (RevokedName::Subject("ann".into()), "revoked by its subject"),
        (RevokedName::Client("app".into()), "revoked by its client"),
        (RevokedName::Key("k1".into()), "revoked by its key"),
        (RevokedName::Issuer, "revoked by its issuer"),
    ] {
        bench.revoked.replace(vec![record(what, NOW, None)]);
        let denied = bench.revoked.check(&identity(&ann())).unwrap_err();
        assert_eq!(
            (denied.reason(), denied.detail()),
            (Reason::TokenRevoked, by)
        );
    }
    bench.revoked.replace(Vec::new());
    assert_eq!(bench.revoked.check(&identity(&ann())), Ok(()));
}

#[test]
fn a_name_is_meant_by_its_own_issuer_and_as_its_own_kind_alone() {
    let bench = Bench::new();
    let all_the_same = Who {
        subject: "x".to_owned(),
        client: None,
        token_id: None,
        key_id: None,
        ..ann()
    };
    let [token, subject, client, key, _] = every_kind("x");
    let others = [token, client, key].map(|what| record(what, NOW, None));
    bench.revoked.replace(others.to_vec());
    assert_eq!(bench.revoked.check(&identity(&all_the_same)), Ok(()));
    let elsewhere = RevocationRecord {
        issuer: "idp/".to_owned(),
        ..record(subject, NOW, None)
    };
    bench.revoked.replace(vec![elsewhere]);
    assert_eq!(bench.revoked.check(&identity(&all_the_same)), Ok(()));
}

#[test]
fn what_was_issued_later_is_good_and_what_does_not_say_when_is_not() {
    let bench = Bench::new();
    let issued = |issued| identity(&Who { issued, ..ann() });
    for what in [
        RevokedName::Subject("ann".into()),
        RevokedName::Client("app".into()),
        RevokedName::Issuer,
    ] {
        bench.revoked.replace(vec![record(what, NOW, None)]);
        assert!(bench.revoked.check(&issued(Some(NOW - 1))).is_err());
        assert!(bench.revoked.check(&issued(None)).is_err());
        assert!(bench.revoked.check(&issued(Some(NOW))).is_ok());
    }
    for what in [
        RevokedName::Token("t1".into()),
        RevokedName::Key("k1".into()),
    ] {
        bench.revoked.replace(vec![record(what, NOW, None)]);
        assert!(bench.revoked.check(&issued(Some(NOW + 1))).is_err());
    }
}

#[test]
fn a_revocation_ends_when_it_says() {
    let bench = Bench::new();
    let what = RevokedName::Subject("ann".into());
    bench
        .revoked
        .replace(vec![record(what, NOW, Some(NOW + 5))]);
    bench.pass(4);
    assert!(bench.revoked.check(&identity(&ann())).is_err());
    bench.pass(1);
    assert!(bench.revoked.check(&identity(&ann())).is_ok());
}

#[test]
fn a_revoked_api_key_hears_what_an_unknown_one_hears() {
    let bench = Bench::new();
    let key = Who {
        issuer: KEYS_ISSUER.to_owned(),
        ..ann()
    };
    let revocation = RevocationRecord {
        issuer: KEYS_ISSUER.to_owned(),
        ..record(RevokedName::Subject("ann".into()), NOW, None)
    };
    bench.revoked.replace(vec![revocation]);
    let denied = bench.revoked.check(&identity(&key)).unwrap_err();
    assert_eq!(denied.reason(), Reason::InvalidApiKey);
}

#[test]
fn a_revocation_reaches_the_live_requests_that_it_means_and_no_other() {
    let bench = Bench::new();
    let (watched, revocation) = bench.watch(&identity(&ann()), Expiry::Finish);
    let bob = Who {
        subject: "bob".to_owned(),
        ..ann()
    };
    let (other, others) = bench.watch(&identity(&bob), Expiry::Finish);
    let what = RevokedName::Subject("ann".into());
    bench.revoked.replace(vec![record(what, NOW, None)]);
    assert_eq!(
        (revocation.is_revoked(), others.is_revoked()),
        (true, false)
    );
    assert_eq!(watched.withdrawn(true), Some(Withdrawn::Revoked));
    assert_eq!(other.withdrawn(false), None);
}

#[test]
fn a_request_that_was_let_in_just_before_its_revocation_ends_too() {
    let bench = Bench::new();
    let what = RevokedName::Token("t1".into());
    bench.revoked.replace(vec![record(what, NOW, None)]);
    let (watched, _) = bench.watch(&identity(&ann()), Expiry::Finish);
    assert_eq!(watched.withdrawn(false), Some(Withdrawn::Revoked));
}

#[test]
fn a_request_is_forgotten_when_it_is_over() {
    let bench = Bench::new();
    let identity = identity(&ann());
    let requests = [0; 3].map(|_| bench.watch(&identity, Expiry::Cut).0);
    assert_eq!(bench.live(), 3);
    drop(requests);
    assert_eq!(bench.live(), 0);
    let permit = Permit::for_tests("ann");
    assert_eq!(permit.withdrawn(true), None);
}

#[test]
fn a_running_request_outlives_its_credential_by_what_its_rights_say() {
    let cases = [
        (Expiry::Cut, [None, Some(0), Some(0)]),
        (Expiry::Grace(Duration::from_secs(5)), [None, None, Some(0)]),
        (Expiry::Finish, [None, None, None]),
    ];
    for (on_expiry, ends) in cases {
        let bench = Bench::new();
        let (watched, _) = bench.watch(&identity(&ann()), on_expiry);
        for (wait, end) in [99, 1, 5].into_iter().zip(ends) {
            bench.pass(wait);
            let expired = end.map(|_: i32| Withdrawn::Expired);
            assert_eq!(watched.withdrawn(true), expired, "{on_expiry:?} {wait}");
        }
    }
}

#[test]
fn who_still_waits_when_its_credential_expires_does_not_begin() {
    let long = Duration::from_secs(3600);
    for on_expiry in [Expiry::Cut, Expiry::Grace(long), Expiry::Finish] {
        let bench = Bench::new();
        let (watched, _) = bench.watch(&identity(&ann()), on_expiry);
        bench.pass(99);
        assert_eq!(watched.withdrawn(false), None);
        bench.pass(1);
        assert_eq!(watched.withdrawn(false), Some(Withdrawn::Expired));
    }
}

#[test]
fn the_issuers_skew_counts_for_running_requests_too() {
    let bench = Bench::new();
    let (watched, _) = bench.watch(&identity(&ann()).with_skew(60), Expiry::Cut);
    bench.pass(159);
    assert_eq!(watched.withdrawn(true), None);
    bench.pass(1);
    assert_eq!(watched.withdrawn(true), Some(Withdrawn::Expired));
}

#[test]
fn a_step_of_the_systems_clock_ends_no_stream_early() {
    let bench = Bench::new();
    let (watched, _) = bench.watch(&identity(&ann()), Expiry::Cut);
    bench.clock.advance(Duration::from_secs(86_400));
    assert_eq!(watched.withdrawn(true), None);
    bench.uptime.advance(Duration::from_secs(100));
    assert_eq!(watched.withdrawn(true), Some(Withdrawn::Expired));
}

#[test]
fn what_does_not_expire_is_never_cut() {
    let bench = Bench::new();
    let who = Who {
        expires: None,
        ..ann()
    };
    let (watched, _) = bench.watch(&identity(&who), Expiry::Cut);
    bench.pass(1 << 40);
    assert_eq!(
        (watched.withdrawn(true), watched.withdrawn(false)),
        (None, None)
    );
}

/// The rule, spelt out over all records.
fn naive(records: &[RevocationRecord], who: &Who, now: u64) -> bool {
    records.iter().any(|record| {
        let before = who.issued.is_none_or(|issued| issued < record.at);
        record.issuer == who.issuer
            && record.until.is_none_or(|until| now < until)
            && match &record.what {
                RevokedName::Token(id) => who.token_id.as_ref() == Some(id),
                RevokedName::Key(id) => who.key_id.as_ref() == Some(id),
                RevokedName::Subject(name) => who.subject == *name && before,
                RevokedName::Client(name) => who.client.as_ref() == Some(name) && before,
                RevokedName::Issuer => before,
            }
    })
}

fn a_name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()])
}

fn a_record() -> impl Strategy<Value = RevocationRecord> {
    let what = (a_name(), 0..5usize).prop_map(|(name, kind)| every_kind(&name)[kind].clone());
    let times = (NOW - 4..NOW + 4, option::of(NOW - 2..NOW + 6));
    (what, a_name(), times).prop_map(|(what, issuer, (at, until))| RevocationRecord {
        what,
        issuer,
        at,
        until,
    })
}

fn somebody() -> impl Strategy<Value = Who> {
    let names = (
        a_name(),
        a_name(),
        option::of(a_name()),
        option::of(a_name()),
    );
    (names, option::of(a_name()), option::of(NOW - 5..NOW + 5)).prop_map(
        |((issuer, subject, client, token_id), key_id, issued)| Who {
            issuer,
            subject,
            client,
            token_id,
            key_id,
            issued,
            expires: None,
        },
    )
}

proptest! {
    /// Some requests live before the revocations come, some after, some are over: each hears what the rule says.
    #[test]
    fn any_revocations_end_exactly_what_the_rule_ends(
        rounds in vec(vec(a_record(), 0..12), 1..4),
        people in vec(somebody(), 1..12),
    ) {
        let bench = Bench::new();
        let identities: Vec<_> = people.iter().map(identity).collect();
        // What was revoked once stays so, whatever later records say.
        let mut requests: Vec<_> = people.iter().zip(&identities).map(|(who, identity)| {
            (who, bench.watch(identity, Expiry::Finish), false)
        }).collect();
        for (round, records) in rounds.into_iter().enumerate() {
            bench.revoked.replace(records.clone());
            let now = NOW + round as u64;
            for (who, identity) in people.iter().zip(&identities) {
                let refused = bench.revoked.check(identity).is_err();
                prop_assert_eq!(refused, naive(&records, who, now), "{:?}", who);
                requests.push((who, bench.watch(identity, Expiry::Finish), false));
            }
            for (who, (watched, _), ended) in &mut requests {
                *ended |= naive(&records, who, now);
                prop_assert_eq!(watched.withdrawn(true).is_some(), *ended, "{:?}", who);
            }
            requests.truncate(requests.len() - people.len() / 2);
            bench.pass(1);
        }
        drop(requests);
        prop_assert_eq!(bench.live(), 0);
    }
}
