//! Prometheus: the names that dashboards, autoscalers and routers already read from vLLM, and our own HTTP counters.
//!
//! The engine's counters are read at scrape time from its own snapshot; only what the server alone can see (latencies,
//! HTTP answers, refusals) is counted here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
};

use crate::engine::{Engine, Stats};

use super::app::{ModelCard, Shared};

/// `GET /metrics`
pub(super) async fn expose(State(shared): State<Arc<Shared>>) -> Response {
    let text = shared.metrics.render();
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

/// The server's own metrics, and the way to the engine's.
pub(super) struct Metrics {
    registry: Registry,
    http: IntCounterVec,
    denied: IntCounterVec,
    time_to_first_token: Histogram,
    inter_token: Histogram,
    end_to_end: Histogram,
}

impl Metrics {
    pub(super) fn new(model: &ModelCard, engine: Engine) -> Self {
        let max_model_len = model.max_model_len;
        Self::with_stats(&model.id, move || {
            engine_families(&engine.stats(), max_model_len)
        })
    }

    fn with_stats(model: &str, families: impl Fn() -> Families + Send + Sync + 'static) -> Self {
        let labels = HashMap::from([
            ("model_name".to_owned(), model.to_owned()),
            ("engine".to_owned(), "0".to_owned()),
        ]);
        // Names and labels are constants of this file, so registering cannot fail.
        let registry = Registry::new();
        let engine = EngineCollector {
            labels: labels.clone(),
            families: Box::new(families),
        };
        registry.register(Box::new(engine)).expect(VALID);
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help)
                .buckets(buckets.to_vec())
                .const_labels(labels.clone());
            let histogram = Histogram::with_opts(opts).expect(VALID);
            registry.register(Box::new(histogram.clone())).expect(VALID);
            histogram
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels).expect(VALID);
            registry.register(Box::new(counters.clone())).expect(VALID);
            counters
        };
        Self {
            time_to_first_token: histogram(
                "vllm:time_to_first_token_seconds",
                "From a request's arrival to its first token.",
                &TTFT_BUCKETS,
            ),
            inter_token: histogram(
                "vllm:inter_token_latency_seconds",
                "Between two tokens of one sequence.",
                &ITL_BUCKETS,
            ),
            end_to_end: histogram(
                "vllm:e2e_request_latency_seconds",
                "From a request's arrival to its last token.",
                &E2E_BUCKETS,
            ),
            http: counters(
                "http_requests_total",
                "HTTP requests answered.",
                &["handler", "method", "status"],
            ),
            denied: counters(
                "mixgate_denied_total",
                "Requests that the gate refused, by error code.",
                &["code"],
            ),
            registry,
        }
    }

    pub(super) fn answered(&self, handler: &str, method: &str, status: u16) {
        self.http
            .with_label_values(&[handler, method, &status.to_string()])
            .inc();
    }

    pub(super) fn denied(&self, code: &str) {
        self.denied.with_label_values(&[code]).inc();
    }

    pub(super) fn first_token(&self, after: Duration) {
        self.time_to_first_token.observe(after.as_secs_f64());
    }

    pub(super) fn next_token(&self, after: Duration) {
        self.inter_token.observe(after.as_secs_f64());
    }

    pub(super) fn finished(&self, after: Duration) {
        self.end_to_end.observe(after.as_secs_f64());
    }

    fn render(&self) -> String {
        // A metric that cannot be written is left out rather than failing the scrape.
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}

/// Turns a snapshot of the engine into metrics at each scrape.
struct EngineCollector {
    labels: HashMap<String, String>,
    families: Box<dyn Fn() -> Families + Send + Sync>,
}

type Families = Vec<Family>;

/// One metric of the engine: name, help and a row per set of extra labels.
struct Family {
    name: &'static str,
    help: &'static str,
    counts: bool,
    rows: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Collector for EngineCollector {
    /// Described by what it collects: the registry only needs descriptions to find clashes of names.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.families)()
            .into_iter()
            .map(|family| self.family(family))
            .collect()
    }
}

