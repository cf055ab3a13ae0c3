//! The policy's metrics, read at each scrape.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, Opts};

use super::VALID;
use crate::auth::PolicyStore;

/// Turns what became of the policy into metrics.
pub(super) struct PolicyCollector {
    store: Arc<PolicyStore>,
    /// Of one of the metrics. The registry takes collectors without any for the same one.
    desc: Desc,
}

impl PolicyCollector {
    pub(super) fn new(store: Arc<PolicyStore>) -> Self {
        let desc = Desc::new(
            RELOADS.to_owned(),
            HELP.to_owned(),
            Vec::new(),
            HashMap::new(),
        );
        Self {
            store,
            desc: desc.expect(VALID),
        }
    }
}

impl Collector for PolicyCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = self.store.status();
        let reloads = IntCounterVec::new(Opts::new(RELOADS, HELP), &["outcome"]).expect(VALID);
        for (outcome, count) in [
            ("applied", status.applied),
            ("unchanged", status.unchanged),
            ("refused", status.refused),
        ] {
            reloads.with_label_values(&[outcome]).inc_by(count);
        }
        let gauge = |name, help, value| {
            let gauge = IntGauge::new(name, help).expect(VALID);
            gauge.set(value);
            gauge.collect()
        };
        let succeeded = gauge(
            "mixgate_policy_last_reload_success",
            "1 if the policy file was good when it was last read, 0 if an older policy is in force.",
            i64::from(status.last_succeeded),
        );
        let generation = gauge(
            "mixgate_policy_generation",
            "Policies that have been in force, the present one included; 0 without a policy file.",
            i64::try_from(status.generation).unwrap_or(i64::MAX),
        );
        [reloads.collect(), succeeded, generation].concat()
    }
}

const RELOADS: &str = "mixgate_policy_reloads_total";
const HELP: &str = "Times that the policy file was read anew, by outcome.";
