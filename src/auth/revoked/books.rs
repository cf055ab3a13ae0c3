//! Who is revoked, by look-ups that do not grow with the number of revocations.

use std::collections::HashMap;

use crate::auth::Identity;
use crate::ledger::{RevocationRecord, RevokedName};

/// Revocations, by the exact name of their issuer.
#[derive(Debug, Default)]
pub(super) struct Books(HashMap<Box<str>, OfIssuer>);

#[derive(Debug, Default)]
struct OfIssuer {
    tokens: HashMap<Box<str>, Terms>,
    subjects: HashMap<Box<str>, Terms>,
    clients: HashMap<Box<str>, Terms>,
    keys: HashMap<Box<str>, Terms>,
    all: Terms,
}

impl Books {
    pub fn new(records: Vec<RevocationRecord>) -> Self {
        let mut books = Self::default();
        for record in records {
            let RevocationRecord {
                what,
                issuer,
                at,
                until,
            } = record;
            let of = books.0.entry(issuer.into()).or_default();
            let (terms, before) = match what {
                // A name that a token cannot outlive: whenever it was issued.
                RevokedName::Token(id) => (of.tokens.entry(id.into()).or_default(), None),
                RevokedName::Key(id) => (of.keys.entry(id.into()).or_default(), None),
                RevokedName::Subject(name) => {
                    (of.subjects.entry(name.into()).or_default(), Some(at))
                }
                RevokedName::Client(name) => (of.clients.entry(name.into()).or_default(), Some(at)),
                RevokedName::Issuer => (&mut of.all, Some(at)),
            };
            terms.add(Term { before, until });
        }
        books
    }

    /// By what `identity` is revoked at Unix second `now`.
    pub fn revokes(&self, identity: &Identity, now: u64) -> Option<&'static str> {
        let of = self.0.get(identity.issuer())?;
        let named = |names: &HashMap<Box<str>, Terms>, name: Option<&str>| {
            name.and_then(|name| names.get(name))
                .is_some_and(|terms| terms.hold(identity.issued(), now))
        };
        if named(&of.tokens, identity.token_id()) {
            Some("its id")
        } else if named(&of.subjects, Some(identity.subject())) {
            Some("its subject")
        } else if named(&of.clients, identity.client()) {
            Some("its client")
        } else if named(&of.keys, identity.key_id()) {
            Some("its key")
        } else if of.all.hold(identity.issued(), now) {
            Some("its issuer")
        } else {
            None
        }
    }
}

/// The terms of all revocations of one name, less those that others cover.
#[derive(Debug, Default)]
struct Terms(Vec<Term>);

#[derive(Debug, Clone, Copy)]
struct Term {
    /// What was issued from this Unix second on is not meant. `None`: everything is.
    before: Option<u64>,
    /// The Unix second from which it does not hold any more.
    until: Option<u64>,
}

impl Terms {
    fn add(&mut self, term: Term) {
        if self.0.iter().any(|known| known.covers(term)) {
            return;
        }
        self.0.retain(|known| !term.covers(*known));
        self.0.push(term);
    }

    /// A token that does not say when it was issued counts as issued before everything.
    fn hold(&self, issued: Option<u64>, now: u64) -> bool {
        self.0.iter().any(|term| {
            let meant = term
                .before
                .is_none_or(|before| issued.is_none_or(|issued| issued < before));
            meant && term.until.is_none_or(|until| now < until)
        })
    }
}

impl Term {
    /// Whether it holds wherever `other` does.
    fn covers(self, other: Self) -> bool {
        let as_long = |this: Option<u64>, other: Option<u64>| match (this, other) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(this), Some(other)) => this >= other,
        };
        as_long(self.before, other.before) && as_long(self.until, other.until)
    }
}
