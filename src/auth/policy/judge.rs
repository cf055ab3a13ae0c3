//! From what the file says to rules that can be applied: every name, number and address is looked at once, here.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::address::{AddressLists, network};
use super::condition::{Condition, Name};
use super::fault::{Faults, did_you_mean};
use super::file::{At, LimitsFile, PolicyFile, RuleFile, When};
use super::rule::{Headers, Names, Rule, StatedLimit};
use super::value::{Amount, Cap, OneOrMany};
use crate::auth::limits::{Measure, Per};
use crate::auth::token::claims::is_plain;

/// The names that a policy may use: those of what is around it.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    /// The issuers whose credentials are believed.
    pub issuers: Vec<String>,
    /// The routes, by name.
    pub routes: Vec<String>,
    /// The fields of a chat request.
    pub fields: Vec<String>,
}

/// Judges `file` whole: what is wrong is told to `faults`, and left out.
pub(super) fn judge(
    file: PolicyFile,
    vocabulary: &Vocabulary,
    faults: &mut Faults<'_>,
) -> (Vec<Rule>, AddressLists) {
    let is_whole = faults.is_empty();
    let addresses = AddressLists {
        allow: file.addresses.allow.map(|allow| networks(&allow, faults)),
        deny: networks(&file.addresses.deny, faults),
    };
    let mut judge = Judge {
        is_whole,
        vocabulary,
        faults,
    };
    let mut rules: Vec<(Rule, usize)> = Vec::new();
    let mut lines = HashMap::new();
    for At { value, offset } in file.rules {
        let rule = judge.rule(value, offset);
        let line = judge.faults.line(offset);
        if let Some(first) = lines.get(&rule.name).filter(|_| !rule.name.is_empty()) {
            let message = format!("the rule of line {first} is called `{}` too", &rule.name);
            judge.faults.add(offset, message, None);
        }
        lines.entry(rule.name.clone()).or_insert(line);
        rules.push((rule, offset));
    }
    // What a fault has left out of a rule would make it seem to match more callers than it means.
    if judge.faults.is_empty() {
        for at in 0..rules.len() {
            let (above, rest) = rules.split_at(at);
            judge.check_reach(above, &rest[0].0, rest[0].1);
        }
    }
    (rules.into_iter().map(|(rule, _)| rule).collect(), addresses)
}

fn networks(texts: &[At<String>], faults: &mut Faults<'_>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for At { value, offset } in texts {
        match network(value) {
            Ok(network) => networks.push(network),
            Err((message, hint)) => faults.add(*offset, message, hint),
        }
    }
    networks
}

struct Judge<'a, 'b> {
    /// Nothing was left out for its form: what is missing is missing indeed.
    is_whole: bool,
    vocabulary: &'a Vocabulary,
    faults: &'a mut Faults<'b>,
}

impl Judge<'_, '_> {
    fn rule(&mut self, file: RuleFile, offset: usize) -> Rule {
        let name = match &file.name {
            None => {
                let hint = "explanations and logs call rules by name: name = \"…\"";
                if self.is_whole {
                    let hint = Some(hint.to_owned());
                    self.faults.add(offset, "the rule has no `name`", hint);
                }
                String::new()
            }
            Some(name) => {
                if !is_plain(&name.value) {
                    self.faults.add(name.offset, NOT_PLAIN_NAME, None);
                }
                name.value.clone()
            }
        };
        let when = file.when.unwrap_or_default();
        let rule = Rule {
            name: name.into(),
            when: self.conditions(&when, offset),
            deny: file.deny.as_ref().is_some_and(|deny| deny.value),
            models: self.names("models", file.models.as_ref()),
            routes: self.known("route", file.routes.as_ref(), &self.vocabulary.routes),
            scopes: self.names("scopes", file.scopes.as_ref()),
            max_tokens: self.cap("max_tokens", file.max_tokens.as_ref(), u32::MAX),
            max_context: self.cap("max_context", file.max_context.as_ref(), u32::MAX),
            max_n: self.cap("max_n", file.max_n.as_ref(), u32::MAX),
            longest: self
                .cap(
                    "max_request_seconds",
                    file.max_request_seconds.as_ref(),
                    DAY,
                )
                .map(|most| most.map(|seconds| Duration::from_secs(seconds.into()))),
            tools: file.tools.map(|it| it.value),
            public_prefixes: file.public_prefixes.map(|it| it.value),
            denied_fields: self.known(
                "field of a chat request",
                file.denied_fields.as_ref(),
                &self.vocabulary.fields,
            ),
            priority: file.priority.map(|it| it.value),
            weight: file
                .weight
                .and_then(|it| self.number("weight", it.value, MOST_WEIGHT, it.offset))
                .and_then(NonZeroU32::new),
            response_headers: file.response_headers.map(|it| self.headers(it.value)),
            on_expiry: file.on_expiry.map(|it| it.value.0),
            when_short: file.when_short.map(|it| it.value.into()),
            limits: self.limits(file.limits),
        };
        if let (true, Some(stated)) = (rule.deny, rule.stated().first()) {
            let message = format!("a rule that denies states `{stated}`, which nobody gets");
            self.faults.add(offset, message, None);
        }
        rule
    }

