//! What holds for every policy.

use proptest::prelude::*;
use serde_json::json;

use super::super::rule::{Rule, StatedLimit};
use super::super::value::Amount;
use super::super::{AddressLists, Decision};
use super::*;
use crate::auth::{Measure, Per};

/// A rule for some of the callers, which states some rights.
fn rule() -> impl Strategy<Value = Rule> {
    let cap = || proptest::option::of(proptest::option::of(1..100_u32));
    let limit = (0..2_usize, 0..2_usize, proptest::option::of(1..100_u64));
    let limits = proptest::collection::vec(limit, 0..3);
    let flags = (
        proptest::option::of(any::<bool>()),
        proptest::option::of(any::<bool>()),
    );
    (0..4_usize, cap(), cap(), flags, limits).prop_map(
        |(whom, max_tokens, max_n, flags, limits)| {
            let tenant = |names: &[&str]| {
                use super::super::condition::{Condition, Name};
                let names = names.iter().map(|name| (*name).to_owned()).collect();
                vec![Condition::Name(Name::Tenant, names)]
            };
            let mut stated: Vec<StatedLimit> = Vec::new();
            for (measure, per, most) in limits {
                let limit = StatedLimit {
                    measure: [Measure::TokensPerDay, Measure::TokensPerMinute][measure],
                    per: [Per::Subject, Per::Tenant][per].clone(),
                    amount: most.map_or(Amount::Unlimited, Amount::Fixed),
                };
                let is_new = |other: &StatedLimit| {
                    (other.measure, &other.per) != (limit.measure, &limit.per)
                };
                if stated.iter().all(is_new) {
                    stated.push(limit);
                }
            }
            Rule {
                when: match whom {
                    0 => Vec::new(),
                    1 => tenant(&["a"]),
                    2 => tenant(&["b"]),
                    _ => tenant(&["a", "b"]),
                },
                max_tokens,
                max_n,
                tools: flags.0,
                public_prefixes: flags.1,
                limits: stated,
                ..Rule::default()
            }
        },
    )
}

fn named(mut rules: Vec<Rule>) -> Vec<Rule> {
    for (at, rule) in rules.iter_mut().enumerate() {
        rule.name = at.to_string().into();
    }
    rules
}

fn decide(rules: &[Rule], tenant: &str) -> Decision {
    Decision::by(rules, &identity(json!({"tenant": tenant})), here())
}

proptest! {
    #[test]
    fn a_rule_below_never_changes_what_is_stated_above(
        rules in proptest::collection::vec(rule(), 1..6).prop_map(named),
        tenant in "[abc]",
    ) {
        for kept in 1..rules.len() {
            let above = decide(&rules[..kept], &tenant);
            let whole = decide(&rules, &tenant);
            // Who is let in stays in, and each grant stays the same grant of the same rule.
            prop_assert!(above.rights().is_err() || whole.rights().is_ok());
            for grant in above.grants() {
                prop_assert!(whole.grants().contains(grant), "{grant:?} of {rules:?}");
            }
            let names = |decision: &Decision| decision.grants().iter().map(|it| it.right()).collect::<Vec<_>>();
            let mut unique = names(&whole);
            unique.sort();
            unique.dedup();
            prop_assert_eq!(unique.len(), names(&whole).len(), "each right comes from one rule");
        }
    }

    #[test]
    fn a_rule_that_denies_refuses_whatever_surrounds_it(
        rules in proptest::collection::vec(rule(), 0..6),
        at in any::<prop::sample::Index>(),
        tenant in "[abc]",
    ) {
        let mut rules = rules;
        let deny = Rule { deny: true, ..Rule::default() };
        rules.insert(at.index(rules.len() + 1), deny);
        let denied = decide(&named(rules), &tenant).rights().unwrap_err();
        prop_assert_eq!(denied.code(), "access_denied");
    }

    #[test]
    fn an_address_is_heard_if_it_is_allowed_and_not_denied(
        allow in proptest::option::of(proptest::collection::vec((any::<[u8; 4]>(), 0..=32_u8), 0..4)),
        deny in proptest::collection::vec((any::<[u8; 4]>(), 0..=32_u8), 0..4),
        address in any::<[u8; 4]>(),
    ) {
        let list = |list: &[([u8; 4], u8)]| list
            .iter()
            .map(|(address, bits)| ipnet::Ipv4Net::new((*address).into(), *bits).unwrap().into())
            .collect::<Vec<ipnet::IpNet>>();
        let holds = |list: &[([u8; 4], u8)]| list.iter().any(|(network, bits)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(*bits)).unwrap_or(0);
            u32::from_be_bytes(*network) & mask == u32::from_be_bytes(address) & mask
        });
        let lists = AddressLists { allow: allow.as_deref().map(list), deny: list(&deny) };
        let expected = allow.as_deref().is_none_or(holds) && !holds(&deny);
        let v4 = std::net::Ipv4Addr::from(address);
        prop_assert_eq!(lists.allows(v4.into()), expected);
        prop_assert_eq!(lists.allows(v4.to_ipv6_mapped().into()), expected);
    }

    #[test]
    fn no_text_makes_the_reader_panic_or_hang(text in "([a-z_\\[\\]{}=\",.\n ]|name|rules|when|limits|per|1){0,60}") {
        let _ = Policy::parse(&text, &vocabulary());
    }

    #[test]
    fn a_good_file_with_a_piece_changed_is_judged_without_a_panic(
        at in any::<prop::sample::Index>(),
        length in 0..6_usize,
        new in "[a-z\"0-9\\[\\]{}=\n.,-]{0,4}",
    ) {
        let example = super::super::EXAMPLE;
        let cut = |at: usize| (0..=at).rev().find(|&at| example.is_char_boundary(at)).unwrap();
        let start = cut(at.index(example.len()));
        let end = cut((start + length).min(example.len())).max(start);
        let text = format!("{}{new}{}", &example[..start], &example[end..]);
        let _ = Policy::parse(&text, &vocabulary());
    }
}
