//! Who is counted together, and that nobody else is.

use serde_json::{Map, Value, json};

use super::*;
use crate::auth::identity::Claimed;
use crate::auth::{Credential, IdentityKey};

fn identity(issuer: &str, subject: &str, client: Option<&str>, claims: Value) -> Identity {
    let Value::Object(claims) = claims else {
        panic!("claims are an object")
    };
    let tenant = claims.get("tenant").and_then(Value::as_str).map(Arc::from);
    Identity::new(Claimed {
        issuer: issuer.into(),
        subject: subject.into(),
        tenant,
        client: client.map(Arc::from),
        token_id: None,
        scopes: Vec::new(),
        expires: None,
        issued: None,
        credential: Credential::Token,
        key_id: None,
        claims: Map::from_iter(claims),
    })
}

fn bearer(per: &Per, identity: &Identity) -> IdentityKey {
    per.bearer(identity)
}

fn claim(name: &str) -> Per {
    Per::Claim(name.into())
}

#[test]
fn names_of_one_issuer_are_not_those_of_another() {
    let of = |issuer| identity(issuer, "s", Some("c"), json!({"tenant": "t", "team": "x"}));
    let (one, other) = (of("https://a"), of("https://b"));
    for per in [Per::Subject, Per::Tenant, Per::Client, claim("team")] {
        assert_ne!(bearer(&per, &one), bearer(&per, &other), "{per:?}");
        assert_eq!(bearer(&per, &one), bearer(&per, &of("https://a")));
    }
}

#[test]
fn one_name_as_subject_tenant_client_and_claim_is_four_counters() {
    let same = identity("i", "x", Some("x"), json!({"tenant": "x", "x": "x"}));
    let all = [Per::Subject, Per::Tenant, Per::Client, claim("x")];
    for (at, per) in all.iter().enumerate() {
        for other in &all[..at] {
            assert_ne!(
                bearer(per, &same),
                bearer(other, &same),
                "{per:?} {other:?}"
            );
        }
    }
    // Nor do names run into each other.
    let left = identity("i", "s", Some("ab"), json!({"a": "bc"}));
    let right = identity("i", "s", Some("a"), json!({"ab": "c"}));
    assert_ne!(bearer(&Per::Client, &left), bearer(&Per::Client, &right));
    assert_ne!(bearer(&claim("a"), &left), bearer(&claim("ab"), &right));
}

#[test]
fn who_lacks_the_name_shares_one_count_with_all_who_do() {
    let bare = |issuer, subject| identity(issuer, subject, None, json!({}));
    let (one, other) = (bare("a", "1"), bare("b", "2"));
    for per in [Per::Client, claim("team")] {
        assert_eq!(bearer(&per, &one), bearer(&per, &other), "{per:?}");
    }
    // A subject without tenant is a tenant of its own.
    assert_ne!(bearer(&Per::Tenant, &one), bearer(&Per::Tenant, &other));
    // What is no plain value counts as none, so that no spelling of it opens a fresh count.
    for value in [
        json!(null),
        json!(["x", "y"]),
        json!({"x": 1}),
        json!(1.5),
        json!([]),
    ] {
        let odd = identity("a", "1", None, json!({"team": value}));
        assert_eq!(bearer(&claim("team"), &odd), bearer(&claim("team"), &one));
    }
    assert_ne!(bearer(&claim("team"), &one), bearer(&claim("unit"), &one));
}

#[test]
fn values_of_different_types_are_different_values() {
    let team = |value| identity("a", "1", None, json!({"team": value}));
    let values = [json!("1"), json!(1), json!(true), json!("true"), json!("")];
    for (at, value) in values.iter().enumerate() {
        for other in &values[..at] {
            assert_ne!(
                bearer(&claim("team"), &team(value)),
                bearer(&claim("team"), &team(other)),
                "{value} {other}"
            );
        }
    }
    let nested = identity("a", "1", None, json!({"realm": {"team": "x"}}));
    let missing = identity("a", "1", None, json!({}));
    let path = claim("/realm/team");
    assert_ne!(bearer(&path, &nested), bearer(&path, &missing));
}

#[test]
fn callers_without_a_client_cannot_go_past_the_limit_together() {
    let desk = Desk::open();
    let rights = Arc::new(Rights {
        limits: Arc::new([Limit {
            measure: Measure::RequestsPerMinute,
            per: Per::Client,
            most: 2,
        }]),
        ..Rights::default()
    });
    assert!(desk.admit("ann", &rights).is_ok());
    assert!(desk.admit("bob", &rights).is_ok());
    assert!(desk.admit("eve", &rights).is_err());
}
