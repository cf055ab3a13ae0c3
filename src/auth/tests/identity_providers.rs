//! Tokens in the shapes of the known products, against their presets. Class H: their other tokens are refused.
//!
//! The keys are static here; where they come from is another test's business.

use serde_json::{Value, json};

use super::key_sources::{TENANT, entry};
use super::kit::*;
use crate::auth::{Gate, Identity, PRESETS, Preset, Reason};

const OTHER_TENANT: &str = "99999999-8888-7777-6666-555555555555";
const OID: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const API: &str = "6e74172b-be56-4843-9ff4-e66a39bb12e3";

/// A gate over one preset with the static key `kid`.
fn gate_of_preset(fields: Value) -> Gate {
    let mut entry = entry(fields);
    let mut jwk = RSA.jwk();
    // Entra's say no `alg`, but sometimes whose they are.
    jwk["kid"] = json!("k");
    jwk["use"] = json!("sig");
    entry.keys = vec![jwk_key(&jwk)];
    gate_of(vec![entry])
}

fn token(header: Value, claims: &Value) -> String {
    forge(&RSA, &header.to_string(), &claims.to_string())
}

/// The usual header: `typ` JWT and a key id.
fn jwt(claims: &Value) -> String {
    token(json!({"alg": "RS256", "typ": "JWT", "kid": "k"}), claims)
}

fn with(claims: &Value, changes: Value) -> Value {
    let mut claims = claims.clone();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().shift_remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn facts(identity: &Identity) -> (&str, Option<&str>, Option<&str>, Vec<&str>) {
    (
        identity.subject(),
        identity.tenant(),
        identity.client(),
        identity.scopes().collect(),
    )
}

#[test]
fn auth0_tokens_of_both_profiles_are_understood() {
    let iss = "https://acme.eu.auth0.com/";
    let gate = gate_of_preset(json!({"preset": "auth0", "issuer": iss}));
    let machine = json!({"iss": iss, "sub": "abc@clients", "aud": AUDIENCE, "iat": NOW, "exp": NOW + 86_400,
        "azp": "abc", "gty": "client-credentials", "scope": "chat models"});
    let identity = accepted(&gate, &jwt(&machine));
    assert_eq!(
        facts(&identity),
        ("abc@clients", None, Some("abc"), vec!["chat", "models"])
    );
    let person = json!({"iss": iss, "sub": "auth0|5", "aud": [AUDIENCE, "https://acme.eu.auth0.com/userinfo"],
        "iat": NOW, "exp": NOW + 86_400, "azp": "abc", "scope": "openid", "permissions": ["chat"]});
    let identity = accepted(&gate, &jwt(&person));
    assert_eq!(
        facts(&identity),
        ("auth0|5", None, Some("abc"), vec!["openid", "chat"])
    );
    let rfc9068 = json!({"iss": iss, "sub": "abc@clients", "aud": AUDIENCE, "iat": NOW, "exp": NOW + 86_400,
        "client_id": "abc", "jti": "t1", "scope": "chat"});
    let header = json!({"alg": "RS256", "typ": "at+jwt", "kid": "k"});
    let identity = accepted(&gate, &token(header, &rfc9068));
    assert_eq!(
        (identity.client(), identity.token_id()),
        (Some("abc"), Some("t1"))
    );
    // Without the slash it is another issuer.
    let bare = with(&machine, json!({"iss": "https://acme.eu.auth0.com"}));
    assert_invalid(&gate, &jwt(&bare), "the issuer is");
    let id_token = with(&person, json!({"aud": AUDIENCE, "nonce": "n"}));
    assert_refused(&gate, &jwt(&id_token), Reason::InvalidTokenType, "`nonce`");
}

/// A user's access token of version 2.
fn entra_v2() -> Value {
    json!({"aud": API, "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "iat": NOW, "nbf": NOW,
        "exp": NOW + 28 * 3600, "azp": "client-1", "azpacr": "1", "oid": OID, "rh": "0.x", "scp": "chat models",
        "sub": "pairwise", "tid": TENANT, "uti": "u-1", "ver": "2.0"})
}

/// An application's access token of version 1, as a managed identity gets it.
fn entra_v1() -> Value {
    json!({"aud": format!("api://{API}"), "iss": format!("https://sts.windows.net/{TENANT}/"), "iat": NOW, "nbf": NOW,
        "exp": NOW + 86_400, "aio": "x", "appid": "client-1", "appidacr": "2", "idtyp": "app", "oid": OID,
        "roles": ["chat"], "sub": OID, "tid": TENANT, "uti": "u-1", "ver": "1.0"})
}

#[test]
fn entra_tokens_of_version_2_are_understood() {
    let iss = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    let gate = gate_of_preset(json!({"preset": "entra", "issuer": iss, "audiences": [API]}));
    let identity = accepted(&gate, &jwt(&entra_v2()));
    assert_eq!(
        facts(&identity),
        (OID, Some(TENANT), Some("client-1"), vec!["chat", "models"])
    );
    assert_eq!(identity.token_id(), Some("u-1"));
    let app = with(
        &entra_v2(),
        json!({"scp": null, "roles": ["chat", "metrics"]}),
    );
    assert_eq!(facts(&accepted(&gate, &jwt(&app))).3, ["chat", "metrics"]);
    // An ID token of the API's own application: the same issuer, audience, subject and key.
    let id = with(
        &entra_v2(),
        json!({"azp": null, "azpacr": null, "scp": null, "roles": ["chat"], "name": "A"}),
    );
    assert_refused(
        &gate,
        &jwt(&id),
        Reason::InvalidTokenType,
        "`azp` is missing",
    );
    let too_long = with(&entra_v2(), json!({"exp": NOW + 28 * 3600 + 1}));
    assert_refused(
        &gate,
        &jwt(&too_long),
        Reason::InvalidClaims,
        "max_lifetime_s",
    );
    for (changes, about) in [
        (json!({"ver": "1.0"}), "`ver`"),
        (json!({"ver": null}), "`ver` is missing"),
        (json!({"oid": null}), "`oid` is missing"),
        (json!({"tid": null}), "`tid` is missing"),
        (json!({"tid": OTHER_TENANT}), "`tid` is"),
        (json!({"tid": [TENANT]}), "`tid` is not a string"),
        (json!({"roles": "chat"}), "`roles` has the wrong type"),
    ] {
        let token = jwt(&with(&entra_v2(), changes));
        assert_refused(&gate, &token, Reason::InvalidClaims, about);
    }
    // Groups beyond 200 are a pointer, not a grant.
    let overage = with(
        &entra_v2(),
        json!({"scp": null, "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://g"}}}),
    );
    assert!(facts(&accepted(&gate, &jwt(&overage))).3.is_empty());
    assert_invalid(&gate, &jwt(&entra_v1()), "the issuer is");
}