    fn conditions(&mut self, when: &When, offset: usize) -> Vec<Condition> {
        let named = [
            (Name::Issuer, &when.issuer),
            (Name::Subject, &when.subject),
            (Name::Tenant, &when.tenant),
            (Name::Client, &when.client),
            (Name::Scope, &when.scope),
            (Name::Credential, &when.credential),
        ];
        let mut conditions = Vec::new();
        for (name, values) in named {
            let Some(At { value, offset }) = values else {
                continue;
            };
            for value in &value.0 {
                self.name_value(name, value, *offset);
            }
            self.not_empty(name.word(), value, *offset);
            conditions.push(Condition::Name(name, value.0.clone()));
        }
        for (claim, At { value, offset }) in &when.claims {
            if !is_claim(claim) {
                let message = format!("`{}` is no name of a claim", claim.escape_debug());
                self.faults.add(*offset, message, Some(CLAIM.to_owned()));
            }
            self.not_empty("claims", value, *offset);
            conditions.push(Condition::Claim(claim.clone(), value.0.clone()));
        }
        if let Some(At { value, offset }) = &when.addresses {
            self.not_empty("addresses", value, *offset);
            let texts = value.0.iter().map(|text| At {
                value: text.clone(),
                offset: *offset,
            });
            let networks = networks(&texts.collect::<Vec<_>>(), self.faults);
            conditions.push(Condition::Address(networks));
        }
        let issuers = self.vocabulary.issuers.len();
        if issuers > 1
            && when.issuer.is_none()
            && let Some(condition) = conditions.iter().find(|it| it.is_of_one_issuer())
        {
            // Names of one issuer must not pass for those of another.
            let word = match condition {
                Condition::Name(name, _) => name.word(),
                _ => "claims",
            };
            let message =
                format!("`{word}` is a name that each of the {issuers} issuers gives by itself");
            let hint = "name the `issuer` too".to_owned();
            self.faults.add(offset, message, Some(hint));
        }
        conditions
    }

    fn not_empty(&mut self, name: &str, values: &OneOrMany, offset: usize) {
        if values.0.is_empty() {
            let message = format!("`{name}` is an empty list, which nobody meets");
            let hint = "leave the condition out to ask nothing".to_owned();
            self.faults.add(offset, message, Some(hint));
        }
    }

    fn name_value(&mut self, name: Name, value: &str, offset: usize) {
        let word = name.word();
        if !is_plain(value) {
            let message = format!("`{word}` is not 1 to 256 plain characters");
            return self.faults.add(offset, message, None);
        }
        let issuers = &self.vocabulary.issuers;
        match name {
            Name::Issuer if !issuers.iter().any(|issuer| issuer == value) => {
                let hint = did_you_mean(value, issuers.iter().map(String::as_str));
                let hint = hint.unwrap_or_else(|| {
                    "write it exactly as in [[auth.issuers]]; a trailing slash counts".to_owned()
                });
                let message = format!("the issuer `{value}` is not configured");
                self.faults.add(offset, message, Some(hint));
            }
            Name::Credential if !CREDENTIALS.contains(&value) => {
                let hint = did_you_mean(value, CREDENTIALS)
                    .unwrap_or_else(|| format!("known are {}", CREDENTIALS.join(", ")));
                let message = format!("unknown credential `{value}`");
                self.faults.add(offset, message, Some(hint));
            }
            Name::Scope if value.ends_with('*') => {
                let message = format!("`scope` is `{value}`, which no token carries");
                let hint = "subject, tenant and client may end in `*`, scopes may not".to_owned();
                self.faults.add(offset, message, Some(hint));
            }
            _ => {}
        }
    }

    /// A list of names, each of which is plain.
    fn names(&mut self, right: &str, list: Option<&At<Vec<At<String>>>>) -> Option<Names> {
        let list = list?;
        for At { value, offset } in &list.value {
            if !is_plain(value) {
                let message =
                    format!("`{right}` has an entry that is not 1 to 256 plain characters");
                self.faults.add(*offset, message, None);
            }
        }
        let names = list.value.iter().map(|name| name.value.as_str().into());
        Some(names.collect())
    }

