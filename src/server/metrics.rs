//! Prometheus: the names that dashboards, autoscalers and routers already read from vLLM, and our own HTTP counters.
//!
//! The engine's counters are read at scrape time from its own snapshot; only what the server alone can see (latencies,
//! HTTP answers, refusals) is counted here.

mod engine;
mod issuers;
mod ledger;
mod transport;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry, TextEncoder};

use crate::auth::KeyMonitor;
use crate::engine::{Engine, SubmitError, Usage};
use crate::ledger::Ledger;

use super::app::{ModelCard, Shared};
use engine::{EngineCollector, Families, engine_families};
use issuers::issuer_families;
use ledger::ledger_families;
use transport::Transport;

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
    refused: IntCounterVec,
    prompt_tokens: Histogram,
    generation_tokens: Histogram,
    n: Histogram,
    max_tokens: Histogram,
    time_to_first_token: Histogram,
    inter_token: Histogram,
    end_to_end: Histogram,
    /// Connections, handshakes, certificates.
    pub(super) transport: Transport,
}

impl Metrics {
    pub(super) fn new(model: &ModelCard, engine: Engine, ledger: Ledger, keys: KeyMonitor) -> Self {
        let max_model_len = model.max_model_len;
        let metrics = Self::with_stats(&model.id, max_model_len, move || {
            engine_families(&engine.stats(), max_model_len)
        });
        let ledger = EngineCollector::new("mixgate_ledger", HashMap::new(), move || {
            ledger_families(&ledger.stats())
        });
        metrics.registry.register(Box::new(ledger)).expect(VALID);
        let issuers = EngineCollector::new("mixgate_issuers", HashMap::new(), move || {
            issuer_families(&keys.stats())
        });
        metrics.registry.register(Box::new(issuers)).expect(VALID);
        metrics
    }

    fn with_stats(
        model: &str,
        max_model_len: usize,
        families: impl Fn() -> Families + Send + Sync + 'static,
    ) -> Self {
        let labels = HashMap::from([
            ("model_name".to_owned(), model.to_owned()),
            ("engine".to_owned(), "0".to_owned()),
        ]);
        // Names and labels are constants of this file, so registering cannot fail.
        let registry = Registry::new();
        let engine = EngineCollector::new("mixgate_engine", labels.clone(), families);
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
        let tokens = series(max_model_len);
        let refused = counters(
            "mixgate_refused_total",
            "Requests that the engine did not take, by reason.",
            &["reason"],
        );
        for reason in REFUSALS {
            refused.with_label_values(&[reason]).inc_by(0);
        }
        Self {
            refused,
            prompt_tokens: histogram(
                "vllm:request_prompt_tokens",
                "Prompt tokens of a request.",
                &tokens,
            ),
            generation_tokens: histogram(
                "vllm:request_generation_tokens",
                "Tokens generated for a request.",
                &tokens,
            ),
            n: histogram(
                "vllm:request_params_n",
                "Completions asked for.",
                &N_BUCKETS,
            ),
            max_tokens: histogram(
                "vllm:request_params_max_tokens",
                "Most tokens that a completion could have.",
                &tokens,
            ),
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
            transport: Transport::new(&registry),
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

    /// The engine did not take a request.
    pub(super) fn refused(&self, error: &SubmitError) {
        let reason = REFUSALS[match error {
            SubmitError::QueueFull { .. } => 0,
            SubmitError::QueueTokens { .. } => 1,
            SubmitError::OverShare { .. } | SubmitError::OverShareTokens { .. } => 2,
            SubmitError::TooLate { .. } => 3,
            SubmitError::TooMany { .. } => 4,
            SubmitError::TooLong { .. } => 5,
            SubmitError::ShuttingDown => 6,
            SubmitError::Failed => 7,
        }];
        self.refused.with_label_values(&[reason]).inc();
    }

    /// A request that the engine took is over: what it asked for and used.
    pub(super) fn request(&self, used: Usage, n: usize, max_tokens: usize) {
        self.prompt_tokens.observe(used.prompt_tokens as f64);
        self.generation_tokens
            .observe(used.completion_tokens as f64);
        self.n.observe(n as f64);
        self.max_tokens.observe(max_tokens as f64);
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

/// 1, 2, 5, 10, 20, 50 … up to `most`, as vLLM has it for numbers of tokens.
fn series(most: usize) -> Vec<f64> {
    let decades = std::iter::successors(Some(1.0), |decade| Some(decade * 10.0));
    let edges = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * decade));
    edges
        .take_while(|edge| *edge <= most.max(1) as f64)
        .collect()
}

/// Why the engine may not take a request.
const REFUSALS: [&str; 8] = [
    "queue_full",
    "queue_tokens",
    "over_share",
    "too_late",
    "too_many",
    "too_long",
    "shutting_down",
    "engine_failed",
];
const N_BUCKETS: [f64; 5] = [1.0, 2.0, 5.0, 10.0, 20.0];
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
mod tests;
