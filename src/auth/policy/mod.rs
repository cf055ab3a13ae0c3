//! What the operator grants to whom: verified claims in, [`Rights`] out. Pure: no clock, no counters, no I/O but
//! reading the file.

mod share;

use std::net::IpAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use super::limits::Limit;
use super::{Denied, GateError, Identity, Share};

pub use share::ShareConfig;
use share::Shares;

/// What one caller may do now, from the rules in force when the request came. Immutable; a request keeps the rights
/// that it came with, whatever is reloaded meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub struct Rights {
    /// Weight, priority and longest time.
    pub share: Share,
    /// Models that may be named; `None` for all. An entry may end in `*`.
    pub models: Option<Arc<[Box<str>]>>,
    /// Most `max_tokens` of one completion; also what a request without `max_tokens` gets at most.
    pub max_tokens: Option<u32>,
    /// Most tokens of prompt and completion together.
    pub max_context: Option<u32>,
    /// Most completions of one request.
    pub max_n: Option<u32>,
    /// Whether requests may bring tools.
    pub tools: bool,
    /// Whether its prompts share the operator's public prefixes with other tenants.
    pub public_prefixes: bool,
    /// Request fields that may not be used at all.
    pub denied_fields: Arc<[Box<str>]>,
    /// What counts against whom. Empty: no limit.
    pub limits: Arc<[Limit]>,
    /// What happens to a request whose explicit `max_tokens` a budget does not cover.
    pub when_short: WhenShort,
    /// What happens to a running request whose credential expires.
    pub on_expiry: Expiry,
    /// Headers to add to every response to this caller: lower-case name, value.
    pub response_headers: Arc<[(Box<str>, Box<str>)]>,
}

impl Default for Rights {
    /// Everything, without limit.
    fn default() -> Self {
        Self {
            share: Share::default(),
            models: None,
            max_tokens: None,
            max_context: None,
            max_n: None,
            tools: true,
            public_prefixes: true,
            denied_fields: Arc::default(),
            limits: Arc::default(),
            when_short: WhenShort::Clamp,
            on_expiry: Expiry::Finish,
            response_headers: Arc::default(),
        }
    }
}

impl Rights {
    /// Whether `model` may be named. Asked before whether it exists.
    pub fn allows_model(&self, model: &str) -> bool {
        self.models.as_deref().is_none_or(|allowed| {
            allowed.iter().any(|name| match name.strip_suffix('*') {
                Some(start) => model.starts_with(start),
                None => **name == *model,
            })
        })
    }
}

/// What happens to a request that a budget covers in part only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenShort {
    /// It runs as far as the budget goes and then ends with an error and exact usage.
    #[default]
    Clamp,
    /// It is refused.
    Refuse,
}

/// What happens to a running request whose credential expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expiry {
    /// It was valid when it was admitted: it runs to its end.
    #[default]
    Finish,
    /// It may run for this much longer.
    Grace(Duration),
    /// It ends within a step.
    Cut,
}

/// The rules in force, judged as a whole.
#[derive(Debug, Default)]
pub struct Policy {
    shares: Shares,
    /// Instead of the above.
    constant: Option<Arc<Rights>>,
}

impl Policy {
    pub(in crate::auth) fn of_shares(
        entries: &[ShareConfig],
        issuers: &[&str],
    ) -> Result<Self, GateError> {
        Shares::new(entries, issuers).map(|shares| Self {
            shares,
            constant: None,
        })
    }

    /// The same rights for everybody, whatever they are.
    pub fn constant(rights: Rights) -> Self {
        Self {
            constant: Some(Arc::new(rights)),
            ..Self::default()
        }
    }

    /// What `identity`, calling from `address`, may do.
    ///
    /// # Errors
    /// 403, if no rule lets it in or one keeps it out.
    pub fn rights(&self, identity: &Identity, address: IpAddr) -> Result<Arc<Rights>, Denied> {
        let _ = address;
        if let Some(rights) = &self.constant {
            return Ok(rights.clone());
        }
        Ok(Arc::new(Rights {
            share: self.shares.of(identity),
            ..Rights::default()
        }))
    }
}

/// Holds the policy in force and replaces it whole.
#[derive(Debug, Default)]
pub struct PolicyStore(RwLock<Arc<Policy>>);

impl PolicyStore {
    /// Holds `policy`.
    pub fn new(policy: Policy) -> Self {
        Self(RwLock::new(Arc::new(policy)))
    }

    /// The policy in force.
    pub fn current(&self) -> Arc<Policy> {
        match self.0.read() {
            Ok(policy) => policy.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }
}