    /// A list of names that are known here.
    fn known(
        &mut self,
        what: &str,
        list: Option<&At<Vec<At<String>>>>,
        known: &[String],
    ) -> Option<Names> {
        let list = list?;
        for At { value, offset } in &list.value {
            let is_all = what == "route" && value == "*";
            if !is_all && !known.iter().any(|name| name == value) {
                let hint = did_you_mean(value, known.iter().map(String::as_str)).or_else(|| {
                    (known.len() < 20).then(|| format!("known are {}", known.join(", ")))
                });
                let message = format!("unknown {what} `{}`", value.escape_debug());
                self.faults.add(*offset, message, hint);
            }
        }
        let names = list.value.iter().map(|name| name.value.as_str().into());
        Some(names.collect())
    }

    fn cap(&mut self, right: &str, cap: Option<&At<Cap>>, most: u32) -> Option<Option<u32>> {
        let At { value, offset } = cap?;
        match *value {
            Cap::Unlimited => Some(None),
            Cap::Most(given) => self.number(right, given, most, *offset).map(Some),
        }
    }

    fn number(&mut self, right: &str, given: u64, most: u32, offset: usize) -> Option<u32> {
        let number = u32::try_from(given)
            .ok()
            .filter(|it| (1..=most).contains(it));
        if number.is_none() {
            let message = format!("`{right}` is {given}, it must be 1 to {most}");
            self.faults.add(offset, message, None);
        }
        number
    }

    fn headers(&mut self, headers: std::collections::BTreeMap<String, At<String>>) -> Headers {
        let mut judged: Vec<(Box<str>, Box<str>)> = Vec::new();
        for (name, At { value, offset }) in headers {
            let lower = name.to_ascii_lowercase();
            let shown = name.escape_debug();
            let owned = OWN_HEADERS.contains(&&*lower)
                || OWN_STARTS.iter().any(|start| lower.starts_with(start));
            if HeaderName::try_from(&*lower).is_err() {
                let message = format!("`{shown}` is no name of a header");
                self.faults.add(offset, message, None);
            } else if owned {
                let message = format!("the header `{shown}` is the server's own");
                let hint = "take a name of yours, such as x-acme-plan".to_owned();
                self.faults.add(offset, message, Some(hint));
            } else if judged.iter().any(|(other, _)| **other == *lower) {
                let message = format!("the header `{shown}` is there twice");
                self.faults.add(offset, message, None);
            } else if !is_plain(&value) || HeaderValue::from_str(&value).is_err() {
                let message = format!("the header `{shown}` is not 1 to 256 plain characters");
                self.faults.add(offset, message, None);
            } else {
                judged.push((lower.into(), value.into()));
            }
        }
        judged.into()
    }

    fn limits(&mut self, limits: Option<At<Vec<At<LimitsFile>>>>) -> Vec<StatedLimit> {
        let mut stated: Vec<StatedLimit> = Vec::new();
        for At { value, offset } in limits.map(|it| it.value).unwrap_or_default() {
            let per = value.per.map_or(Per::Subject, |per| per.value.0);
            if let Per::Claim(name) = &per
                && !is_claim(name)
            {
                let message = format!("`{}` is no name of a claim", name.escape_debug());
                self.faults.add(offset, message, Some(CLAIM.to_owned()));
            }
            let amounts = [
                (Measure::RequestsPerMinute, value.requests_per_minute),
                (Measure::TokensPerMinute, value.tokens_per_minute),
                (Measure::ConcurrentSequences, value.concurrent_sequences),
                (Measure::TokensPerDay, value.tokens_per_day),
                (Measure::TokensPerMonth, value.tokens_per_month),
            ];
            let mut is_empty = true;
            for (measure, amount) in amounts {
                let Some(At { value, offset }) = amount else {
                    continue;
                };
                is_empty = false;
                let what = super::rule::words(measure, &per);
                self.amount(&what, &value, offset);
                if stated
                    .iter()
                    .any(|it| it.measure == measure && it.per == per)
                {
                    let message = format!("the rule states `{what}` twice");
                    self.faults.add(offset, message, None);
                    continue;
                }
                stated.push(StatedLimit {
                    measure,
                    per: per.clone(),
                    amount: value,
                });
            }
            if is_empty && self.is_whole {
                let hint = "add an amount, such as tokens_per_minute = 60000".to_owned();
                self.faults
                    .add(offset, "the limit names no amount", Some(hint));
            }
        }
        stated
    }

