//! Verdicts of results that were made up, with figures worked out by hand.

use serde_json::json;

use super::*;

/// Copies at 3,000 GB/s; our product does 400 TFLOP/s, the library's 700.
fn results() -> Value {
    let decode = |batch: u64, step_ms: f64, weights: u64, kv: u64, host_us: f64| {
        json!({"batch": batch, "decode": {"sequences": batch, "step_ms": {"p50": step_ms},
            "host_us": {"p50": host_us}, "floor": {"weights": weights, "kv": kv}}})
    };
    let kernel = |name: &str, us: f64| json!({"name": name, "rows": 16, "us": us});
    json!({
        "gpu": "NVIDIA H100 80GB HBM3, 580.1, 81559 MiB, 700 W",
        "layer": {
            "ceilings": {"copy_gb_per_s": 3000.0, "bf16_tflop_per_s": 400.0, "library_tflop_per_s": 700.0,
                "datasheet": {"bf16_tflop_per_s": 989.0}},
            "rows": [kernel("experts in + out w4a16", 260.0), kernel("route + sort_by_expert", 20.0),
                kernel("add_experts_rms_norm", 10.0)],
        },
        "decode-w4a16": {"rows": [
            // 6.9 GB take 2.3 ms: 69 % of 3.333.
            decode(1, 10.0 / 3.0, 6_800_000_000, 100_000_000, 12.0),
            // 30 GB take 10 ms: 80 % of 12.5.
            decode(32, 12.5, 25_000_000_000, 5_000_000_000, 3.0),
            // 33 GB take 11 ms: 73.3 % of 15.
            decode(64, 15.0, 24_000_000_000, 9_000_000_000, 2.0),
            // 42 GB take 14 ms: 69.3 % of 20.2.
            decode(128, 20.2, 24_000_000_000, 18_000_000_000, 1.0),
        ]},
        "decode-q8_0": {"rows": [decode(64, 22.0, 49_500_000_000, 0, 31.0)]},
        // 245 TFLOP in the median of 500, 700 and 900 ms: 350 TFLOP/s.
        "prefill-8k-w4a16": {"prompt_flops": 245e12, "rows": [
            {"ttft_ms": {"p50": 900.0}}, {"ttft_ms": {"p50": 500.0}}, {"ttft_ms": {"p50": 700.0}}]},
        "serving-w4a16": {"rows": [{"batch": 256, "output_tokens_per_second": 3799.0}]},
    })
}

fn told(results: &Value) -> Vec<(Option<f64>, Verdict)> {
    let rounded = |value: f64| (value * 10.0).round() / 10.0;
    judge(results)
        .into_iter()
        .map(|target| (target.value.map(rounded), target.verdict))
        .collect()
}

#[test]
fn each_target_is_judged_by_its_own_figure() {
    use Verdict::{Met, Missed, NotMeasured};
    assert_eq!(
        told(&results()),
        [
            (Some(69.0), Met),
            // The worst of three.
            (Some(69.3), Missed),
            // 16.5 of 22 ms.
            (Some(75.0), Met),
            // 290 µs, to a tenth of a millisecond.
            (Some(0.3), Met),
            // 350 of cuBLASLt's 700.
            (Some(50.0), Met),
            (None, NotMeasured),
            (Some(31.0), Missed),
            (Some(3799.0), Missed),
        ]
    );
    let all = judge(&results());
    assert!(
        all[4]
            .measured
            .contains("350 TFLOP/s of 700 (cuBLASLt's); of the datasheet's 35.4 %")
    );
    assert!(
        all[1]
            .measured
            .contains("batch 128 takes 20.20 ms, 42.00 GB at 3000 GB/s 14.00")
    );
}

#[test]
fn without_the_library_a_prompt_is_held_against_the_datasheet_and_without_that_against_our_own_product()
 {
    let mut results = results();
    results["layer"]["ceilings"]["library_tflop_per_s"] = Value::Null;
    // 350 of 989.
    assert_eq!(told(&results)[4], (Some(35.4), Verdict::Met));
    assert!(judge(&results)[4].measured.contains("the datasheet's"));
    results["layer"]["ceilings"]["datasheet"] = Value::Null;
    // Of our own 400, which is no peak.
    assert_eq!(told(&results)[4], (Some(87.5), Verdict::NotMeasured));
    assert!(judge(&results)[4].measured.contains("our own product's"));
}

#[test]
fn what_was_not_decoded_at_once_does_not_count_and_what_is_missing_is_no_success() {
    let mut results = results();
    results["decode-w4a16"]["rows"][3]["decode"]["sequences"] = json!(100);
    // 32 and 64 are good enough; nobody knows about 128.
    assert_eq!(told(&results)[1], (Some(73.3), Verdict::NotMeasured));
    results["decode-w4a16"]["rows"][0]["decode"] = Value::Null;
    assert_eq!(told(&results)[0], (None, Verdict::NotMeasured));
    assert!(
        judge(&json!({}))
            .iter()
            .all(|it| it.verdict == Verdict::NotMeasured && it.value.is_none())
    );
}

#[test]
fn figures_for_an_h100_say_nothing_of_another_card() {
    let mut results = results();
    results["gpu"] = json!("NVIDIA A100 80GB PCIe, 580.1");
    let told = told(&results);
    assert_eq!(
        (told[3].1, told[7].1),
        (Verdict::OtherCard, Verdict::OtherCard)
    );
    assert_eq!(told[0].1, Verdict::Met);
}

#[test]
fn a_floor_is_bytes_over_the_copy_rate_and_a_peak_operations_over_a_products() {
    // 3 GB at 3,000 GB/s are 1 ms, half of 2.
    assert!((percent_of_floor(3e9, 3000.0, 2.0) - 50.0).abs() < 1e-9);
    // 1 TFLOP at 500 TFLOP/s is 2 ms, a fifth of 10.
    assert!((percent_of_peak(1e12, 500.0, 10.0) - 20.0).abs() < 1e-9);
}
