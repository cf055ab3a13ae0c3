//! Policies as text, callers made by hand.

mod explaining;
mod faults;
mod granting;
mod matching;
mod properties;
mod reloading;
mod requests;

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Policy, PolicyFault, Rights, Vocabulary};
use crate::auth::identity::Claimed;
use crate::auth::{Credential, Denied, Identity};

const ISSUER: &str = "https://idp.example/";

fn vocabulary() -> Vocabulary {
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Vocabulary {
        issuers: all(&[ISSUER]),
        routes: all(&["chat", "metrics", "models"]),
        fields: all(&["logit_bias", "seed", "tools"]),
    }
}

fn policy(text: &str) -> Policy {
    Policy::parse(text, &vocabulary()).unwrap()
}

fn faults(text: &str) -> Vec<PolicyFault> {
    Policy::parse(text, &vocabulary()).unwrap_err()
}

/// Everything that is wrong, as it is printed after the path.
fn complaint(text: &str) -> String {
    let faults: Vec<String> = faults(text).iter().map(PolicyFault::to_string).collect();
    faults.join("\n")
}

/// Whom these claims make; `tenant` and `client` are claims of those names.
fn identity(claims: Value) -> Identity {
    identity_by(Credential::Token, ISSUER, claims)
}

fn identity_by(credential: Credential, issuer: &str, claims: Value) -> Identity {
    let text = |name: &str| claims[name].as_str().map(Arc::from);
    let scopes = claims["scope"].as_str().unwrap_or("chat models");
    Identity::new(Claimed {
        issuer: issuer.into(),
        subject: text("sub").unwrap_or_else(|| "ann".into()),
        tenant: text("tenant"),
        client: text("client"),
        token_id: None,
        scopes: scopes.split(' ').map(Box::from).collect(),
        expires: None,
        issued: None,
        credential,
        key_id: None,
        claims: claims.as_object().cloned().unwrap_or_default(),
    })
}

fn here() -> IpAddr {
    [10, 1, 2, 3].into()
}

fn decided(text: &str, claims: Value) -> Result<Arc<Rights>, Denied> {
    policy(text).rights(&identity(claims), here())
}

fn rights(text: &str, claims: Value) -> Arc<Rights> {
    decided(text, claims).unwrap()
}

/// The names of the rules that match ann.
fn matching(text: &str, claims: Value) -> Vec<String> {
    let text = format!("{text}\n[[rules]]\nname = \"rest\"\n");
    let rules = rights(&text, claims).rules.clone();
    let names = rules.iter().map(|name| name.to_string());
    names.filter(|name| name != "rest").collect()
}

fn anybody() -> Value {
    json!({})
}
