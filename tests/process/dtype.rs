//! Weights stored otherwise than the checkpoint has them: what is served then, and what is refused.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::common::within;
use super::harness::{Home, Mixgate, QUESTION};

#[tokio::test]
async fn each_dtype_answers_the_question_as_bf16_does() {
    let mut answers = Vec::new();
    for dtype in ["auto", "q8_0", "w4a16", "q4_k", "fp8"] {
        let server = Mixgate::serve(&["--dtype", dtype]);
        let stored = if dtype == "auto" { "bf16" } else { dtype };
        assert_eq!(server.ready["dtype"], stored);
        let fields = json!({
            "temperature": 0, "messages": [{"role": "user", "content": QUESTION}],
        });
        let response = server.chat(&fields).await;
        assert_eq!(response.status(), 200);
        let said: Value = within(response.json()).await.unwrap();
        answers.push(said["choices"][0]["message"]["content"].clone());
    }
    assert!(answers[0].as_str().unwrap().contains("carrot"));
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
}

#[test]
fn a_dtype_that_is_none_is_refused_with_all_that_there_are() {
    let home = Home::new();
    let said = home.run(&["serve", "--dtype", "int4"]);
    assert_eq!(
        said.stderr,
        "error: dtype is \"int4\", wanted auto, w4a16, q8_0, q4_k, fp8, bf16 or f32 (from --dtype)\n\
         hint: write q4_k or w4a16\n"
    );
    assert_eq!(said.code, Some(2));
}

#[test]
fn rows_that_are_no_whole_blocks_are_refused_with_what_fits() {
    let home = Home::new();
    // The tokenizer comes first; the model is one that is too narrow for blocks of 256.
    for file in [
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ] {
        home.write(file, &seedling(file));
    }
    let mut config: Value = serde_json::from_str(&seedling("config.json")).unwrap();
    for (field, value) in [
        ("hidden_size", 128),
        ("head_dim", 32),
        ("num_hidden_layers", 1),
    ] {
        config[field] = value.into();
    }
    home.write("config.json", &config.to_string());
    let tensors: HashMap<String, Tensor> = [
        ("model.embed_tokens", 3072),
        ("model.layers.0.self_attn.q_proj", 128),
    ]
    .map(|(name, rows)| {
        let zeros = Tensor::zeros((rows, 128), candle_core::DType::BF16, &Device::Cpu);
        (format!("{name}.weight"), zeros.unwrap())
    })
    .into();
    let norm = Tensor::zeros(128, candle_core::DType::BF16, &Device::Cpu).unwrap();
    let mut tensors = tensors;
    tensors.insert("model.layers.0.input_layernorm.weight".to_owned(), norm);
    candle_core::safetensors::save(&tensors, home.path().join("model.safetensors")).unwrap();

    let said = home.run(&["serve", "--model", ".", "--dtype", "q4_k"]);
    assert_eq!(
        said.stderr,
        "error: cannot load the model\n  \
         caused by: model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight` has rows of 128 weights, q4_k \
         stores them in blocks of 256\n\
         hint: choose a --dtype that fits: f32, bf16, w4a16, q8_0, fp8; auto keeps weights as they are\n"
    );
    assert_eq!(said.code, Some(1));
}

#[test]
fn a_null_model_has_no_weights_to_store() {
    let said = Home::new().run(&["serve", "--model", "null:mixtral-8x7b", "--dtype", "q8_0"]);
    assert_eq!(
        said.stderr,
        "error: dtype is q8_0, a null model has no weights\n\
         hint: leave it out, or name the device and its precision, such as null:mixtral-8x7b@a100-w4a16\n"
    );
}

#[test]
fn the_engines_bench_measures_the_dtype_that_it_names() {
    let home = Home::new();
    let words = [
        "bench",
        "engine",
        "--dtype",
        "q8_0",
        "--batch",
        "2",
        "--prompt-len",
        "8",
        "--output-len",
        "4",
    ];
    let said = home.run(&[&words[..], &["--json", "out.json"]].concat());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(
        said.stdout.starts_with("seedling (q8_0)  ·  cpu"),
        "{}",
        said.stdout
    );
    let written = std::fs::read_to_string(home.path().join("out.json")).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&written).unwrap()["dtype"],
        "q8_0"
    );
}

#[test]
fn the_engines_bench_runs_a_synthetic_model_stored_as_its_name_says() {
    let home = Home::new();
    let model = "synthetic:seedling,dtype=w4a16,layers=2";
    let sizes = ["--batch", "2", "--prompt-len", "8", "--output-len", "4"];
    let said = home.run(&[&["bench", "engine", "--model", model], &sizes[..]].concat());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let title = "seedling,dtype=w4a16,layers=2 (w4a16)  ·  cpu";
    assert!(said.stdout.starts_with(title), "{}", said.stdout);
    let refused = home.run(&["bench", "engine", "--model", "synthetic:mixtral-9x7b"]);
    assert_eq!(refused.code, Some(2));
    assert_eq!(
        refused.stderr,
        "error: model is \"synthetic:mixtral-9x7b\", wanted \"seedling\", a checkpoint folder, synthetic:SHAPE or \
         null:SHAPE[@DEVICE-PRECISION] (from --model)\n\
         hint: there is no shape \"mixtral-9x7b\"; there are mixtral-8x7b, mixtral-8x22b, seedling\n"
    );
}

/// A file of the model in the binary.
fn seedling(file: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models/seedling/");
    std::fs::read_to_string(format!("{folder}{file}")).unwrap()
}
