//! A rule, judged: whom it matches and what it states.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::condition::Condition;
use super::rights::{Expiry, WhenShort};
use super::value::Amount;
use crate::auth::limits::{Measure, Per};
use crate::auth::{Identity, Priority};

/// A rule, judged. A right that it does not state is `None`; a cap that it lifts is `Some(None)`.
#[derive(Debug, Default)]
pub(super) struct Rule {
    pub name: Arc<str>,
    /// All must hold.
    pub when: Vec<Condition>,
    pub deny: bool,
    pub models: Option<Names>,
    pub routes: Option<Names>,
    pub scopes: Option<Names>,
    pub max_tokens: Option<Option<u32>>,
    pub max_context: Option<Option<u32>>,
    pub max_n: Option<Option<u32>>,
    pub longest: Option<Option<Duration>>,
    pub tools: Option<bool>,
    pub public_prefixes: Option<bool>,
    pub denied_fields: Option<Names>,
    pub priority: Option<Priority>,
    pub weight: Option<NonZeroU32>,
    pub response_headers: Option<Headers>,
    pub on_expiry: Option<Expiry>,
    pub when_short: Option<WhenShort>,
    pub limits: Vec<StatedLimit>,
}

pub(super) type Names = Arc<[Box<str>]>;
/// Lower-case name, value.
pub(super) type Headers = Arc<[(Box<str>, Box<str>)]>;

/// A limit that a rule states. (`measure`, `per`) says which.
#[derive(Debug, Clone)]
pub(super) struct StatedLimit {
    pub measure: Measure,
    pub per: Per,
    pub amount: Amount,
}

impl Rule {
    pub(super) fn matches(&self, identity: &Identity, address: IpAddr) -> bool {
        self.unmet(identity, address).is_none()
    }

    /// The first condition that does not hold.
    pub(super) fn unmet(&self, identity: &Identity, address: IpAddr) -> Option<&Condition> {
        let mut conditions = self.when.iter();
        conditions.find(|condition| !condition.is_met(identity, address))
    }

    /// Whether it matches whomever `other` matches, as far as their words tell.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.when.iter().all(|mine| other.when.contains(mine))
    }

    /// What it states, by the names of the file; limits by measure and bearer.
    pub(super) fn stated(&self) -> Vec<String> {
        let rights = [
            ("models", self.models.is_some()),
            ("routes", self.routes.is_some()),
            ("scopes", self.scopes.is_some()),
            ("max_tokens", self.max_tokens.is_some()),
            ("max_context", self.max_context.is_some()),
            ("max_n", self.max_n.is_some()),
            ("max_request_seconds", self.longest.is_some()),
            ("tools", self.tools.is_some()),
            ("public_prefixes", self.public_prefixes.is_some()),
            ("denied_fields", self.denied_fields.is_some()),
            ("priority", self.priority.is_some()),
            ("weight", self.weight.is_some()),
            ("response_headers", self.response_headers.is_some()),
            ("on_expiry", self.on_expiry.is_some()),
            ("when_short", self.when_short.is_some()),
        ];
        let rights = rights.into_iter().filter(|(_, is_stated)| *is_stated);
        let limits = self.limits.iter().map(|it| words(it.measure, &it.per));
        rights
            .map(|(name, _)| name.to_owned())
            .chain(limits)
            .collect()
    }
}

/// `tokens_per_day per tenant`
pub(super) fn words(measure: Measure, per: &Per) -> String {
    let measure = match measure {
        Measure::RequestsPerMinute => "requests_per_minute",
        Measure::TokensPerMinute => "tokens_per_minute",
        Measure::ConcurrentSequences => "concurrent_sequences",
        Measure::TokensPerDay => "tokens_per_day",
        Measure::TokensPerMonth => "tokens_per_month",
    };
    match per {
        Per::Subject => format!("{measure} per subject"),
        Per::Tenant => format!("{measure} per tenant"),
        Per::Client => format!("{measure} per client"),
        Per::Claim(name) => format!("{measure} per claim:{name}"),
    }
}