#[test]
fn entra_tokens_of_version_1_are_understood() {
    let iss = format!("https://sts.windows.net/{TENANT}/");
    let audiences = json!([format!("api://{API}"), API]);
    let gate = gate_of_preset(json!({"preset": "entra-v1", "issuer": iss, "audiences": audiences}));
    let identity = accepted(&gate, &jwt(&entra_v1()));
    assert_eq!(
        facts(&identity),
        (OID, Some(TENANT), Some("client-1"), vec!["chat"])
    );
    let by_id = with(&entra_v1(), json!({"aud": API}));
    accepted(&gate, &jwt(&by_id));
    let id_token = with(&entra_v1(), json!({"appid": null}));
    assert_refused(
        &gate,
        &jwt(&id_token),
        Reason::InvalidTokenType,
        "`appid` is missing",
    );
}

#[test]
fn a_template_lets_in_its_tenants_and_each_by_its_own_name_only() {
    let gate = gate_of_preset(
        json!({"preset": "entra", "audiences": [API], "tenants": [TENANT, OID],
        "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"}),
    );
    let identity = accepted(&gate, &jwt(&entra_v2()));
    assert_eq!(
        identity.issuer(),
        format!("https://login.microsoftonline.com/{TENANT}/v2.0")
    );
    let other = with(
        &entra_v2(),
        json!({"tid": OID, "iss": format!("https://login.microsoftonline.com/{OID}/v2.0")}),
    );
    let other = accepted(&gate, &jwt(&other));
    assert_ne!(identity.subject_key(), other.subject_key());
    assert_ne!(identity.tenant_key(), other.tenant_key());
    // A tenant that is not listed, and a token of one tenant that says it is of another.
    let stranger = with(
        &entra_v2(),
        json!({"tid": OTHER_TENANT, "iss": format!("https://login.microsoftonline.com/{OTHER_TENANT}/v2.0")}),
    );
    assert_invalid(&gate, &jwt(&stranger), "the issuer is");
    for tid in [
        json!(OID),
        json!(OTHER_TENANT),
        json!("{tenantid}"),
        json!(null),
    ] {
        let token = jwt(&with(&entra_v2(), json!({"tid": tid})));
        assert_refused(&gate, &token, Reason::InvalidClaims, "`tid`");
    }
    let literal = with(
        &entra_v2(),
        json!({"iss": "https://login.microsoftonline.com/{tenantid}/v2.0", "tid": "{tenantid}"}),
    );
    assert_invalid(&gate, &jwt(&literal), "the issuer is");
}

