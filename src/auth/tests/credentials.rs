//! API keys and client certificates at the gate, and which of several credentials counts.

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use serde_json::json;

use super::kit::*;
use crate::auth::{
    AuthConfig, Caller, CertificateConfig, Credential, Denied, Gate, Identity, NewApiKey, Reason,
};
use crate::clock::Clock;
use crate::ledger::{Ledger, RevocationRecord, RevokedName};

fn gate_that(change: impl FnOnce(&mut AuthConfig)) -> (Gate, Ledger, String) {
    let mut config = AuthConfig {
        issuers: vec![ed_issuer()],
        ..AuthConfig::default()
    };
    change(&mut config);
    let gate = Gate::new(&config, None, Clock::manual(NOW).0).unwrap();
    let new = NewApiKey {
        subject: "robot".to_owned(),
        scopes: "chat".to_owned(),
        ..NewApiKey::default()
    };
    let (key, record) = new.make(NOW).unwrap();
    let ledger = Ledger::in_memory();
    ledger.put_api_key(&record).unwrap();
    gate.reload(&ledger).unwrap();
    (gate, ledger, key.expose().clone())
}

fn with_headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn ask(
    gate: &Gate,
    pairs: &[(&'static str, &str)],
    certificate: Option<&[u8]>,
) -> Result<Identity, Denied> {
    let headers = with_headers(pairs);
    let caller = Caller {
        certificate,
        ..Caller::local(&headers)
    };
    let answer = gate.authenticate(caller).now_or_never().unwrap();
    answer.map(|identity| (*identity).clone())
}

fn reason(answer: Result<Identity, Denied>) -> Reason {
    answer.unwrap_err().reason()
}

fn certificate() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

fn identifying(config: &mut AuthConfig) {
    config.certificates = CertificateConfig {
        identify: true,
        ..CertificateConfig::default()
    };
}

#[test]
fn an_api_key_is_a_bearer_like_a_token() {
    let (gate, _, key) = gate_that(|_| {});
    let identity = ask(&gate, &[("authorization", &format!("bearer  {key}"))], None).unwrap();
    assert_eq!(
        (identity.subject(), identity.credential()),
        ("robot", Credential::ApiKey)
    );
    let other = if key.ends_with('x') { 'y' } else { 'x' };
    let typo = format!("Bearer {}{other}", &key[..61]);
    let denied = ask(&gate, &[("authorization", &typo)], None).unwrap_err();
    assert_eq!((denied.status(), denied.code()), (401, "invalid_api_key"));
    assert_eq!(
        denied.challenge().unwrap(),
        r#"Bearer realm="llm", error="invalid_token""#
    );
    assert_eq!(denied.message(), "The API key is invalid.");
    assert!(denied.extra_headers().is_empty());
}

#[test]
fn api_key_headers_are_nothing_until_they_are_asked_for() {
    let (gate, _, key) = gate_that(|_| {});
    for name in ["api-key", "x-api-key"] {
        assert_eq!(
            reason(ask(&gate, &[(name, &key)], None)),
            Reason::MissingCredentials
        );
        let bearer = format!("Bearer {}", good_token());
        let both = [("authorization", &*bearer), (name, &*key)];
        assert_eq!(ask(&gate, &both, None).unwrap().subject(), "alice");
    }
    let (gate, _, key) = gate_that(|config| config.api_key_headers = true);
    for name in ["api-key", "x-api-key"] {
        assert_eq!(
            ask(&gate, &[(name, &key)], None).unwrap().subject(),
            "robot"
        );
        assert_eq!(
            reason(ask(&gate, &[(name, " ")], None)),
            Reason::MissingCredentials
        );
        // A token has no business there.
        let token = ask(&gate, &[(name, &good_token())], None);
        assert_eq!(reason(token), Reason::InvalidApiKey);
        let scheme = ask(&gate, &[(name, &format!("Bearer {key}"))], None);
        assert_eq!(reason(scheme), Reason::InvalidApiKey);
    }
}

#[test]
fn two_credentials_are_400_in_any_combination_whatever_they_hold() {
    let (gate, _, key) = gate_that(|config| config.api_key_headers = true);
    let (token, as_bearer) = (format!("Bearer {}", good_token()), format!("Bearer {key}"));
    let fields = [
        ("authorization", &*token),
        ("authorization", &*as_bearer),
        ("authorization", "Basic YTpi"),
        ("authorization", ""),
        ("api-key", &*key),
        ("api-key", ""),
        ("x-api-key", &*key),
        ("x-api-key", "nonsense"),
    ];
    for one in fields {
        for other in fields {
            let denied = ask(&gate, &[one, other], None).unwrap_err();
            assert_eq!(
                (denied.status(), denied.code()),
                (400, "multiple_credentials"),
                "{one:?} {other:?}"
            );
        }
    }
}

#[test]
fn a_certificate_is_the_credential_only_where_it_may_be_and_no_header_is_there() {
    let der = certificate();
    let (gate, ..) = gate_that(|_| {});
    assert_eq!(
        reason(ask(&gate, &[], Some(&der))),
        Reason::MissingCredentials
    );
    let (gate, _, key) = gate_that(identifying);
    let identity = ask(&gate, &[], Some(&der)).unwrap();
    assert_eq!(identity.credential(), Credential::Certificate);
    assert_eq!(identity.subject(), "a.example");
    let bearer = format!("Bearer {key}");
    let both = ask(&gate, &[("authorization", &bearer)], Some(&der)).unwrap();
    assert_eq!(both.subject(), "robot");
    // What was meant is not clear, so nothing is taken.
    let other = ask(&gate, &[("authorization", "Basic YTpi")], Some(&der));
    assert_eq!(reason(other), Reason::MissingCredentials);
    let bad = ask(&gate, &[("authorization", "Bearer x.y.z")], Some(&der));
    assert_eq!(reason(bad), Reason::InvalidToken);
    assert_eq!(reason(ask(&gate, &[], None)), Reason::MissingCredentials);
}

#[test]
fn a_bound_token_needs_its_own_certificate_on_the_connection() {
    let (gate, ..) = gate_that(|_| {});
    let (mine, others) = (certificate(), certificate());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &mine);
    let thumbprint = URL_SAFE_NO_PAD.encode(digest);
    let token = token_with(json!({"cnf": {"x5t#S256": thumbprint}}));
    let bearer = format!("Bearer {token}");
    let with = |certificate| ask(&gate, &[("authorization", &bearer)], certificate);
    assert_eq!(with(Some(&mine)).unwrap().subject(), "alice");
    for certificate in [None, Some(&*others), Some(&[][..])] {
        let denied = with(certificate).unwrap_err();
        assert_eq!(denied.code(), "invalid_token_binding");
    }
    assert!(gate.verify(token.as_bytes()).unwrap().is_bound());
    // One that is not bound does not mind.
    let plain = format!("Bearer {}", good_token());
    assert!(ask(&gate, &[("authorization", &plain)], Some(&others)).is_ok());
}

#[test]
fn a_revoked_token_is_401_token_revoked() {
    let (gate, ledger, _) = gate_that(|_| {});
    let token = format!("Bearer {}", token_with(json!({"jti": "j-1"})));
    assert!(ask(&gate, &[("authorization", &token)], None).is_ok());
    let record = RevocationRecord {
        what: RevokedName::Token("j-1".to_owned()),
        issuer: ISSUER.to_owned(),
        at: NOW,
        until: None,
    };
    ledger.revoke(&record).unwrap();
    gate.reload(&ledger).unwrap();
    let denied = ask(&gate, &[("authorization", &token)], None).unwrap_err();
    assert_eq!((denied.status(), denied.code()), (401, "token_revoked"));
    assert!(denied.extra_headers().is_empty());
    ledger.unrevoke(&record.what, ISSUER).unwrap();
    gate.reload(&ledger).unwrap();
    assert!(ask(&gate, &[("authorization", &token)], None).is_ok());
}

#[test]
fn a_revoked_key_vouches_for_nothing_although_the_token_does_not_name_it() {
    let (gate, ledger, _) = gate_that(|_| {});
    let record = RevocationRecord {
        what: RevokedName::Key(KID.to_owned()),
        issuer: ISSUER.to_owned(),
        at: NOW,
        until: None,
    };
    // Whoever has stolen the key writes the header as he likes.
    let nameless = forge(&ED, r#"{"alg":"EdDSA"}"#, &good_claims().to_string());
    assert_eq!(accepted(&gate, &nameless).key_id(), Some(KID));
    ledger.revoke(&record).unwrap();
    gate.reload(&ledger).unwrap();
    assert_refused(&gate, &good_token(), Reason::TokenRevoked, "its key");
    assert_refused(&gate, &nameless, Reason::TokenRevoked, "its key");
}
