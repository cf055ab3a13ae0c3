//! What the rules give one caller, and which rule gave each part of it.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde_json::Value;

use super::rights::Rights;
use super::rule::{Rule, StatedLimit, words};
use super::value::{Amount, Claimed, UNLIMITED};
use crate::auth::denied::{Denied, Reason, quoted};
use crate::auth::limits::Limit;
use crate::auth::{Identity, Share};

/// What the policy says to one caller, and why.
#[derive(Debug, Clone)]
pub struct Decision {
    outcome: Result<Arc<Rights>, Denied>,
    grants: Vec<Grant>,
}

/// One right or limit, and the rule that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    right: Right,
    rule: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Right {
    Named(&'static str),
    /// What it came to, and as it was written.
    Limit(LimitName, Option<u64>, Amount),
}

type LimitName = (crate::auth::Measure, crate::auth::Per);

impl Grant {
    /// The right by its name in the file; a limit by measure and bearer: `tokens_per_day per tenant`.
    pub fn right(&self) -> String {
        match &self.right {
            Right::Named(name) => (*name).to_owned(),
            Right::Limit((measure, per), ..) => words(*measure, per),
        }
    }

    /// The name of the rule that gave it.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// What a limit came to, and where the number is from.
    pub fn amount(&self) -> Option<String> {
        match &self.right {
            Right::Named(_) => None,
            Right::Limit(_, Some(most), Amount::Claimed(claimed)) => Some(format!(
                "{most} (claim {}, at most {}, otherwise {})",
                claimed.claim, claimed.at_most, claimed.otherwise
            )),
            Right::Limit(_, Some(most), _) => Some(most.to_string()),
            Right::Limit(_, None, _) => Some(UNLIMITED.to_owned()),
        }
    }
}

impl Decision {
    /// Everything, where there is no policy.
    pub(super) fn open() -> Self {
        Self {
            outcome: Ok(Arc::default()),
            grants: Vec::new(),
        }
    }

    pub(super) fn refused(reason: Reason, detail: String) -> Self {
        Self {
            outcome: Err(Denied::new(reason, detail)),
            grants: Vec::new(),
        }
    }

    /// By `rules`, from top to bottom.
    pub(super) fn by(rules: &[Rule], identity: &Identity, address: IpAddr) -> Self {
        let matching = rules.iter().filter(|rule| rule.matches(identity, address));
        let matching: Vec<&Rule> = matching.collect();
        if let Some(rule) = matching.iter().find(|rule| rule.deny) {
            let detail = format!(
                "the policy's rule {} refuses the caller",
                quoted(&rule.name)
            );
            return Self::refused(Reason::AccessDenied, detail);
        }
        if matching.is_empty() {
            let detail = "no rule of the policy matches the caller".to_owned();
            return Self::refused(Reason::AccessDenied, detail);
        }
        Merge {
            matching,
            grants: Vec::new(),
        }
        .decision(identity)
    }

    /// What the caller may do.
    ///
    /// # Errors
    /// 403; the detail names the rule that refused.
    pub fn rights(&self) -> Result<Arc<Rights>, Denied> {
        self.outcome.clone()
    }

    /// Every right and limit that a rule stated for the caller; all others are at their defaults.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }
}

/// The rules that match one caller, from top to bottom, and what was taken from them.
struct Merge<'a> {
    matching: Vec<&'a Rule>,
    grants: Vec<Grant>,
}

impl Merge<'_> {
    /// What the first rule that states it says.
    fn first<T>(&mut self, name: &'static str, stated: impl Fn(&Rule) -> Option<T>) -> Option<T> {
        let (value, rule) = self
            .matching
            .iter()
            .find_map(|rule| Some((stated(rule)?, rule.name.clone())))?;
        let right = Right::Named(name);
        self.grants.push(Grant { right, rule });
        Some(value)
    }

    fn decision(mut self, identity: &Identity) -> Decision {
        let default = Rights::default();
        let rights = Rights {
            models: self.first("models", |rule| rule.models.clone()),
            routes: self.first("routes", |rule| rule.routes.clone()),
            scopes: self.first("scopes", |rule| rule.scopes.clone()),
            max_tokens: self.first("max_tokens", |rule| rule.max_tokens).flatten(),
            max_context: self.first("max_context", |rule| rule.max_context).flatten(),
            max_n: self.first("max_n", |rule| rule.max_n).flatten(),
            tools: self
                .first("tools", |rule| rule.tools)
                .unwrap_or(default.tools),
            public_prefixes: self
                .first("public_prefixes", |rule| rule.public_prefixes)
                .unwrap_or(default.public_prefixes),
            denied_fields: self
                .first("denied_fields", |rule| rule.denied_fields.clone())
                .unwrap_or_default(),
            share: Share {
                priority: self
                    .first("priority", |rule| rule.priority)
                    .unwrap_or_default(),
                weight: self
                    .first("weight", |rule| rule.weight)
                    .unwrap_or(NonZeroU32::MIN),
                deadline: self
                    .first("max_request_seconds", |rule| rule.longest)
                    .flatten(),
            },
            response_headers: self
                .first("response_headers", |rule| rule.response_headers.clone())
                .unwrap_or_default(),
            on_expiry: self
                .first("on_expiry", |rule| rule.on_expiry)
                .unwrap_or_default(),
            when_short: self
                .first("when_short", |rule| rule.when_short)
                .unwrap_or_default(),
            limits: self.limits(identity).into(),
            rules: self.matching.iter().map(|rule| rule.name.clone()).collect(),
        };
        Decision {
            outcome: Ok(Arc::new(rights)),
            grants: self.grants,
        }
    }

    fn limits(&mut self, identity: &Identity) -> Vec<Limit> {
        let mut seen: Vec<&StatedLimit> = Vec::new();
        let mut limits = Vec::new();
        for rule in &self.matching {
            for stated in &rule.limits {
                let same = |it: &&StatedLimit| it.measure == stated.measure && it.per == stated.per;
                if seen.iter().any(same) {
                    continue;
                }
                seen.push(stated);
                let most = most(&stated.amount, identity);
                let name = (stated.measure, stated.per.clone());
                limits.extend(most.map(|most| Limit {
                    measure: stated.measure,
                    per: stated.per.clone(),
                    most,
                }));
                self.grants.push(Grant {
                    right: Right::Limit(name, most, stated.amount.clone()),
                    rule: rule.name.clone(),
                });
            }
        }
        limits
    }
}

/// `None`: no limit.
fn most(amount: &Amount, identity: &Identity) -> Option<u64> {
    match amount {
        Amount::Fixed(most) => Some(*most),
        Amount::Unlimited => None,
        Amount::Claimed(claimed) => Some(match number(claimed, identity) {
            Some(number) => number.min(claimed.at_most),
            None => claimed.otherwise,
        }),
    }
}

/// A whole number, or a string of digits: some issuers write all claims as strings.
fn number(claimed: &Claimed, identity: &Identity) -> Option<u64> {
    match identity.claim(&claimed.claim)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}