#[test]
fn a_key_that_names_its_issuer_vouches_for_no_other_tenant() {
    let gate_of_key = |issuer: &str| {
        let mut entry = entry(
            json!({"preset": "entra", "audiences": [API], "tenants": [TENANT, OID],
            "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"}),
        );
        let mut jwk = RSA.jwk();
        jwk["kid"] = json!("k");
        jwk["issuer"] = json!(issuer);
        entry.keys = vec![jwk_key(&jwk)];
        gate_of(vec![entry])
    };
    let good = jwt(&entra_v2());
    accepted(
        &gate_of_key("https://login.microsoftonline.com/{tenantid}/v2.0"),
        &good,
    );
    accepted(
        &gate_of_key(&format!("https://login.microsoftonline.com/{TENANT}/v2.0")),
        &good,
    );
    for other in [
        format!("https://login.microsoftonline.com/{OID}/v2.0"),
        "https://login.microsoftonline.us/{tenantid}/v2.0".to_owned(),
        "https://login.microsoftonline.com/{tenantid}/".to_owned(),
        String::new(),
    ] {
        assert_invalid(&gate_of_key(&other), &good, "published for another issuer");
    }
}

#[test]
fn entra_subjects_are_never_names_that_pass_on() {
    for claim in ["email", "upn", "preferred_username", "unique_name"] {
        let iss = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
        let error = try_gate(vec![entry(
            json!({"preset": "entra", "issuer": iss, "subject_claim": claim}),
        )])
        .unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("a name that may pass to somebody else")
        );
        assert_eq!(error.hint(), Some("take oid, which is never given away"));
    }
    let iss = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    let by_sub = gate_of_preset(
        json!({"preset": "entra", "issuer": iss, "audiences": [API], "subject_claim": "sub"}),
    );
    assert_eq!(accepted(&by_sub, &jwt(&entra_v2())).subject(), "pairwise");
}

#[test]
fn keycloak_access_tokens_are_told_from_its_other_tokens() {
    let iss = "https://id.example/realms/acme";
    let gate = gate_of_preset(json!({"preset": "keycloak", "issuer": iss,
        "scope_claims": ["scope", "/realm_access/roles", "/resource_access/mixgate/roles"]}));
    let claims = json!({"exp": NOW + 300, "iat": NOW, "jti": "j-1", "iss": iss, "aud": ["account", AUDIENCE],
        "sub": OID, "typ": "Bearer", "azp": "notebook", "sid": "s", "acr": "1", "scope": "openid chat",
        "realm_access": {"roles": ["models"]}, "resource_access": {"mixgate": {"roles": ["metrics"]},
        "account": {"roles": ["manage-account"]}}, "email_verified": false});
    let identity = accepted(&gate, &jwt(&claims));
    assert_eq!(
        facts(&identity),
        (
            OID,
            None,
            Some("notebook"),
            vec!["openid", "chat", "models", "metrics"]
        )
    );
    for typ in ["ID", "Refresh", "Offline", "Logout", "id"] {
        let token = jwt(&with(&claims, json!({"typ": typ})));
        assert_refused(
            &gate,
            &token,
            Reason::InvalidTokenType,
            "not an access token",
        );
    }
    for typ in [json!(null), json!("DPoP"), json!("bearer")] {
        let token = jwt(&with(&claims, json!({"typ": typ})));
        assert_refused(&gate, &token, Reason::InvalidClaims, "`typ`");
    }
    let unmapped = with(&claims, json!({"aud": "account"}));
    assert_refused(&gate, &jwt(&unmapped), Reason::InvalidAudience, "`account`");
    let none = with(&claims, json!({"aud": null}));
    assert_refused(
        &gate,
        &jwt(&none),
        Reason::InvalidClaims,
        "`aud` is missing",
    );
}