impl EngineCollector {
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

fn engine_families(stats: &Stats, max_model_len: usize) -> Families {
    let gauge = |name, help, value: f64| Family {
        name,
        help,
        counts: false,
        rows: vec![(Vec::new(), value)],
    };
    let counter = |name, help, value: u64| Family {
        name,
        help,
        counts: true,
        rows: vec![(Vec::new(), value as f64)],
    };
    let used = if stats.kv_blocks == 0 {
        0.0
    } else {
        stats.kv_blocks_used as f64 / stats.kv_blocks as f64
    };
    let kv_tokens = stats.kv_blocks * stats.block_size;
    let concurrency = kv_tokens as f64 / max_model_len.max(1) as f64;
    let [stop, length, cancelled, aborted, _, _] = stats.finished_total;
    // vLLM's words. "repetition" is one of its detectors, which is not ours; it stays at 0 for dashboards.
    let finished = [
        ("stop", stop),
        ("length", length),
        ("abort", cancelled),
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
        Family {
            name: "vllm:request_success_total",
            help: "Sequences ended, by reason.",
            counts: true,
            rows: finished
                .into_iter()
                .map(|(reason, count)| (vec![("finished_reason", reason.to_owned())], count as f64))
                .collect(),
        },
    ]
}

/// Bucket edges as vLLM has them, in seconds.
const TTFT_BUCKETS: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
const ITL_BUCKETS: [f64; 19] = [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
const E2E_BUCKETS: [f64; 21] = [
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];
const VALID: &str = "the metrics' names and labels are constants and valid. This is a bug.";

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(stats: Stats) -> String {
        let metrics = Metrics::with_stats("m", move || engine_families(&stats, 64));
        metrics.answered("/livez", "GET", 200);
        metrics.denied("invalid_token");
        metrics.first_token(Duration::from_millis(30));
        metrics.render()
    }

    #[test]
    fn the_engines_snapshot_appears_under_vllms_names() {
        let text = rendered(Stats {
            running: 2,
            waiting: 3,
            kv_blocks_used: 5,
            kv_blocks: 20,
            block_size: 16,
            preemptions_total: 7,
            prompt_tokens_total: 11,
            generation_tokens_total: 13,
            finished_total: [1, 2, 3, 4, 0, 0],
            ..Stats::default()
        });
        let labels = r#"engine="0",model_name="m""#;
        for line in [
            format!("vllm:num_requests_running{{{labels}}} 2"),
            format!("vllm:num_requests_waiting{{{labels}}} 3"),
            format!("vllm:kv_cache_usage_perc{{{labels}}} 0.25"),
            format!("vllm:num_preemptions_total{{{labels}}} 7"),
            format!("vllm:prompt_tokens_total{{{labels}}} 11"),
            format!("vllm:generation_tokens_total{{{labels}}} 13"),
            r#"vllm:request_success_total{engine="0",finished_reason="abort",model_name="m"} 3"#.to_owned(),
            r#"vllm:request_success_total{engine="0",finished_reason="repetition",model_name="m"} 0"#.to_owned(),
            "# TYPE vllm:request_success_total counter".to_owned(),
            "# TYPE vllm:kv_cache_usage_perc gauge".to_owned(),
            r#"http_requests_total{handler="/livez",method="GET",status="200"} 1"#.to_owned(),
            r#"mixgate_denied_total{code="invalid_token"} 1"#.to_owned(),
            format!("vllm:time_to_first_token_seconds_count{{{labels}}} 1"),
        ] {
            assert!(text.lines().any(|given| given == line), "{line}\nis not in\n{text}");
        }
        let info = text
            .lines()
            .find(|line| line.starts_with("vllm:cache_config_info{"))
            .unwrap();
        for label in [
            r#"block_size="16""#,
            r#"num_gpu_blocks="20""#,
            r#"kv_cache_max_concurrency="5.00""#,
        ] {
            assert!(info.contains(label), "{label} is not in {info}");
        }
    }

    #[test]
    fn an_engine_without_blocks_uses_none_of_them() {
        assert!(
            rendered(Stats::default())
                .contains("vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0\n")
        );
    }
}
