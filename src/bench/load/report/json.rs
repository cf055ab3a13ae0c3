//! Results under the names that `vllm bench serve` gives them, so that what reads its files reads ours.
//!
//! Beside them are names of our own; none of them means something else there.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};
use serde_json::{Map, Value, json};

use super::{About, MEASURES, PERCENTILES};
use crate::bench::Distribution;
use crate::bench::load::{Record, Results};

/// Writes one JSON object. With `has_details`, what happened to each request is in it.
///
/// # Errors
/// The writer's.
pub fn json(
    results: &Results,
    about: &About,
    has_details: bool,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let document = Document {
        summary: summary(results, about),
        details: has_details.then(|| Details::of(&results.records)),
    };
    serde_json::to_writer(&mut *to, &document)?;
    to.write_all(b"\n")
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    summary: Map<String, Value>,
    #[serde(flatten)]
    details: Option<Details<'a>>,
}

/// One entry per request.
#[derive(Serialize)]
struct Details<'a> {
    input_lens: Each<'a, u64>,
    output_lens: Each<'a, u64>,
    cached_lens: Each<'a, Option<u64>>,
    ttfts: Each<'a, f64>,
    itls: Each<'a, &'a [f64]>,
    latencies: Each<'a, f64>,
    start_times: Each<'a, f64>,
    queue_times: Each<'a, f64>,
    send_lags: Each<'a, f64>,
    errors: Each<'a, String>,
}

/// The names of [`Details`].
const DETAILS: [&str; 10] = [
    "input_lens",
    "output_lens",
    "cached_lens",
    "ttfts",
    "itls",
    "latencies",
    "start_times",
    "queue_times",
    "send_lags",
    "errors",
];

/// A list with one value per request, made while it is written: a million gaps need not be copied.
struct Each<'a, T> {
    records: &'a [Record],
    value: fn(&'a Record) -> T,
}

impl<T: Serialize> Serialize for Each<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.records.len()))?;
        for record in self.records {
            list.serialize_element(&(self.value)(record))?;
        }
        list.end()
    }
}

impl<'a> Details<'a> {
    fn of(records: &'a [Record]) -> Self {
        Self {
            input_lens: Each {
                records,
                value: |record| record.prompt_tokens,
            },
            output_lens: Each {
                records,
                value: |record| match record.failure {
                    None => record.output_tokens,
                    Some(_) => 0,
                },
            },
            cached_lens: Each {
                records,
                value: |record| record.cached_tokens,
            },
            ttfts: Each {
                records,
                value: |record| record.ttft,
            },
            itls: Each {
                records,
                value: |record| &record.itls,
            },
            latencies: Each {
                records,
                value: |record| record.latency,
            },
            start_times: Each {
                records,
                value: |record| record.start,
            },
            queue_times: Each {
                records,
                value: Record::queue_time,
            },
            send_lags: Each {
                records,
                value: Record::lag,
            },
            errors: Each {
                records,
                value: |record| {
                    let failure = record.failure.as_ref();
                    failure.map_or_else(String::new, ToString::to_string)
                },
            },
        }
    }
}

fn summary(results: &Results, about: &About) -> Map<String, Value> {
    let arrivals = about.load.arrivals;
    let rate = |rate: f64| {
        if rate.is_finite() {
            json!(rate)
        } else {
            json!("inf")
        }
    };
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
    put("date", json!(about.date()));
    put("backend", json!("openai"));
    put("label", json!(about.label));
    put("model_id", json!(about.model));
    put("tokenizer_id", Value::Null);
    put("num_prompts", json!(about.num_prompts));
    put("request_rate", rate(arrivals.rate));
    put("burstiness", rate(arrivals.burstiness));
    put("max_concurrency", json!(about.load.max_concurrency));
    if let Some(ramp) = arrivals.ramp_up {
        let strategy = if ramp.is_exponential {
            "exponential"
        } else {
            "linear"
        };
        put("ramp_up_strategy", json!(strategy));
        put("ramp_up_start_rps", json!(ramp.from));
        put("ramp_up_end_rps", json!(ramp.to));
    }
    put("duration", json!(results.duration));
    put("completed", json!(results.completed));
    put("failed", json!(results.failed));
    put("total_input_tokens", json!(results.total_input));
    put("total_output_tokens", json!(results.total_output));
    put("request_throughput", json!(results.request_throughput()));
    put("request_goodput", json!(results.request_goodput()));
    put("output_throughput", json!(results.output_throughput()));
    put("total_token_throughput", json!(results.total_throughput()));
    put("max_output_tokens_per_s", json!(results.peak_output()));
    put("max_concurrent_requests", json!(results.peak_concurrency()));
    for (key, ..) in MEASURES {
        put_distribution(&mut put, key, results.measure(key));
    }
    put_distribution(&mut put, "tpot_incl_first", &results.tpot_incl_first);
    if about.load.max_concurrency.is_some() {
        put_distribution(&mut put, "client_queue_time", &results.queue_time);
    }
    put_distribution(&mut put, "send_lag", &results.lag);

    put("max_send_lag_ms", json!(about.max_lag_ms));
    put("is_client_bound", json!(results.is_client_bound(about)));
    put("total_cached_tokens", json!(results.total_cached));
    put("total_chunks", json!(results.num_chunks()));
    put("num_uncounted", json!(results.num_uncounted));
    put("in_flight_at_end", json!(results.in_flight));
    put("unsent", json!(results.unsent));
    put("is_interrupted", json!(results.is_interrupted));
    let failures: BTreeMap<&str, usize> = results
        .failures
        .iter()
        .map(|(kind, (count, _))| (kind.as_str(), *count))
        .collect();
    put("failures", json!(failures));
    put("client_cpu_seconds", json!(results.cpu_seconds));
    if let Some(calibration) = results.calibration {
        put("tokens_per_word", json!(calibration.tokens_per_word));
        put("prompt_overhead_tokens", json!(calibration.overhead));
    }
    put("server", json!(about.server));
    put("endpoint", json!(about.endpoint));
    put("seed", json!(about.seed));
    let settings: Map<String, Value> = about
        .settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    put("settings", json!(settings));
    put("mixgate_version", json!(env!("CARGO_PKG_VERSION")));
    let metadata: Map<String, Value> = about
        .metadata
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    put("metadata", json!(metadata));
    // As vLLM has it; ours come first, so that no caller can rewrite a result.
    for (name, value) in metadata {
        if !DETAILS.contains(&name.as_str()) {
            all.entry(name).or_insert(value);
        }
    }
    all
}