#[test]
fn cognito_access_tokens_name_their_client_instead_of_an_audience() {
    let iss = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_abc";
    let gate = gate_of_preset(
        json!({"preset": "cognito", "issuer": iss, "audiences": ["app-1"],
        "scope_prefix": "mixgate/"}),
    );
    let claims = json!({"sub": OID, "token_use": "access", "scope": "mixgate/chat openid other/admin mixgate/",
        "auth_time": NOW, "iss": iss, "exp": NOW + 3600, "iat": NOW, "version": 2, "jti": "j", "client_id": "app-1",
        "username": "ann", "cognito:groups": ["admin"]});
    // Cognito's header says no `typ`.
    let header = json!({"kid": "k", "alg": "RS256"});
    let identity = accepted(&gate, &token(header.clone(), &claims));
    assert_eq!(facts(&identity), (OID, None, Some("app-1"), vec!["chat"]));
    let id_token = with(
        &claims,
        json!({"token_use": "id", "aud": "app-1", "client_id": null, "scope": null}),
    );
    refused(&gate, &token(header.clone(), &id_token));
    let posing = with(&claims, json!({"token_use": "id"}));
    assert_refused(
        &gate,
        &token(header.clone(), &posing),
        Reason::InvalidTokenType,
        "`id`",
    );
    let other = with(&claims, json!({"client_id": "app-2"}));
    assert_refused(
        &gate,
        &token(header, &other),
        Reason::InvalidAudience,
        "`app-2`",
    );
}

#[test]
fn okta_scopes_are_an_array_and_its_client_is_cid() {
    let iss = "https://acme.okta.com/oauth2/aus1";
    let gate =
        gate_of_preset(json!({"preset": "okta", "issuer": iss, "audiences": ["api://default"]}));
    let claims = json!({"ver": 1, "jti": "AT.x", "iss": iss, "aud": "api://default", "iat": NOW, "exp": NOW + 3600,
        "cid": "0oa1", "uid": "00u1", "scp": ["chat", "openid"], "auth_time": NOW, "sub": "ann@acme.com"});
    let header = json!({"kid": "k", "alg": "RS256"});
    let identity = accepted(&gate, &token(header.clone(), &claims));
    assert_eq!(
        facts(&identity),
        ("ann@acme.com", None, Some("0oa1"), vec!["chat", "openid"])
    );
    let id_token = with(&claims, json!({"cid": null, "scp": null}));
    assert_refused(
        &gate,
        &token(header, &id_token),
        Reason::InvalidTokenType,
        "`cid` is missing",
    );
}