    fn amount(&mut self, what: &str, amount: &Amount, offset: usize) {
        let within = |given: u64| (1..=MOST_AMOUNT).contains(&given);
        let message = match amount {
            Amount::Unlimited => return,
            Amount::Fixed(given) if within(*given) => return,
            Amount::Fixed(given) => {
                format!("`{what}` is {given}, it must be 1 to {MOST_AMOUNT}")
            }
            Amount::Claimed(claimed) if !is_claim(&claimed.claim) => {
                let name = claimed.claim.escape_debug();
                let message = format!("`{name}` is no name of a claim");
                return self.faults.add(offset, message, Some(CLAIM.to_owned()));
            }
            Amount::Claimed(claimed) => {
                let numbers = [
                    ("at_most", claimed.at_most),
                    ("otherwise", claimed.otherwise),
                ];
                match numbers.into_iter().find(|(_, given)| !within(*given)) {
                    Some((name, given)) => {
                        format!("`{name}` of `{what}` is {given}, it must be 1 to {MOST_AMOUNT}")
                    }
                    None if claimed.otherwise > claimed.at_most => format!(
                        "`otherwise` of `{what}` is {}, more than `at_most`, {}: a token without the claim would \
                         have more than any with it",
                        claimed.otherwise, claimed.at_most
                    ),
                    None => return,
                }
            }
        };
        self.faults.add(offset, message, None);
    }

    /// Whether `rule` can ever count, below `above`.
    fn check_reach(&mut self, above: &[(Rule, usize)], rule: &Rule, offset: usize) {
        let mut covering = above
            .iter()
            .map(|(other, _)| other)
            .filter(|it| it.covers(rule));
        let mut add = |message, hint: Option<&str>| {
            self.faults.add(offset, message, hint.map(str::to_owned));
        };
        // A rule that refuses does so wherever it stands.
        if let Some(denies) = covering.clone().find(|other| other.deny) {
            let name = &denies.name;
            let message =
                format!("the rule can never count: `{name}` refuses everybody whom it matches");
            return add(message, None);
        }
        if rule.deny {
            let moot = above.iter().find(|(other, _)| rule.covers(other));
            if let Some((moot, _)) = moot {
                let name = &moot.name;
                let message = format!(
                    "the rule refuses everybody whom `{name}` matches, which can never count then"
                );
                add(message, Some("give it a condition, or take the other out"));
            }
            return;
        }
        let stated = rule.stated();
        for right in &stated {
            let mut covering = covering.clone();
            if let Some(other) = covering.find(|other| other.stated().contains(right)) {
                let message = format!(
                    "`{right}` can never count: `{}` above matches the same callers and states it",
                    other.name
                );
                add(
                    message,
                    Some("put the rule that matches fewer callers above the other"),
                );
            }
        }
        if let (true, Some(other)) = (stated.is_empty(), covering.next()) {
            let message = format!(
                "the rule can never count: it states nothing, and `{}` above lets the same callers in",
                other.name
            );
            add(message, None);
        }
    }
}

/// A name, or a path without empty steps.
fn is_claim(name: &str) -> bool {
    let path = name.strip_prefix('/');
    is_plain(name) && path.is_none_or(|path| path.split('/').all(|step| !step.is_empty()))
}

const CREDENTIALS: [&str; 3] = ["token", "api_key", "certificate"];
const NOT_PLAIN_NAME: &str = "`name` is not 1 to 256 plain characters";
const CLAIM: &str = "write a name such as plan, or a path such as /realm_access/roles";
const MOST_WEIGHT: u32 = 1000;
/// In seconds.
const DAY: u32 = 86_400;
/// What a signed 64-bit number of the ledger holds, in round figures.
const MOST_AMOUNT: u64 = 1_000_000_000_000_000;

/// Headers that say what the response is, whom it is for or how it travels.
const OWN_HEADERS: [&str; 24] = [
    "age",
    "allow",
    "alt-svc",
    "authorization",
    "cache-control",
    "connection",
    "cookie",
    "date",
    "expires",
    "host",
    "keep-alive",
    "location",
    "retry-after",
    "retry-after-ms",
    "set-cookie",
    "strict-transport-security",
    "te",
    "trailer",
    "upgrade",
    "vary",
    "www-authenticate",
    "x-content-type-options",
    "x-request-id",
    "x-should-retry",
];
const OWN_STARTS: [&str; 5] = [
    "access-control-",
    "content-",
    "proxy-",
    "transfer-",
    "x-ratelimit-",
];
