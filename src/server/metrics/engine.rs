//! The engine's snapshot in metrics, made at each scrape.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounter, Opts};

use super::VALID;
use crate::engine::{FinishReason, Stats};

/// Turns a snapshot, of the engine or the ledger, into metrics at each scrape.
pub(super) struct EngineCollector {
    /// Tells the registry that this is no other collector.
    desc: Desc,
    labels: HashMap<String, String>,
    families: Box<dyn Fn() -> Families + Send + Sync>,
}

pub(super) type Families = Vec<Family>;

/// One metric of the engine: name, help and a row per set of extra labels.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) counts: bool,
    pub(super) rows: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Family {
    /// A number that goes up and down.
    pub(super) fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self {
            name,
            help,
            counts: false,
            rows: vec![(Vec::new(), value)],
        }
    }

    /// A number that only goes up.
    pub(super) fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self {
            name,
            help,
            counts: true,
            rows: vec![(Vec::new(), value as f64)],
        }
    }
}

impl Collector for EngineCollector {
    /// One for all that it collects: the registry only needs it to find clashes of names.
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.families)()
            .into_iter()
            .map(|family| self.family(family))
            .collect()
    }
}

impl EngineCollector {
    /// `name` is its own, not a metric's.
    pub(super) fn new(
        name: &str,
        labels: HashMap<String, String>,
        families: impl Fn() -> Families + Send + Sync + 'static,
    ) -> Self {
        let help = "Made at each scrape.".to_owned();
        Self {
            desc: Desc::new(name.to_owned(), help, Vec::new(), HashMap::new()).expect(VALID),
            labels,
            families: Box::new(families),
        }
    }

    fn family(&self, family: Family) -> MetricFamily {
        let mut rows = family.rows.into_iter().flat_map(|(labels, value)| {
            let mut opts = Opts::new(family.name, family.help).const_labels(self.labels.clone());
            for (name, value) in labels {
                opts = opts.const_label(name, value);
            }
            if family.counts {
                let counter = IntCounter::with_opts(opts).expect(VALID);
                counter.inc_by(value as u64);
                counter.collect()
            } else {
                let gauge = Gauge::with_opts(opts).expect(VALID);
                gauge.set(value);
                gauge.collect()
            }
        });
        let mut whole = rows.next().unwrap_or_default();
        for mut row in rows {
            whole.mut_metric().append(row.mut_metric());
        }
        whole
    }
}

pub(super) fn engine_families(stats: &Stats, max_model_len: usize) -> Families {
    let (gauge, counter) = (Family::gauge, Family::counter);
    let used = if stats.kv_blocks == 0 {
        0.0
    } else {
        stats.kv_blocks_used as f64 / stats.kv_blocks as f64
    };
    let kv_tokens = stats.kv_blocks * stats.block_size;
    let concurrency = kv_tokens as f64 / max_model_len.max(1) as f64;
    let [stop, length, cancelled, aborted, late, revoked, spent] = stats.finished_total;
    // vLLM's words. "repetition" is one of its detectors, which is not ours; it stays at 0 for dashboards.
    let finished = [
        ("stop", stop),
        ("length", length),
        ("abort", cancelled + late + revoked + spent),
        ("error", aborted),
        ("repetition", 0),
    ];
    vec![
        gauge(
            "vllm:num_requests_running",
            "Sequences in the running batch.",
            stats.running as f64,
        ),
        gauge(
            "vllm:num_requests_waiting",
            "Sequences that wait to run.",
            stats.waiting as f64,
        ),
        gauge(
            "vllm:kv_cache_usage_perc",
            "KV blocks in use, 0 to 1.",
            used,
        ),
        Family {
            name: "vllm:cache_config_info",
            help: "The KV cache's shape, in labels.",
            counts: false,
            rows: vec![(
                vec![
                    ("block_size", stats.block_size.to_string()),
                    ("num_gpu_blocks", stats.kv_blocks.to_string()),
                    ("kv_cache_size_tokens", kv_tokens.to_string()),
                    ("kv_cache_max_concurrency", format!("{concurrency:.2}")),
                ],
                1.0,
            )],
        },
        counter(
            "vllm:num_preemptions_total",
            "Sequences sent back to wait, to free blocks.",
            stats.preemptions_total,
        ),
        counter(
            "vllm:prompt_tokens_total",
            "Prompt tokens computed.",
            stats.prompt_tokens_total,
        ),
        counter(
            "vllm:generation_tokens_total",
            "Tokens generated.",
            stats.generation_tokens_total,
        ),
        counter(
            "mixgate_engine_steps_total",
            "Forward passes.",
            stats.steps_total,
        ),
        counter(
            "vllm:prefix_cache_queries_total",
            "Prompt tokens looked up in the prefix cache.",
            stats.prefix_queries_total,
        ),
        counter(
            "vllm:prefix_cache_hits_total",
            "Prompt tokens found there.",
            stats.prefix_hits_total,
        ),
        counter(
            "vllm:prompt_tokens_cached_total",
            "Prompt tokens that were not computed because they were cached.",
            stats.prefix_hits_total,
        ),
        counter(
            "mixgate_prefix_cache_evictions_total",
            "Cached KV blocks given to something else.",
            stats.prefix_evictions_total,
        ),
        gauge(
            "mixgate_waiting_tokens",
            "Tokens reserved by requests that wait for their first step.",
            stats.waiting_tokens as f64,
        ),
        gauge(
            "mixgate_active_subjects",
            "Subjects that have sequences, waiting or running.",
            stats.subjects as f64,
        ),
        by_reason(
            "vllm:request_success_total",
            "Sequences ended, by vLLM's reasons.",
            "finished_reason",
            finished,
        ),
        by_reason(
            "mixgate_sequences_finished_total",
            "Sequences ended, by reason.",
            "reason",
            FinishReason::ALL
                .map(word)
                .into_iter()
                .zip(stats.finished_total),
        ),
    ]
}

fn by_reason(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    counts: impl IntoIterator<Item = (&'static str, u64)>,
) -> Family {
    let row = |(reason, count): (&str, u64)| (vec![(label, reason.to_owned())], count as f64);
    Family {
        name,
        help,
        counts: true,
        rows: counts.into_iter().map(row).collect(),
    }
}

fn word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled => "cancelled",
        FinishReason::Aborted => "aborted",
        FinishReason::DeadlineExceeded => "deadline_exceeded",
        FinishReason::Revoked => "revoked",
        FinishReason::BudgetSpent => "budget_spent",
    }
}
