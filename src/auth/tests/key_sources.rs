//! Class K, before the first request: where keys may come from, judged without the network.

use serde_json::{Value, json};

use super::kit::*;
use crate::auth::{Gate, GateError, IssuerConfig, KeyStats};

/// An issuer entry as it is written, with everything that these tests do not mean filled in.
pub(super) fn entry(fields: Value) -> IssuerConfig {
    let mut entry = json!({"issuer": ISSUER, "audiences": [AUDIENCE]});
    entry
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    serde_json::from_value(entry).unwrap()
}

fn try_entry(fields: Value) -> Result<Gate, GateError> {
    try_gate(vec![entry(fields)])
}

/// What is wrong with it, and the hint.
fn fault(fields: Value) -> (String, String) {
    let error = try_entry(fields).unwrap_err();
    let hint = error.hint().unwrap_or_default().to_owned();
    let text = error.to_string();
    (text.split_once(": ").unwrap().1.to_owned(), hint)
}

/// Where the keys of an entry are fetched.
fn keys_url(fields: Value) -> String {
    let gate = try_entry(fields).unwrap();
    gate.issuers()[0].keys_url.clone().unwrap()
}

#[test]
fn an_issuer_has_exactly_one_source_of_keys() {
    let key = json!({"pem": ED.pem()});
    let (none, hint) = fault(json!({}));
    assert_eq!(
        none,
        "it has no `keys`, no `jwks_url`, no `discovery` and no `preset`, which would admit nobody"
    );
    assert_eq!(
        hint,
        "write discovery = true, or jwks_url, or [[auth.issuers.keys]]"
    );
    assert_eq!(fault(json!({"discovery": false})).0, none);
    for two in [
        json!({"keys": [key], "jwks_url": "https://idp.example/keys"}),
        json!({"keys": [key], "discovery": true}),
        json!({"jwks_url": "https://idp.example/keys", "discovery": true}),
        json!({"jwks_url": "https://idp.example/keys", "discovery": "https://idp.example/x"}),
    ] {
        assert_eq!(
            fault(two).0,
            "it has more than one of `keys`, `jwks_url` and `discovery`"
        );
    }
    for one in [
        json!({"keys": [key], "discovery": false}),
        json!({"keys": [key], "preset": "auth0"}),
        json!({"preset": "auth0"}),
        json!({"preset": "auth0", "jwks_url": "https://idp.example/keys"}),
    ] {
        assert!(try_entry(one.clone()).is_ok(), "{one}");
    }
}