/// `mean_…_ms` and its siblings; milliseconds.
fn put_distribution(
    put: &mut impl FnMut(&str, Value) -> Option<Value>,
    key: &str,
    of: &Distribution,
) {
    put(&format!("mean_{key}_ms"), json!(of.mean));
    put(&format!("median_{key}_ms"), json!(of.median()));
    put(&format!("std_{key}_ms"), json!(of.std));
    for percent in PERCENTILES {
        let value = of.percentile(percent);
        put(&format!("p{percent}_{key}_ms"), json!(value));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{about, results};
    use super::*;

    fn document(has_details: bool) -> Value {
        let mut text = Vec::new();
        json(&results(), &about(), has_details, &mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn every_name_of_vllm_is_there() {
        let document = document(true);
        for name in [
            "date",
            "backend",
            "label",
            "model_id",
            "tokenizer_id",
            "num_prompts",
            "request_rate",
            "burstiness",
            "max_concurrency",
            "duration",
            "completed",
            "failed",
            "total_input_tokens",
            "total_output_tokens",
            "request_throughput",
            "request_goodput",
            "output_throughput",
            "total_token_throughput",
            "input_lens",
            "output_lens",
            "ttfts",
            "itls",
            "latencies",
            "start_times",
            "queue_times",
            "errors",
            "max_output_tokens_per_s",
            "max_concurrent_requests",
        ] {
            assert!(document.get(name).is_some(), "{name}");
        }
        for measure in ["ttft", "tpot", "itl", "e2el"] {
            for statistic in ["mean", "median", "std", "p50", "p90", "p95", "p99"] {
                let name = format!("{statistic}_{measure}_ms");
                assert!(document[&name].is_f64(), "{name}");
            }
        }
    }

    #[test]
    fn values_are_in_the_units_of_vllm() {
        let document = document(true);
        assert_eq!(document["mean_ttft_ms"], 375.0);
        assert_eq!(document["mean_itl_ms"], 1750.0 / 3.0);
        assert_eq!(document["ttfts"], json!([0.25, 0.0, 0.5]));
        assert_eq!(document["itls"], json!([[0.5, 0.25], [], [1.0]]));
        assert_eq!(document["output_lens"], json!([3, 0, 2]));
        assert_eq!(document["start_times"], json!([0.0, 1.0, 2.0]));
        assert_eq!(document["request_throughput"], 0.5);
        assert_eq!(document["request_goodput"], 0.25);
        assert_eq!(
            document["errors"],
            json!(["", "HTTP 503 <full>: come back later", ""])
        );
        assert_eq!(document["failures"], json!({"HTTP 503 <full>": 1}));
    }

    #[test]
    fn metadata_is_at_the_top_but_rewrites_nothing() {
        let document = document(false);
        assert_eq!(document["gpu"], "none & nothing");
        assert_eq!(document["failed"], 1);
        assert_eq!(document["metadata"]["failed"], "99");
    }

    #[test]
    fn details_can_be_left_out() {
        let document = document(false);
        assert!(DETAILS.iter().all(|name| document.get(name).is_none()));
        let whole = self::document(true);
        assert!(DETAILS.iter().all(|name| whole[name].is_array()));
    }

    #[test]
    fn an_infinite_rate_is_a_word() {
        let mut about = about();
        about.load.arrivals.rate = f64::INFINITY;
        assert_eq!(summary(&results(), &about)["request_rate"], "inf");
    }
}
