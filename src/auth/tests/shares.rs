//! Which share an identity gets, and which entries are refused at start.

use std::time::Duration;

use serde_json::json;

use super::kit::{ED, ISSUER, accepted, ed_issuer, gate_of, issuer, pem_key, token_with};
use crate::auth::{AuthConfig, Gate, GateError, Priority, Share, ShareConfig};
use crate::clock::Clock;

const OTHER: &str = "https://other.example/";

fn try_gate(toml: &str, others: usize) -> Result<Gate, GateError> {
    let shares = toml::from_str::<AuthConfig>(toml).unwrap().shares;
    let mut believed = ed_issuer();
    believed.tenant_claim = Some("org".to_owned());
    let mut issuers = vec![believed];
    issuers.extend((0..others).map(|_| issuer(OTHER, vec![pem_key(None, &ED)])));
    let config = AuthConfig {
        issuers,
        shares,
        ..AuthConfig::default()
    };
    Gate::new(&config, None, Clock::manual(super::kit::NOW).0)
}

/// The error and the hint, as they are printed.
fn complaint(toml: &str, others: usize) -> String {
    let error = try_gate(toml, others).unwrap_err();
    match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}

fn share_of(toml: &str, claims: serde_json::Value) -> Share {
    let gate = try_gate(toml, 0).unwrap();
    let identity = accepted(&gate, &token_with(claims));
    gate.rights(&identity, [127, 0, 0, 1].into()).unwrap().share
}

#[test]
fn the_first_entry_all_of_whose_conditions_hold_counts() {
    let toml = "[[shares]]\ntenant = \"acme\"\nscope = \"batch\"\npriority = \"low\"\n\
                [[shares]]\ntenant = \"acme\"\nweight = 4\nmax_request_seconds = 60\n\
                [[shares]]\nclient = \"app\"\npriority = \"high\"\n\
                [[shares]]\nweight = 2\n";
    let weight = |weight: u32| Share {
        weight: weight.try_into().unwrap(),
        ..Share::default()
    };
    let batch = share_of(toml, json!({"org": "acme", "scope": "chat batch"}));
    assert_eq!((batch.priority, batch.weight.get()), (Priority::Low, 1));
    assert_eq!(
        share_of(toml, json!({"org": "acme", "scope": "chat batches"})),
        Share {
            deadline: Some(Duration::from_secs(60)),
            ..weight(4)
        }
    );
    let client = share_of(toml, json!({"client_id": "app"}));
    assert_eq!(client.priority, Priority::High);
    assert_eq!(share_of(toml, json!({"org": "Acme"})), weight(2));
}

#[test]
fn without_entries_everybody_is_equal() {
    let gate = gate_of(vec![ed_issuer()]);
    let identity = accepted(&gate, &token_with(json!({})));
    assert_eq!(
        gate.rights(&identity, [127, 0, 0, 1].into()).unwrap().share,
        Share::default()
    );
}

#[test]
fn claims_called_as_settings_change_nothing() {
    let toml = "[[shares]]\ntenant = \"acme\"\npriority = \"high\"\n";
    let claims =
        json!({"priority": "high", "weight": 1000, "tenant": "acme", "shares": [{"weight": 9}]});
    assert_eq!(share_of(toml, claims), Share::default());
}

#[test]
fn an_entry_that_could_never_count_is_refused() {
    assert_eq!(
        complaint("[[shares]]\nweight = 2\n[[shares]]\nsubject = \"a\"\n", 0),
        "auth.shares, entry 1: it has no conditions, so that no later entry would ever count\n\
         hint: put it last, or give it an issuer, subject, tenant, client or scope"
    );
    assert_eq!(
        complaint(
            "[[shares]]\nsubject = \"a\"\n[[shares]]\nsubject = \"a\"\nweight = 2\n",
            0
        ),
        "auth.shares, entry 2: entry 1 has the same conditions, so that it would never count"
    );
    assert_eq!(
        complaint("[[shares]]\nsubject = \"\"\n", 0),
        "auth.shares, entry 1: `subject` is not 1 to 256 plain characters"
    );
    assert_eq!(
        complaint("[[shares]]\nissuer = \"https://idp.example\"\n", 0),
        "auth.shares, entry 1: the issuer `https://idp.example` is not configured\n\
         hint: write it exactly as in [[auth.issuers]]; a trailing slash counts"
    );
}

#[test]
fn numbers_outside_their_range_are_refused() {
    for (line, words) in [
        ("weight = 0", "`weight` is 0, it must be 1 to 1000"),
        ("weight = 1001", "`weight` is 1001, it must be 1 to 1000"),
        (
            "max_request_seconds = 0",
            "`max_request_seconds` is 0, it must be 1 to 86400",
        ),
    ] {
        let toml = format!("[[shares]]\n{line}\n");
        assert_eq!(
            complaint(&toml, 0),
            format!("auth.shares, entry 1: {words}")
        );
    }
    for line in ["weight = -1", "priority = \"urgent\"", "wieght = 2"] {
        let toml = format!("[[shares]]\n{line}\n");
        assert!(toml::from_str::<AuthConfig>(&toml).is_err(), "{line}");
    }
}

#[test]
fn among_several_issuers_a_name_needs_the_one_that_gave_it() {
    assert_eq!(
        complaint("[[shares]]\nsubject = \"root\"\n", 1),
        "auth.shares, entry 1: `subject` is a name that each of the 2 issuers gives by itself\n\
         hint: name the issuer too"
    );
    let whole = format!("[[shares]]\nissuer = \"{ISSUER}\"\nsubject = \"root\"\n");
    assert!(try_gate(&whole, 1).is_ok());
    assert!(try_gate("[[shares]]\nscope = \"batch\"\n", 1).is_ok());
}

#[test]
fn entries_are_written_as_they_are_read() {
    let toml = "[[shares]]\nclient = \"app\"\nweight = 3\npriority = \"low\"\n";
    let config: AuthConfig = toml::from_str(toml).unwrap();
    assert_eq!(
        config.shares,
        [ShareConfig {
            client: Some("app".to_owned()),
            weight: Some(3),
            priority: Priority::Low,
            ..ShareConfig::default()
        }]
    );
    let again: AuthConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
}
