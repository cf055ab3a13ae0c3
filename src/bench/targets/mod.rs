//! What was aimed at on a GPU, beside what `scripts/gpu-check/run` has measured.
//!
//! Reads the document that it writes: results of `bench kernels` and `bench engine` by name. Percentages are worked out
//! here, of floors that the results hold ([`super::floor`]) at ceilings that were measured in the same run. What was not
//! measured is no success and no failure.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

#[cfg(test)]
mod tests;

/// Something to reach.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Target {
    /// What is measured.
    pub what: String,
    /// What is aimed at.
    pub aim: String,
    /// What was measured, in the unit of the aim.
    pub value: Option<f64>,
    /// How that came about, or why there is nothing.
    pub measured: String,
    /// Whether it is enough.
    pub verdict: Verdict,
}

/// Whether a target was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was.
    Met,
    /// It was not.
    Missed,
    /// It was not measured, or not all of it.
    NotMeasured,
    /// It is for another card.
    OtherCard,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::NotMeasured => "not measured",
            Self::OtherCard => "for an H100",
        })
    }
}

/// All targets, judged by the results of a run.
pub fn judge(results: &Value) -> Vec<Target> {
    let results = Results(results);
    vec![
        results.decode("w4a16", &[1], 65.0),
        results.decode("w4a16", &[32, 64, 128], 70.0),
        results.decode("q8_0", &[64], 75.0),
        results.layer(),
        results.prefill("w4a16"),
        results.prefill("bf16"),
        results.host_gap(),
        results.serving(),
    ]
}

/// The bytes' least time at a measured copy rate, in percent of the time that a step took.
fn percent_of_floor(bytes: f64, copy_gb_per_s: f64, step_ms: f64) -> f64 {
    100.0 * (bytes / (copy_gb_per_s * 1e9)) / (step_ms / 1e3)
}

/// The operations' least time at a rate, in percent of the time that they took.
fn percent_of_peak(flops: f64, tflop_per_s: f64, ms: f64) -> f64 {
    100.0 * (flops / (tflop_per_s * 1e12)) / (ms / 1e3)
}

struct Results<'a>(&'a Value);

/// A batch that was decoded at once.
struct Decoded {
    batch: u64,
    step_ms: f64,
    bytes: f64,
    host_us: f64,
}