#[test]
fn google_id_tokens_need_an_explicit_word() {
    let iss = "https://accounts.google.com";
    let fields =
        json!({"preset": "google", "issuer": iss, "audiences": ["app.apps.googleusercontent.com"]});
    let error = try_gate(vec![entry(fields.clone())]).unwrap_err();
    assert!(
        error.to_string().contains("`accept_id_tokens` is not true"),
        "{error}"
    );
    let gate = gate_of_preset(with(
        &fields,
        json!({"accept_id_tokens": true, "default_scopes": ["chat"], "required_claims": {"hd": "acme.com"}}),
    ));
    let claims = json!({"iss": iss, "azp": "app.apps.googleusercontent.com", "aud": "app.apps.googleusercontent.com",
        "sub": "1076", "hd": "acme.com", "email": "a@acme.com", "email_verified": true, "at_hash": "x", "nonce": "y",
        "iat": NOW, "exp": NOW + 3600});
    let identity = accepted(&gate, &jwt(&claims));
    assert_eq!(
        facts(&identity),
        (
            "1076",
            Some("acme.com"),
            Some("app.apps.googleusercontent.com"),
            vec!["chat"]
        )
    );
    // Its other name is the same provider, and the same person.
    let bare = accepted(
        &gate,
        &jwt(&with(&claims, json!({"iss": "accounts.google.com"}))),
    );
    assert_eq!(bare.subject_key(), identity.subject_key());
    assert_eq!(bare.issuer(), iss);
    let private = with(&claims, json!({"hd": null}));
    assert_refused(
        &gate,
        &jwt(&private),
        Reason::InvalidClaims,
        "`hd` is missing",
    );
    let logout = with(&claims, json!({"events": {}}));
    assert_refused(&gate, &jwt(&logout), Reason::InvalidTokenType, "`events`");
}

#[test]
fn id_tokens_are_taken_only_where_that_is_said() {
    let gate = gate_with(|issuer| issuer.accept_id_tokens = true);
    for marker in [
        json!({"nonce": "n"}),
        json!({"at_hash": "x", "c_hash": "y"}),
        json!({"token_use": "id"}),
        json!({"typ": "ID"}),
    ] {
        accepted(&gate, &token_with(marker));
    }
    for other in [
        json!({"events": {}}),
        json!({"token_use": "refresh"}),
        json!({"typ": "Refresh"}),
        json!({"typ": "Logout"}),
    ] {
        assert_eq!(
            refused(&gate, &token_with(other)).reason(),
            Reason::InvalidTokenType
        );
    }
}

#[test]
fn what_an_entry_says_wins_over_its_preset() {
    let iss = "https://id.example/realms/acme";
    let gate = gate_of_preset(
        json!({"preset": "keycloak", "issuer": iss, "required_claims": {"typ": ["Bearer", "X"],
        "realm": "acme"}, "client_claim": "cli", "subject_claim": "uid", "token_id_claim": "tok", "max_lifetime_s": 60}),
    );
    let claims = json!({"iss": iss, "aud": AUDIENCE, "iat": NOW, "exp": NOW + 60, "sub": "s", "uid": "u", "cli": "c",
        "azp": "a", "tok": "t", "jti": "j", "typ": "X", "realm": "acme", "scope": "chat"});
    let identity = accepted(&gate, &jwt(&claims));
    assert_eq!(facts(&identity), ("u", None, Some("c"), vec!["chat"]));
    assert_eq!(identity.token_id(), Some("t"));
    let long = with(&claims, json!({"exp": NOW + 61}));
    assert_refused(&gate, &jwt(&long), Reason::InvalidClaims, "max_lifetime_s");
    assert_refused(
        &gate,
        &jwt(&with(&claims, json!({"realm": null}))),
        Reason::InvalidClaims,
        "`realm` is missing",
    );
}

#[test]
fn the_table_of_presets_has_each_once_under_its_configured_name() {
    for facts in &PRESETS {
        let parsed: Preset = serde_json::from_value(json!(facts.name)).unwrap();
        assert_eq!(parsed, facts.preset);
        assert_eq!(facts.preset.facts(), facts);
        assert!(
            facts.remark.ends_with('.') && !facts.remark.contains("  "),
            "{}",
            facts.remark
        );
    }
    assert!(PRESETS.is_sorted_by_key(|facts| facts.name));
}

#[test]
fn a_preset_takes_rs256_alone_unless_told_otherwise() {
    let preset = |algorithms: Value| {
        let mut fields = json!({"preset": "auth0"});
        if !algorithms.is_null() {
            fields["algorithms"] = algorithms;
        }
        gate_of(vec![entry(fields)]).issuers()[0].algorithms.clone()
    };
    assert_eq!(preset(json!(null)), ["RS256"]);
    assert_eq!(preset(json!(["PS256", "Ed25519"])), ["PS256", "EdDSA"]);
}
