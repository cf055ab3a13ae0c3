//! A decision in words: which rule gave or refused what.

use std::fmt::Write;
use std::net::IpAddr;

use super::{Grant, Policy, Rights};
use crate::auth::{Access, Denied, Expiry, Identity, WhenShort};

/// A request to try the policy with, as far as it is named.
#[derive(Debug, Clone)]
pub struct Question {
    /// Where the call comes from.
    pub address: IpAddr,
    /// The model that it names.
    pub model: Option<String>,
    /// The route's name, and what its row asks for.
    pub route: Option<(String, Access)>,
    /// Its `max_tokens`.
    pub max_tokens: Option<usize>,
}

/// What the policy says, readable.
#[derive(Debug, Clone)]
pub struct Explanation {
    text: String,
    refusal: Option<Denied>,
}

impl Explanation {
    /// Several lines, for a person.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Why the request would be refused, if it would.
    pub fn refusal(&self) -> Option<&Denied> {
        self.refusal.as_ref()
    }
}

impl Policy {
    /// What the rules say to `identity` about `question`, and why.
    pub fn explain(&self, identity: &Identity, question: &Question) -> Explanation {
        let decision = self.decide(identity, question.address);
        let mut text = format!("caller\n  {}\n", caller(identity, question.address));
        self.tell_rules(&mut text, identity, question.address);
        let outcome = match decision.rights() {
            Err(denied) => Err(denied),
            Ok(rights) => {
                tell_rights(&mut text, &rights, decision.grants());
                check(&rights, identity, question)
            }
        };
        text += "verdict\n";
        match &outcome {
            Ok(()) => text += "  allowed\n",
            Err(denied) => {
                let (status, code) = (denied.status(), denied.code());
                let _ = write!(text, "  refused: {status} {code}: {}\n", denied.message());
                let _ = write!(text, "  because {}\n", denied.detail());
            }
        }
        Explanation {
            text,
            refusal: outcome.err(),
        }
    }

    fn tell_rules(&self, text: &mut String, identity: &Identity, address: IpAddr) {
        let Some(rules) = &self.rules else {
            *text += "rules\n  there is no policy file: whoever has a good token may do what its scopes say\n";
            return;
        };
        let told = rules.iter().map(|rule| {
            let what = match rule.unmet(identity, address) {
                Some(condition) => format!("does not match: it wants {condition}"),
                None if rule.deny => "matches, and refuses".to_owned(),
                None => "matches".to_owned(),
            };
            vec![rule.name.to_string(), what]
        });
        section(text, "rules", told.collect());
    }
}

/// As a request would meet them, in this order.
fn check(rights: &Rights, identity: &Identity, question: &Question) -> Result<(), Denied> {
    if let Some((route, access)) = &question.route {
        rights.check_route(identity, *access, route)?;
    }
    if let Some(model) = &question.model {
        rights.check_model(model)?;
    }
    match question.max_tokens {
        Some(asked) => Rights::check_most("max_tokens", asked, rights.max_tokens),
        None => Ok(()),
    }
}

fn caller(identity: &Identity, address: IpAddr) -> String {
    let or_none = |name: &str, value: Option<&str>| match value {
        Some(value) => format!("{name} {value}"),
        None => format!("no {name}"),
    };
    let scopes: Vec<&str> = identity.scopes().collect();
    format!(
        "subject {} of {}, {}, {}, {}, by {}, from {address}",
        identity.subject(),
        identity.issuer(),
        or_none("tenant", identity.tenant()),
        or_none("client", identity.client()),
        or_none(
            "scopes",
            Some(scopes.join(" "))
                .as_deref()
                .filter(|it| !it.is_empty())
        ),
        identity.credential().word()
    )
}

fn tell_rights(text: &mut String, rights: &Rights, grants: &[Grant]) {
    let by = |name: &str| {
        let grant = grants.iter().find(|grant| grant.right() == name);
        grant.map_or_else(
            || "by default".to_owned(),
            |grant| format!("by {}", grant.rule()),
        )
    };
    let told = values(rights).map(|(name, value)| vec![name.to_owned(), value, by(name)]);
    section(text, "rights", told.to_vec());
    let limits = grants.iter().filter_map(|grant| {
        let by = format!("by {}", grant.rule());
        Some(vec![grant.right(), grant.amount()?, by])
    });
    let mut limits: Vec<_> = limits.collect();
    if limits.is_empty() {
        limits.push(vec!["none".to_owned()]);
    }
    section(text, "limits", limits);
}

/// Every right by its name in the file.
fn values(rights: &Rights) -> [(&'static str, String); 15] {
    let cap = |most: Option<u32>| most.map_or_else(|| "unlimited".to_owned(), |it| it.to_string());
    let names = |names: Option<&[Box<str>]>| match names {
        None => "all".to_owned(),
        Some([]) => "none".to_owned(),
        Some(names) => names.join(", "),
    };
    let headers = rights.response_headers.iter().map(|(name, _)| name.clone());
    let headers: Vec<Box<str>> = headers.collect();
    let seconds = rights.share.deadline.map(|time| time.as_secs() as u32);
    [
        ("models", names(rights.models.as_deref())),
        ("routes", names(rights.routes.as_deref())),
        ("scopes", names(rights.scopes.as_deref())),
        ("max_tokens", cap(rights.max_tokens)),
        ("max_context", cap(rights.max_context)),
        ("max_n", cap(rights.max_n)),
        ("max_request_seconds", cap(seconds)),
        ("tools", rights.tools.to_string()),
        ("public_prefixes", rights.public_prefixes.to_string()),
        ("denied_fields", names(Some(&rights.denied_fields))),
        (
            "priority",
            format!("{:?}", rights.share.priority).to_lowercase(),
        ),
        ("weight", rights.share.weight.to_string()),
        ("response_headers", names(Some(&headers))),
        (
            "on_expiry",
            match rights.on_expiry {
                Expiry::Finish => "finish".to_owned(),
                Expiry::Cut => "cut".to_owned(),
                Expiry::Grace(time) => format!("cut after {} s", time.as_secs()),
            },
        ),
        (
            "when_short",
            match rights.when_short {
                WhenShort::Clamp => "clamp".to_owned(),
                WhenShort::Refuse => "refuse".to_owned(),
            },
        ),
    ]
}

/// A heading and rows in columns.
fn section(text: &mut String, heading: &str, rows: Vec<Vec<String>>) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths = [width(0), width(1)];
    let _ = writeln!(text, "{heading}");
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths.get(column).copied().unwrap_or(0);
            let _ = write!(line, "  {cell:<width$}");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}
