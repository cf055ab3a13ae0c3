//! Whom a rule matches.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::address;
use super::rights::fits;
use crate::auth::Identity;

/// One condition: any of its values will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// A name that the identity bears.
    Name(Name, Vec<String>),
    /// A claim, by name or path.
    Claim(String, Vec<String>),
    /// Where the call comes from.
    Address(Vec<IpNet>),
}

/// Which name of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Issuer,
    Subject,
    Tenant,
    Client,
    Scope,
    Credential,
}

impl Name {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Subject => "subject",
            Self::Tenant => "tenant",
            Self::Client => "client",
            Self::Scope => "scope",
            Self::Credential => "credential",
        }
    }

    /// Whether values may end in `*`.
    pub(super) fn takes_patterns(self) -> bool {
        matches!(self, Self::Subject | Self::Tenant | Self::Client)
    }

    /// What the identity bears under this name.
    fn of(self, identity: &Identity) -> Vec<&str> {
        match self {
            Self::Issuer => vec![identity.issuer()],
            Self::Subject => vec![identity.subject()],
            Self::Tenant => identity.tenant().into_iter().collect(),
            Self::Client => identity.client().into_iter().collect(),
            Self::Scope => identity.scopes().collect(),
            Self::Credential => vec![identity.credential().word()],
        }
    }
}

impl Condition {
    /// Whether the condition speaks of a name that each issuer gives by itself.
    pub(super) fn is_of_one_issuer(&self) -> bool {
        match self {
            Self::Name(Name::Subject | Name::Tenant | Name::Client, _) | Self::Claim(..) => true,
            Self::Name(..) | Self::Address(_) => false,
        }
    }

    pub(super) fn is_met(&self, identity: &Identity, address: IpAddr) -> bool {
        match self {
            Self::Name(name, wanted) => {
                let meets = |given: &str| {
                    wanted.iter().any(|wanted| {
                        given == wanted || name.takes_patterns() && fits(wanted, given)
                    })
                };
                name.of(identity).into_iter().any(meets)
            }
            Self::Claim(name, wanted) => match identity.claim(name) {
                Some(Value::Array(items)) => items.iter().any(|item| is_one_of(item, wanted)),
                Some(value) => is_one_of(value, wanted),
                None => false,
            },
            Self::Address(networks) => address::any(networks, address),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, wanted) = match self {
            Self::Name(name, wanted) => (name.word().to_owned(), wanted.clone()),
            Self::Claim(name, wanted) => (format!("claim {name}"), wanted.clone()),
            Self::Address(networks) => (
                "address".to_owned(),
                networks.iter().map(IpNet::to_string).collect(),
            ),
        };
        write!(f, "{name} {}", wanted.join(" or "))
    }
}

/// A string is compared as it is, a number or a boolean as it is written in JSON. Nothing else is ever met.
fn is_one_of(value: &Value, wanted: &[String]) -> bool {
    match value {
        Value::String(text) => wanted.contains(text),
        Value::Number(number) => wanted.contains(&number.to_string()),
        Value::Bool(it) => wanted.contains(&it.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}
