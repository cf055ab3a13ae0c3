//! How the fetching of issuers' keys goes, in metrics. Issuers are told by their number in the configuration: names
//! would be long, and a scraper need not know them.

use super::engine::{Families, Family};
use crate::auth::KeyStats;

pub(super) fn issuer_families(stats: &[KeyStats]) -> Families {
    // A family without rows is none: a server without such issuers says nothing about them.
    if stats.is_empty() {
        return Vec::new();
    }
    let issuer = |stats: &KeyStats| ("issuer", stats.issuer.to_string());
    let each = |value: &dyn Fn(&KeyStats) -> Option<f64>| {
        let rows = stats
            .iter()
            .filter_map(|stats| Some((vec![issuer(stats)], value(stats)?)));
        rows.collect::<Vec<_>>()
    };
    let fetches = stats.iter().flat_map(|stats| {
        stats.fetches.iter().map(|&(outcome, count)| {
            let labels = vec![issuer(stats), ("outcome", outcome.to_owned())];
            (labels, count as f64)
        })
    });
    let families = vec![
        Family {
            name: "mixgate_issuer_key_fetches_total",
            help: "Fetches of an issuer's keys, by how they ended.",
            counts: true,
            rows: fetches.collect(),
        },
        Family {
            name: "mixgate_issuer_keys",
            help: "Published keys of an issuer that may verify tokens now.",
            counts: false,
            rows: each(&|stats| Some(stats.keys as f64)),
        },
        Family {
            name: "mixgate_issuer_keys_age_seconds",
            help: "Since an issuer's keys were fetched; absent if they never were.",
            counts: false,
            rows: each(&|stats| stats.age.map(|age| age.as_secs_f64())),
        },
        Family {
            name: "mixgate_issuer_key_fetch_failures",
            help: "Failed fetches since the last good one.",
            counts: false,
            rows: each(&|stats| Some(f64::from(stats.failures))),
        },
        Family {
            name: "mixgate_issuer_unknown_keys_total",
            help: "Tokens refused without a fetch because they name a key that nobody has.",
            counts: true,
            rows: each(&|stats| Some(stats.unknown_keys as f64)),
        },
    ];
    families
        .into_iter()
        .filter(|family| !family.rows.is_empty())
        .collect()
}
