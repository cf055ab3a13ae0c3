//! Which part of the machine a caller gets: the operator's `[[auth.shares]]`, matched against verified identities.
//!
//! Nothing that a caller sends besides its token takes part in this.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::auth::token::claims::is_plain;
use crate::auth::{GateError, Identity, Priority, Share, ShareProblem};

/// One entry of `[[auth.shares]]`, as written: whom it is for and what they get. An identity gets the first entry all
/// of whose conditions it meets; one that meets none gets weight 1, priority `normal` and no limit of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShareConfig {
    /// The token's issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Its subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Its tenant, as the issuer's `tenant_claim` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The application that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// A scope that it carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Tokens for each token of a caller of weight 1, while both wait: 1 to 1000, 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Which requests go first: `low`, `normal` (the default) or `high`.
    pub priority: Priority,
    /// Most seconds from a request's arrival to its end: 1 to 86 400. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_request_seconds: Option<u32>,
}

impl ShareConfig {
    /// The conditions that are given, by name.
    fn conditions(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("issuer", &self.issuer),
            ("subject", &self.subject),
            ("tenant", &self.tenant),
            ("client", &self.client),
            ("scope", &self.scope),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
            .collect()
    }

    fn share(&self) -> Result<Share, ShareProblem> {
        let within = |field, given: u32, most| {
            let range = NonZeroU32::new(given).filter(|given| given.get() <= most);
            range.ok_or(ShareProblem::Range { field, given, most })
        };
        let seconds = self
            .max_request_seconds
            .map(|seconds| within("max_request_seconds", seconds, MOST_SECONDS));
        Ok(Share {
            weight: within("weight", self.weight.unwrap_or(1), MOST_WEIGHT)?,
            priority: self.priority,
            deadline: seconds
                .transpose()?
                .map(|seconds| Duration::from_secs(seconds.get().into())),
        })
    }

    fn is_met_by(&self, identity: &Identity) -> bool {
        let is = |wanted: &Option<String>, given: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| given == Some(wanted))
        };
        is(&self.issuer, Some(identity.issuer()))
            && is(&self.subject, Some(identity.subject()))
            && is(&self.tenant, identity.tenant())
            && is(&self.client, identity.client())
            && self
                .scope
                .as_deref()
                .is_none_or(|scope| identity.has_scope(scope))
    }
}

/// The entries, judged, in the order in which they count.
#[derive(Debug, Default)]
pub(in crate::auth) struct Shares(Vec<(ShareConfig, Share)>);

impl Shares {
    /// Judges `entries` as a whole; `issuers` are those whose tokens are believed.
    pub(in crate::auth) fn new(
        entries: &[ShareConfig],
        issuers: &[&str],
    ) -> Result<Self, GateError> {
        let judged = |(at, entry): (usize, &ShareConfig)| {
            let fault = |problem| GateError::Share {
                number: at + 1,
                problem,
            };
            check_conditions(&entries[..=at], at + 1 == entries.len(), issuers).map_err(fault)?;
            Ok((entry.clone(), entry.share().map_err(fault)?))
        };
        let judged: Result<_, _> = entries.iter().enumerate().map(judged).collect();
        judged.map(Self)
    }

    /// What `identity` gets.
    pub(in crate::auth) fn of(&self, identity: &Identity) -> Share {
        let met = self.0.iter().find(|(entry, _)| entry.is_met_by(identity));
        met.map_or_else(Share::default, |(_, share)| *share)
    }
}

/// Whether the last of `entries` can ever count, and means one caller only where it names one.
fn check_conditions(
    entries: &[ShareConfig],
    is_last: bool,
    issuers: &[&str],
) -> Result<(), ShareProblem> {
    let Some((entry, before)) = entries.split_last() else {
        return Ok(());
    };
    let conditions = entry.conditions();
    if conditions.is_empty() && !is_last {
        return Err(ShareProblem::CatchAllBeforeOthers);
    }
    if let Some(&(field, _)) = conditions.iter().find(|(_, value)| !is_plain(value)) {
        return Err(ShareProblem::NotPlain { field });
    }
    let twin = before
        .iter()
        .position(|other| other.conditions() == conditions);
    if let Some(at) = twin {
        return Err(ShareProblem::SameConditions { number: at + 1 });
    }
    match &entry.issuer {
        Some(issuer) if !issuers.contains(&issuer.as_str()) => Err(ShareProblem::UnknownIssuer {
            issuer: issuer.clone(),
        }),
        // Subjects, tenants and clients are names that each issuer gives by itself: those of one must not pass for
        // those of another.
        None if issuers.len() > 1 => match conditions.iter().find(|(field, _)| *field != "scope") {
            Some(&(field, _)) => Err(ShareProblem::WhoseName {
                field,
                issuers: issuers.len(),
            }),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

const MOST_WEIGHT: u32 = 1000;
/// A day.
const MOST_SECONDS: u32 = 86_400;