impl Results<'_> {
    fn ceilings(&self) -> &Value {
        let of = |name: &str| &self.0[name]["ceilings"];
        match of("layer") {
            Value::Null => of("kernels"),
            known => known,
        }
    }

    /// Rows of a result in which all sequences of the batch decoded at once.
    fn decoded(&self, name: &str) -> Vec<Decoded> {
        let row = |row: &Value| {
            let (batch, decode) = (row["batch"].as_u64()?, &row["decode"]);
            let bytes = |of: &str| decode["floor"][of].as_f64();
            (decode["sequences"].as_u64()? == batch).then_some(Decoded {
                batch,
                step_ms: decode["step_ms"]["p50"].as_f64()?,
                bytes: bytes("weights")? + bytes("kv")?,
                host_us: decode["host_us"]["p50"].as_f64()?,
            })
        };
        let rows = self.0[name]["rows"].as_array();
        rows.into_iter().flatten().filter_map(row).collect()
    }

    /// Decoding of each of these batches takes at most so much more than its floor. The worst of them counts.
    fn decode(&self, dtype: &str, batches: &[u64], least: f64) -> Target {
        let names: Vec<String> = batches.iter().map(u64::to_string).collect();
        let target = Target {
            what: format!("decode {dtype}, batch {}, 1k context", names.join(" ")),
            aim: format!(">= {least} % of floor"),
            value: None,
            measured: NOTHING.to_owned(),
            verdict: Verdict::NotMeasured,
        };
        let Some(copy) = self.ceilings()["copy_gb_per_s"].as_f64() else {
            return target;
        };
        let mut decoded = self.decoded(&format!("decode-{dtype}"));
        decoded.retain(|it| batches.contains(&it.batch));
        let percent = |it: &Decoded| percent_of_floor(it.bytes, copy, it.step_ms);
        let worst = decoded
            .iter()
            .min_by(|a, b| percent(a).total_cmp(&percent(b)));
        let Some(worst) = worst else { return target };
        let value = percent(worst);
        Target {
            value: Some(value),
            measured: format!(
                "{value:.1} %: batch {} takes {:.2} ms, {:.2} GB at {copy:.0} GB/s {:.2}",
                worst.batch,
                worst.step_ms,
                worst.bytes / 1e9,
                worst.bytes / copy / 1e6,
            ),
            verdict: match value >= least {
                false => Verdict::Missed,
                true if decoded.len() < batches.len() => Verdict::NotMeasured,
                true => Verdict::Met,
            },
            ..target
        }
    }

    /// The experts' products, the way to them and back, of 16 tokens.
    fn layer(&self) -> Target {
        let most = 300.0;
        let target = Target {
            what: "a layer's experts w4a16, 16 tokens".to_owned(),
            aim: "<= 0.30 ms on an H100".to_owned(),
            value: None,
            measured: NOTHING.to_owned(),
            verdict: Verdict::NotMeasured,
        };
        let us = |kernel: &str| {
            let of = |name: &str| self.0[name]["rows"].as_array().into_iter().flatten();
            let is_it = |row: &&Value| row["name"] == kernel && row["rows"] == 16;
            of("layer").chain(of("kernels")).find(is_it)?["us"].as_f64()
        };
        let kernels = [
            "experts in + out w4a16",
            "route + sort_by_expert",
            "add_experts_rms_norm",
        ];
        let [Some(experts), Some(route), Some(combine)] = kernels.map(us) else {
            return target;
        };
        let value = experts + route + combine;
        Target {
            value: Some(value / 1e3),
            measured: format!(
                "{:.3} ms: products {experts:.0} µs, route and sort {route:.0}, sum and norm {combine:.0}",
                value / 1e3
            ),
            verdict: self.on_h100(value <= most),
            ..target
        }
    }

    /// A prompt of 8,192 tokens: of what products reach at best. That is the faster of our own product and the library's;
    /// where the library was not measured, ours alone would flatter, and the datasheet's peak counts. Without either there is no
    /// verdict.
    fn prefill(&self, dtype: &str) -> Target {
        let least = 35.0;
        let target = Target {
            what: format!("prefill {dtype}, 8k tokens"),
            aim: format!(">= {least} % of peak, better 55 %"),
            value: None,
            measured: NOTHING.to_owned(),
            verdict: Verdict::NotMeasured,
        };
        let result = &self.0[format!("prefill-8k-{dtype}")];
        let times = result["rows"].as_array().into_iter().flatten();
        let mut times: Vec<f64> = times
            .filter_map(|row| row["ttft_ms"]["p50"].as_f64())
            .collect();
        times.sort_by(f64::total_cmp);
        let ceilings = self.ceilings();
        let rate = |name: &str| ceilings[name].as_f64();
        let (Some(&ms), Some(flops), Some(own)) = (
            times.get(times.len() / 2),
            result["prompt_flops"].as_f64(),
            rate("bf16_tflop_per_s"),
        ) else {
            return target;
        };
        let sheet = ceilings["datasheet"]["bf16_tflop_per_s"].as_f64();
        let (peak, whose) = match (rate("library_tflop_per_s"), sheet) {
            (Some(library), _) if library > own => (library, "cuBLASLt's"),
            (Some(_), _) => (own, "our product's, faster than cuBLASLt's"),
            (None, Some(sheet)) => (sheet, "the datasheet's, as cuBLASLt was not measured"),
            (None, None) => (own, "our own product's, for want of another"),
        };
        let value = percent_of_peak(flops, peak, ms);
        let of_sheet = match sheet {
            Some(sheet) => format!("{:.1} %", percent_of_peak(flops, sheet, ms)),
            None => "unknown".to_owned(),
        };
        Target {
            value: Some(value),
            measured: format!(
                "{value:.1} %: {ms:.0} ms, {:.0} TFLOP/s of {peak:.0} ({whose}); of the datasheet's {of_sheet}",
                flops / ms / 1e9,
            ),
            verdict: match (value >= least, rate("library_tflop_per_s").or(sheet)) {
                (false, _) => Verdict::Missed,
                (true, None) => Verdict::NotMeasured,
                (true, Some(_)) => Verdict::Met,
            },
            ..target
        }
    }

    /// How long the device waits for the host before a decode step: the median, of the batch where it is longest.
    fn host_gap(&self) -> Target {
        let most = 30.0;
        let all = ["decode-w4a16", "decode-q8_0"].map(|name| self.decoded(name));
        let worst = all
            .iter()
            .flatten()
            .max_by(|a, b| a.host_us.total_cmp(&b.host_us));
        Target {
            what: "the device waits for the host, each step".to_owned(),
            aim: format!("< {most} µs"),
            value: worst.map(|it| it.host_us),
            measured: worst.map_or(NOTHING.to_owned(), |it| {
                format!("{:.1} µs, median at batch {}", it.host_us, it.batch)
            }),
            verdict: match worst {
                None => Verdict::NotMeasured,
                Some(it) if it.host_us < most => Verdict::Met,
                Some(_) => Verdict::Missed,
            },
        }
    }

    /// 512 tokens in, 256 out, as many requests as run at once.
    fn serving(&self) -> Target {
        let least = 3800.0;
        let rates = ["w4a16", "q8_0"].map(|dtype| {
            let row = &self.0[format!("serving-{dtype}")]["rows"][0];
            Some((
                dtype,
                row["output_tokens_per_second"].as_f64()?,
                row["batch"].as_u64()?,
            ))
        });
        let best = rates
            .into_iter()
            .flatten()
            .max_by(|a, b| a.1.total_cmp(&b.1));
        Target {
            what: "serving 512 + 256 tokens, 4 or 8 bits".to_owned(),
            aim: format!(">= {least} tok/s on an H100"),
            value: best.map(|(_, rate, _)| rate),
            measured: best.map_or(NOTHING.to_owned(), |(dtype, rate, batch)| {
                format!("{rate:.0} tok/s out, {batch} requests, {dtype}")
            }),
            verdict: best.map_or(Verdict::NotMeasured, |it| self.on_h100(it.1 >= least)),
        }
    }

    /// What a figure for an H100 says of this card.
    fn on_h100(&self, is_enough: bool) -> Verdict {
        // As nvidia-smi calls it, or the driver.
        let names = [&self.0["gpu"], &self.0["layer"]["device"]];
        let is_h100 = |name: &Value| name.as_str().is_some_and(|it| it.contains(" H100"));
        match (names.into_iter().any(is_h100), is_enough) {
            (false, _) => Verdict::OtherCard,
            (true, true) => Verdict::Met,
            (true, false) => Verdict::Missed,
        }
    }
}

const NOTHING: &str = "-";
