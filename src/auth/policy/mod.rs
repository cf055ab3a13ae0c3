//! What the operator grants to whom: verified claims in, [`Rights`] out. Pure: no clock, no counters, no I/O but
//! reading the file.
//!
//! Rules are read from top to bottom, and every rule whose conditions hold counts. Each right comes from the first of
//! them that states it; so does each limit, which is named by what it measures and for whom. A rule that denies refuses
//! whomever it matches, wherever it stands. Whom no rule matches is refused. Without a file, everybody gets
//! [`Rights::default`].
//!
//! | file | what it does |
//! |---|---|
//! | `file`, `value` | the policy as it is written |
//! | `read` | text → that, with every fault of form |
//! | `judge` | that → rules, with every fault of meaning |
//! | `rule`, `condition`, `address` | whom a rule matches and what it states |
//! | `decide` | rules → rights, and which rule gave what |
//! | `explain` | the same, for a person |
//! | `store` | the policy in force |
//! | `reference` | the schema and the page of documentation |

mod address;
mod condition;
mod decide;
mod explain;
mod fault;
mod file;
mod judge;
mod read;
mod reference;
mod rights;
mod rule;
mod store;
#[cfg(test)]
mod tests;
mod value;

use std::net::IpAddr;
use std::sync::Arc;

use super::{Denied, Identity, Reason};

pub use decide::{Decision, Grant};
pub use explain::{Explanation, Question};
pub use fault::{PolicyError, PolicyFault};
pub use judge::Vocabulary;
pub use reference::{EXAMPLE, reference, schema};
pub use rights::{Expiry, Rights, WhenShort};
pub use store::{PolicyStatus, PolicyStore, Reloaded};

use address::AddressLists;
use fault::Faults;
use rule::Rule;

/// The rules in force, judged as a whole. The default has none and lets everybody in.
#[derive(Debug, Default)]
pub struct Policy {
    /// `None`: there is no policy file.
    rules: Option<Vec<Rule>>,
    addresses: AddressLists,
}

impl Policy {
    /// Judges the text of a policy file.
    ///
    /// # Errors
    /// Everything that is wrong with it, from top to bottom.
    pub fn parse(text: &str, vocabulary: &Vocabulary) -> Result<Self, Vec<PolicyFault>> {
        let mut faults = Faults::of(text);
        let file = read::read(text, &mut faults);
        let (rules, addresses) = judge::judge(file, vocabulary, &mut faults);
        let faults = faults.into_list();
        if !faults.is_empty() {
            return Err(faults);
        }
        if rules.is_empty() {
            return Err(vec![PolicyFault {
                line: 1,
                message: "the policy has no rules, which would refuse everybody".to_owned(),
                hint: Some(
                    "to refuse everybody, say so: [[rules]] with a name and deny = true".to_owned(),
                ),
            }]);
        }
        Ok(Self {
            rules: Some(rules),
            addresses,
        })
    }

    /// Whether anybody may call from `address` at all. Asked before a credential is looked at.
    pub fn allows_address(&self, address: IpAddr) -> bool {
        self.addresses.allows(address)
    }

    /// What `identity`, calling from `address`, may do, and which rule gave what.
    pub fn decide(&self, identity: &Identity, address: IpAddr) -> Decision {
        if !self.allows_address(address) {
            let detail = format!("the policy's [addresses] keep {address} out");
            return Decision::refused(Reason::AddressNotAllowed, detail);
        }
        match &self.rules {
            None => Decision::open(),
            Some(rules) => Decision::by(rules, identity, address),
        }
    }

    /// What `identity`, calling from `address`, may do.
    ///
    /// # Errors
    /// 403, if no rule lets it in or one keeps it out.
    pub fn rights(&self, identity: &Identity, address: IpAddr) -> Result<Arc<Rights>, Denied> {
        self.decide(identity, address).rights()
    }

    /// The names of the rules, from top to bottom.
    pub fn rule_names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().flatten().map(|rule| &*rule.name)
    }

    /// How many networks the lists of `[addresses]` hold, allowed and denied; `None` if all others are allowed.
    pub fn address_counts(&self) -> (Option<usize>, usize) {
        let AddressLists { allow, deny } = &self.addresses;
        (allow.as_ref().map(Vec::len), deny.len())
    }
}
