//! A null model behind the real server: who calls is checked, tokens stream one by one, nothing is computed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::common::within;
use super::harness::{Home, Mixgate, events};

const MODEL: &str = "null:mixtral-8x7b@h200-w4a16";
const NAME: &str = "mixtral-8x7b@h200-w4a16";

async fn stream(server: &Mixgate, max_tokens: u64) -> Vec<Value> {
    let fields = json!({
        "model": NAME, "stream": true, "max_tokens": max_tokens,
        "stream_options": {"include_usage": true},
    });
    let response = server.chat(&fields).await;
    assert_eq!(response.status(), 200);
    events(&within(response.text()).await.unwrap())
}

#[tokio::test]
async fn a_null_model_streams_each_token_by_itself_and_says_what_it_is() {
    let server = Mixgate::serve(&["--model", MODEL]);
    assert_eq!(server.ready["model"], NAME);
    assert_eq!(server.ready["parameters"], 46_702_792_704_u64);
    assert_eq!(server.ready["max_model_len"], 32768);
    let caution = server.ready["caution"].as_str().unwrap();
    assert!(caution.starts_with("computes nothing: "), "{caution}");
    // 141 GB × 92 % − 2 GB − 24.7 GB of weights, at 128 KiB per token.
    let tokens = server.ready["kv_cache_tokens"].as_u64().unwrap();
    assert!((780_000..790_000).contains(&tokens), "{tokens}");

    let url = server.url("/v1/chat/completions");
    let refused = within(server.client.post(url).json(&json!({})).send()).await;
    assert_eq!(refused.unwrap().status(), 401);

    let start = Instant::now();
    let said = stream(&server, 50).await;
    let taken = start.elapsed();
    // 50 steps of 6.8 GB of weights at 4.3 TB/s: 1.6 ms each.
    assert!(taken > Duration::from_millis(50 * 3 / 2), "{taken:?}");
    let texts: Vec<&str> = said
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .filter(|text| !text.is_empty())
        .collect();
    let usage = &said[said.len() - 2]["usage"];
    assert_eq!(usage["completion_tokens"], 50, "{said:?}");
    assert_eq!(texts.len(), 50);
    let is_word = |text: &&str| {
        text.trim_start()
            .bytes()
            .all(|byte| byte.is_ascii_lowercase())
    };
    assert!(texts.iter().all(is_word), "{texts:?}");
    assert_eq!(texts, {
        let again = stream(&server, 50).await;
        let again = again.iter();
        again
            .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    assert_eq!(server.metric("vllm:generation_tokens_total").await, 100.0);
}

#[test]
fn a_card_that_is_too_small_is_one_error_with_a_hint() {
    let home = Home::new();
    for command in [&["serve"][..], &["config", "check"]] {
        let more = [
            "--model",
            "null:mixtral-8x7b@h100-bf16",
            "--log-format=json",
        ];
        let said = home.run(&[command, &more[..]].concat());
        assert_eq!(said.code, Some(1), "{}", said.stderr);
        assert_eq!(
            said.stderr,
            "error: the weights need 87.0 GiB, an H100 SXM 80 GB has 66.7 GiB for weights and cache\n  \
             caused by: mixtral-8x7b is 46.7 B parameters × 2.00 bytes (bf16)\n\
             hint: these fit: h100-q8_0, h100-fp8, h100-int8, \
             h100-q4_k, h100-w4a16, h200-bf16\n"
        );
    }
}

#[test]
fn bench_engine_prints_a_row_per_batch_and_writes_the_same_as_json() {
    let home = Home::new();
    for model in ["seedling", "null:mixtral-8x7b", MODEL] {
        let sizes = [
            "--batch=1,3",
            "--prompt-len=40",
            "--output-len=6",
            "--json=out.json",
        ];
        let said = home.run(&[&["bench", "engine", "--model", model], &sizes[..]].concat());
        assert_eq!((said.code, &*said.stderr), (Some(0), ""), "{said:?}");
        let rows: Vec<&str> = said.stdout.lines().rev().take(2).collect();
        assert!(
            rows[0].starts_with("      3 ") && rows[1].starts_with("      1 "),
            "{rows:?}"
        );
        let is_null = model.starts_with("null:");
        assert_eq!(
            said.stdout.contains("computes nothing"),
            is_null,
            "{}",
            said.stdout
        );

        let json = std::fs::read(home.path().join("out.json")).unwrap();
        let json: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            json["command"],
            format!("mixgate bench engine --model {model} {}", sizes.join(" "))
        );
        assert!(json["machine"]["cpus"].as_u64().unwrap() > 0);
        assert_eq!(json["rows"].as_array().unwrap().len(), 2);
        let row = &json["rows"][1];
        assert_eq!((&row["batch"], &row["preemptions"]), (&json!(3), &json!(0)));
        assert!(row["steps"].as_u64().unwrap() >= 6, "{row}");
        let first = &json["rows"][0];
        let decode = first["decode"]["tokens_per_second"].as_f64();
        assert!(decode.is_some_and(|rate| rate > 0.0), "{first}");
        if model == MODEL {
            // 6.8 GB at 4.3 TB/s: 1.6 ms for each of six steps, never less from the first submission to the last token; how much
            // more is the machine's business. (Steps by themselves may look shorter, if the end of the one before is seen late.)
            let rate = first["output_tokens_per_second"].as_f64().unwrap();
            assert!(rate < 632.0, "{rate}");
        }
    }
    let long = home.run(&["bench", "engine", "--batch=1", "--output-len=2000"]);
    assert_eq!(long.code, Some(2));
    assert_eq!(
        long.stderr,
        "error: a request needs 3024 tokens of context, at most 2048 fit\n\
         hint: choose a smaller --prompt-len or --output-len\n"
    );
}

#[test]
fn a_device_and_a_library_that_a_null_model_does_not_use_are_one_warning_each() {
    let sizes = ["--batch=1", "--prompt-len=4", "--output-len=2"];
    let ignored = [
        "--model",
        "null:mixtral-8x7b",
        "--device",
        "cuda:0",
        "--cublaslt",
    ];
    let said = Home::new().run(&[&["bench", "engine"], &ignored[..], &sizes].concat());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let messages: Vec<Value> = said
        .stderr
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["level"] == "WARN")
        .map(|line| line["message"].clone())
        .collect();
    assert_eq!(
        messages,
        [
            "--device cuda:0 is ignored: a null model computes nothing; its name says whose pace it keeps",
            "--cublaslt is ignored: it multiplies on a GPU, see --device",
        ]
    );
}
