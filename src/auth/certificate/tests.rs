use std::sync::LazyLock;

use rcgen::{CertificateParams, DnType, KeyPair, SanType, date_time_ymd};
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

/// A certificate of 2026 to 2028 with these names.
fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2028, 1, 1);
    change(&mut params);
    params.self_signed(&*KEY).unwrap().der().to_vec()
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn rules(config: Value) -> Certificates {
    Certificates::new(&serde_json::from_value(config).unwrap()).unwrap()
}

fn default_rules() -> Certificates {
    rules(json!({"identify": true, "scopes": ["chat"]}))
}

#[track_caller]
fn refused_for(rules: &Certificates, der: &[u8], about: &str) {
    let denied = rules.identity(der, NOW).unwrap_err();
    assert_eq!(
        (denied.status(), denied.code()),
        (401, "invalid_certificate")
    );
    assert!(denied.detail().contains(about), "{}", denied.detail());
}

#[test]
fn a_certificate_stands_for_its_first_name_in_the_configured_order() {
    let der = certificate(|params| {
        params.subject_alt_names = vec![dns("a.example"), uri("spiffe://example/a")];
        params.distinguished_name.push(DnType::CommonName, "a");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "acme");
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, "lab");
    });
    let identity = default_rules().identity(&der, NOW).unwrap();
    assert_eq!(identity.subject(), "spiffe://example/a");
    assert_eq!(identity.issuer(), CERTIFICATES_ISSUER);
    assert_eq!(identity.credential(), Credential::Certificate);
    assert_eq!(identity.tenant(), None);
    assert_eq!(identity.scopes().collect::<Vec<_>>(), ["chat"]);
    // 2028-01-01 is the last second that belongs to it.
    assert_eq!(identity.expires(), Some(1_830_297_601));
    assert_eq!(identity.issued(), Some(1_767_225_600));
    assert_eq!(
        identity.token_id(),
        Some(&*URL_SAFE_NO_PAD.encode(thumbprint(&der)))
    );
    for (order, tenant, wanted) in [
        (["dns", "cn"], "o", ("a.example", Some("acme"))),
        (["cn", "dns"], "ou", ("a", Some("lab"))),
    ] {
        let rules = rules(json!({"identify": true, "subject": order, "tenant": tenant}));
        let identity = rules.identity(&der, NOW).unwrap();
        assert_eq!((identity.subject(), identity.tenant()), wanted);
    }
}

#[test]
fn a_certificate_without_exactly_one_usable_name_is_nobody() {
    let rules = default_rules();
    refused_for(&rules, &certificate(|_| {}), "no name");
    let two = certificate(|params| {
        params.subject_alt_names = vec![dns("a.example"), dns("b.example")];
    });
    refused_for(&rules, &two, "2 names that could be its subject");
    let odd = certificate(|params| {
        params.distinguished_name.push(DnType::CommonName, "a\nb");
    });
    refused_for(&rules, &odd, "subject is not 1 to 256 plain characters");
    let long = certificate(|params| params.subject_alt_names = vec![uri(&"x".repeat(257))]);
    refused_for(&rules, &long, "subject is not 1 to 256 plain characters");
}

#[test]
fn a_certificate_out_of_date_is_refused_though_its_connection_lives_on() {
    let named = |params: &mut CertificateParams| params.subject_alt_names = vec![dns("a.example")];
    let der = certificate(named);
    assert!(default_rules().identity(&der, 1_830_297_600).is_ok());
    assert!(default_rules().identity(&der, 1_830_297_601).is_err());
    let future = certificate(|params| {
        named(params);
        params.not_before = date_time_ymd(2027, 6, 1);
    });
    refused_for(&default_rules(), &future, "out of date");
}

#[test]
fn bytes_that_are_no_certificate_are_refused_without_panic() {
    let der = certificate(|params| params.subject_alt_names = vec![dns("a.example")]);
    for end in 0..der.len() {
        refused_for(&default_rules(), &der[..end], "cannot be read");
    }
    refused_for(&default_rules(), &[&*der, b"x"].concat(), "cannot be read");
}

#[test]
fn rules_that_admit_nobody_or_grant_nonsense_are_refused() {
    for (config, about) in [
        (json!({"subject": []}), "`subject` is empty"),
        (json!({"scopes": ["chat models"]}), "`scopes`"),
        (json!({"scopes": [""]}), "`scopes`"),
    ] {
        let error = Certificates::new(&serde_json::from_value(config).unwrap());
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("auth.certificates: "), "{error}");
        assert!(error.contains(about), "{error}");
    }
    let unknown = json!({"subject": ["email"]});
    assert!(serde_json::from_value::<CertificateConfig>(unknown).is_err());
}

#[test]
fn a_confirmation_is_one_certificate_or_nothing_that_is_taken() {
    let bound = |confirmation| {
        let claims = json!({"cnf": confirmation});
        bound_to(claims.as_object().unwrap())
    };
    let good = URL_SAFE_NO_PAD.encode([7; 32]);
    assert_eq!(bound(json!({"x5t#S256": good})), Ok(Some([7; 32])));
    assert_eq!(bound_to(&Map::new()), Ok(None));
    for bad in [
        json!(null),
        json!({}),
        json!("x"),
        json!([good]),
        json!({"jkt": good}),
        json!({"x5t#S256": 7}),
        json!({"x5t#S256": &good[1..]}),
        json!({"x5t#S256": format!("{good}=")}),
        json!({"x5t#S256": good, "jkt": good}),
    ] {
        let denied = bound(bad).unwrap_err();
        assert_eq!(denied.reason(), Reason::InvalidTokenBinding);
    }
}