#[test]
fn keys_come_over_https_or_from_loopback_where_that_is_allowed() {
    let with = |url: &str, allowed: bool| {
        try_entry(json!({"jwks_url": url, "allow_http_loopback": allowed}))
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    for good in [
        "https://idp.example/keys",
        "https://10.0.0.1:8443/keys",
        "https://[2001:db8::1]/keys?appid=1",
    ] {
        assert_eq!(with(good, false), Ok(()), "{good}");
    }
    for loopback in [
        "http://127.0.0.1:8080/keys",
        "http://127.8.8.8/keys",
        "http://[::1]:8080/keys",
        "http://localhost/keys",
    ] {
        assert_eq!(with(loopback, true), Ok(()), "{loopback}");
        let fault = with(loopback, false).unwrap_err();
        assert!(fault.ends_with("http on this machine needs allow_http_loopback = true"));
    }
    for plain in [
        "http://idp.example/keys",
        "http://localhost.example/keys",
        "http://127.0.0.1.example/keys",
        "http://10.0.0.1/keys",
        "ftp://idp.example/keys",
        "file:///etc/passwd",
        "data:application/json,{}",
    ] {
        assert!(
            with(plain, true).unwrap_err().ends_with("it is not https"),
            "{plain}"
        );
    }
    for (bad, about) in [
        ("", "it is no URL"),
        ("/keys", "it is no URL"),
        ("https://", "it is no URL"),
        (
            "https://user:secret@idp.example/keys",
            "it holds a user name or a password",
        ),
        (
            "https://user@idp.example/keys",
            "it holds a user name or a password",
        ),
        (
            "https://idp.example/{tenantid}/keys",
            "a template is no place",
        ),
    ] {
        let fault = with(bad, true).unwrap_err();
        assert!(fault.ends_with(about), "{fault}");
    }
}

#[test]
fn discovery_looks_in_the_issuers_usual_place() {
    for (fields, url) in [
        (
            json!({"discovery": true}),
            "https://idp.example/.well-known/openid-configuration",
        ),
        (
            json!({"discovery": true, "issuer": "https://idp.example/realms/r"}),
            "https://idp.example/realms/r/.well-known/openid-configuration",
        ),
        (
            json!({"discovery": "https://idp.example/where"}),
            "https://idp.example/where",
        ),
        (
            json!({"preset": "entra", "issuer": format!("https://login.microsoftonline.com/{TENANT}/v2.0")}),
            &format!(
                "https://login.microsoftonline.com/{TENANT}/v2.0/.well-known/openid-configuration"
            ),
        ),
        (
            json!({"preset": "entra", "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0", "tenants": [TENANT]}),
            "https://login.microsoftonline.com/common/v2.0/.well-known/openid-configuration",
        ),
        (
            json!({"preset": "entra-v1", "issuer": format!("https://sts.windows.net/{TENANT}/")}),
            &format!("https://login.microsoftonline.com/{TENANT}/.well-known/openid-configuration"),
        ),
        (
            json!({"preset": "entra-v1", "issuer": "https://sts.windows.net/{tenantid}/", "tenants": [TENANT]}),
            "https://login.microsoftonline.com/common/.well-known/openid-configuration",
        ),
    ] {
        assert_eq!(keys_url(fields), url);
    }
    let (text, hint) = fault(
        json!({"discovery": true, "issuer": "https://{tenantid}.example/", "tenants": ["a"]}),
    );
    assert_eq!(
        text,
        "where the discovery document of a template is cannot be told"
    );
    assert_eq!(hint, "write discovery = \"https://…\" with its URL");
    assert!(
        fault(json!({"discovery": true, "issuer": "acme"}))
            .0
            .ends_with("it is no URL")
    );
}

pub(super) const TENANT: &str = "11111111-2222-3333-4444-55555555aaaa";

#[test]
fn a_template_needs_tenants_and_tenants_a_template() {
    let entra = |issuer: &str, tenants: Value| json!({"preset": "entra", "issuer": issuer, "tenants": tenants});
    let template = "https://login.microsoftonline.com/{tenantid}/v2.0";
    let (text, hint) = fault(entra(template, json!([])));
    assert_eq!(text, "`tenants` is empty, which would admit nobody");
    assert_eq!(
        hint,
        "list the tenant ids that may come in; there is no way to let in all"
    );
    let exact = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    assert_eq!(
        fault(entra(&exact, json!([TENANT]))).0,
        "`tenants` are named, and `issuer` has no `{tenantid}`"
    );
    for bad in [
        "common",
        "contoso.onmicrosoft.com",
        "11111111-2222-3333-4444-55555555AAAA",
        "11111111222233334444555555555555",
        "11111111-2222-3333-4444-55555555aaaa/",
        "",
    ] {
        assert_eq!(
            fault(entra(template, json!([bad]))).0,
            format!("the tenant `{bad}` is no tenant id, or is named twice")
        );
    }
    for pseudo in ["common", "organizations", "consumers"] {
        let issuer = format!("https://login.microsoftonline.com/{pseudo}/v2.0");
        let (text, hint) = fault(entra(&issuer, json!([])));
        assert_eq!(
            text,
            format!("the tenant `{pseudo}` is no tenant id, or is named twice")
        );
        assert!(hint.contains("common, organizations and consumers are none"));
    }
    assert!(
        fault(entra(template, json!([TENANT, TENANT])))
            .0
            .contains("named twice")
    );
    for outside in ["a/b", "..", ".", "a?b", "a#b", "a%2fb", "{tenantid}", "a@b"] {
        let fields = json!({"issuer": "https://idp.example/{tenantid}", "tenants": [outside],
            "discovery": "https://idp.example/d"});
        assert!(fault(fields).0.contains("is no tenant id"), "{outside}");
    }
}

#[test]
fn one_tenant_is_trusted_once() {
    let template = entry(json!({"preset": "entra", "tenants": [TENANT],
        "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"}));
    let exact = entry(json!({"preset": "entra",
        "issuer": format!("https://login.microsoftonline.com/{TENANT}/v2.0")}));
    let error = try_gate(vec![template, exact]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the issuer `https://login.microsoftonline.com/{TENANT}/v2.0` is configured twice")
    );
}

#[test]
fn published_keys_serve_no_hmac_and_numbers_stay_in_range() {
    let hmac = json!({"discovery": true, "algorithms": ["RS256", "HS256"]});
    assert_eq!(fault(hmac).0, "no key serves the algorithm HS256");
    let week = json!({"discovery": true, "stale_if_error_s": 604_801});
    assert_eq!(
        fault(week).0,
        "`stale_if_error_s` is 604801, it must be 0 to 604800"
    );
    for unknown in ["ES512", "none", "RSA-OAEP"] {
        let fields = json!({"discovery": true, "algorithms": [unknown]});
        assert_eq!(
            fault(fields).0,
            format!("the algorithm `{unknown}` is not supported")
        );
    }
}

#[test]
fn a_certificate_file_is_read_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let with = |text: Option<&str>| {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        fault(json!({"discovery": true, "ca_file": path})).0
    };
    let missing = with(None);
    assert!(
        missing.starts_with(&format!("`ca_file`: cannot read {}", path.display())),
        "{missing}"
    );
    let broken = "-----BEGIN CERTIFICATE-----\nAQAB\n-----END CERTIFICATE-----\n";
    for text in ["", "no certificate", &ED.pem(), broken] {
        assert_eq!(
            with(Some(text)),
            format!("`ca_file`: {} holds no certificates in PEM", path.display()),
            "{text}"
        );
    }
}

