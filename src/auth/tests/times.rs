//! Class F: time claims that are absent, mistyped, extreme or contradictory.

use std::time::Duration;

use serde_json::json;

use super::kit::*;
use crate::auth::{AuthConfig, Gate, Reason};
use crate::clock::Clock;

#[test]
fn a_token_is_good_until_the_second_of_expiry_plus_skew() {
    let (clock, hand) = Clock::manual(NOW);
    let config = AuthConfig {
        issuers: vec![ed_issuer()],
        ..AuthConfig::default()
    };
    let gate = Gate::new(&config, None, clock).unwrap();
    let token = token_with(json!({"exp": NOW + 600}));
    accepted(&gate, &token);
    hand.advance(Duration::from_secs(659));
    accepted(&gate, &token);
    hand.advance(Duration::from_secs(1));
    assert_refused(
        &gate,
        &token,
        Reason::TokenExpired,
        "expired 60 s ago (skew 60 s)",
    );
    hand.advance(Duration::from_secs(3600));
    assert_refused(&gate, &token, Reason::TokenExpired, "expired 61 min ago");
}

#[test]
fn without_skew_a_token_is_dead_at_exp_itself() {
    let gate = gate_with(|issuer| issuer.clock_skew_s = 0);
    accepted(&gate, &token_with(json!({"exp": NOW + 1})));
    assert_refused(
        &gate,
        &token_with(json!({"exp": NOW})),
        Reason::TokenExpired,
        "expired 0 s ago",
    );
    // A fraction rounds towards refusal.
    assert_refused(
        &gate,
        &token_with(json!({"exp": NOW as f64 + 0.9})),
        Reason::TokenExpired,
        "",
    );
}

#[test]
fn exp_is_required_and_must_be_a_date() {
    assert_refused(
        &gate(),
        &token_with(json!({"exp": null})),
        Reason::InvalidClaims,
        "`exp` is missing",
    );
    for exp in [
        json!("1800000600"),
        json!(true),
        json!([NOW + 60]),
        json!({"n": 1}),
    ] {
        assert_refused(
            &gate(),
            &token_with(json!({"exp": exp})),
            Reason::InvalidClaims,
            "`exp` is not a number",
        );
    }
    for exp in [
        json!(-1),
        json!(-1e300),
        json!(1e19),
        json!(u64::MAX),
        json!(i64::MAX),
        json!(1e308),
    ] {
        assert_refused(
            &gate(),
            &token_with(json!({"exp": exp})),
            Reason::InvalidClaims,
            "`exp` is no date",
        );
    }
    let null = good_claims()
        .to_string()
        .replacen(&(NOW + 600).to_string(), "null", 1);
    assert_refused(
        &gate(),
        &forge(&ED, GOOD_HEADER, &null),
        Reason::InvalidClaims,
        "`exp` is not a number",
    );
}

#[test]
fn milliseconds_are_recognised() {
    let token = token_with(json!({"exp": (NOW + 600) * 1000}));
    assert_refused(
        &gate(),
        &token,
        Reason::InvalidClaims,
        "are these milliseconds?",
    );
}

#[test]
fn fractional_dates_are_dates() {
    accepted(
        &gate(),
        &token_with(json!({"exp": NOW as f64 + 600.5, "iat": NOW as f64 - 0.5})),
    );
}

#[test]
fn nbf_and_iat_in_the_future_are_not_active_yet() {
    for name in ["nbf", "iat"] {
        accepted(&gate(), &token_with(json!({name: NOW + 60})));
        let token = token_with(json!({name: NOW + 61}));
        assert_refused(
            &gate(),
            &token,
            Reason::TokenNotActive,
            &format!("`{name}` is 61 s in the future"),
        );
        for bad in [
            json!("x"),
            json!(-1),
            json!(NOW * 1000),
            json!([]),
            json!(false),
        ] {
            assert_refused(
                &gate(),
                &token_with(json!({name: bad})),
                Reason::InvalidClaims,
                &format!("`{name}`"),
            );
        }
    }
}

#[test]
fn dates_that_contradict_each_other_are_refused() {
    for name in ["nbf", "iat"] {
        let token = token_with(json!({name: NOW + 601}));
        assert_refused(&gate(), &token, Reason::InvalidClaims, "is after `exp`");
    }
}

#[test]
fn a_token_that_lives_too_long_is_refused() {
    let day = 24 * 3600;
    accepted(&gate(), &token_with(json!({"iat": NOW, "exp": NOW + day})));
    for (claims, about) in [
        (json!({"iat": NOW, "exp": NOW + day + 1}), "may live 24 h"),
        (json!({"iat": NOW - 2 * day, "exp": NOW + 60}), "lives 2 d"),
        (json!({"iat": 0, "exp": NOW + 60}), "may live 24 h"),
        (json!({"iat": null, "exp": NOW + day + 61}), "may live 24 h"),
        (
            json!({"iat": null, "exp": 253_402_300_799_u64}),
            "may live 24 h",
        ),
    ] {
        assert_refused(&gate(), &token_with(claims), Reason::InvalidClaims, about);
    }
    accepted(
        &gate(),
        &token_with(json!({"iat": null, "exp": NOW + day + 60})),
    );
    let entra = gate_with(|issuer| issuer.max_lifetime_s = Some(28 * 3600));
    accepted(
        &entra,
        &token_with(json!({"iat": NOW, "exp": NOW + 28 * 3600})),
    );
}

#[test]
fn a_clock_before_1970_and_dates_at_the_edges_do_not_overflow() {
    let config = AuthConfig {
        issuers: vec![ed_issuer()],
        ..AuthConfig::default()
    };
    let gate = Gate::new(&config, None, Clock::manual(0).0).unwrap();
    accepted(&gate, &token_with(json!({"exp": 60, "iat": 0, "nbf": 0})));
    for exp in [0, 1, 253_402_300_799_u64] {
        let _ = gate.verify(token_with(json!({"exp": exp, "iat": null})).as_bytes());
    }
}

/// Where the skew still forgives the expiry, what is left of such a token is less than nothing.
#[test]
fn a_token_that_lives_too_long_and_has_just_expired_is_refused_without_a_panic() {
    let token = token_with(json!({"iat": NOW - 48 * 3600, "exp": NOW - 10}));
    assert_refused(
        &gate(),
        &token,
        Reason::InvalidClaims,
        "the token lives 47 h, this issuer's tokens may live 24 h",
    );
}