#[test]
fn nothing_is_fetched_and_nothing_is_known_before_the_start() {
    let gate = gate_of(vec![
        ed_issuer(),
        entry(json!({"issuer": "https://a.example", "discovery": true})),
        entry(json!({"issuer": "https://b.example", "discovery": true, "required": false})),
    ]);
    assert_eq!(gate.unready(), ["https://a.example"]);
    let nothing = |issuer| KeyStats {
        issuer,
        fetches: [
            ("ok", 0),
            ("unreachable", 0),
            ("refused", 0),
            ("invalid", 0),
        ],
        keys: 0,
        age: None,
        failures: 0,
        unknown_keys: 0,
    };
    assert_eq!(gate.monitor().stats(), [nothing(2), nothing(3)]);
    accepted(&gate, &good_token());
    // Nobody would ever answer, so nobody waits.
    let token = forge(
        &ED,
        GOOD_HEADER,
        &claims_with(json!({"iss": "https://a.example"})),
    );
    let denied = refused(&gate, &token);
    assert_eq!((denied.status(), denied.code()), (503, "auth_unavailable"));
    assert_eq!(denied.detail(), "this issuer's keys were not fetched yet");
}

#[test]
fn entries_are_written_as_they_are_read() {
    let text = "[[issuers]]\npreset = \"entra-v1\"\nissuer = \"https://sts.windows.net/{tenantid}/\"\n\
                tenants = [\"11111111-2222-3333-4444-55555555aaaa\"]\naudiences = [\"api://x\"]\n\
                discovery = \"https://login.example/d\"\nrequired = false\nstale_if_error_s = 60\n\
                allow_http_loopback = true\nrefuse_private_addresses = true\nscope_prefix = \"x/\"\n\
                subject_claim = \"sub\"\ntoken_id_claim = \"jti\"\naccept_id_tokens = true\n";
    let config: crate::auth::AuthConfig = toml::from_str(text).unwrap();
    let written = toml::to_string(&config).unwrap();
    assert_eq!(
        toml::from_str::<crate::auth::AuthConfig>(&written).unwrap(),
        config
    );
    for wrong in ["preset = \"azure\"", "discovery = 1", "required = \"no\""] {
        let text = format!("[[issuers]]\nissuer = \"x\"\naudiences = [\"y\"]\n{wrong}\n");
        assert!(
            toml::from_str::<crate::auth::AuthConfig>(&text).is_err(),
            "{wrong}"
        );
    }
}
