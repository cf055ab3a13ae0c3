//! Memory: what a model takes while it loads, and what is refused because there is not enough.

use std::collections::HashMap;
use std::process::Stdio;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::harness::Home;

/// 141 B parameters in f32 are 524 GiB.
#[test]
fn a_model_that_memory_cannot_hold_is_refused_before_it_loads() {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    if field(&meminfo, "MemAvailable").is_none_or(|kib| kib > 520 << 20) {
        return; // a machine that has it all, or does not say
    }
    for command in [&["serve"][..], &["bench", "engine"]] {
        let words = ["--model", "synthetic:mixtral-8x22b", "--dtype", "f32"];
        let said = Home::new().run(&[command, &words].concat());
        assert_eq!(said.code, Some(1), "{}", said.stderr);
        let lines: Vec<&str> = said.stderr.lines().collect();
        let start = lines.iter().position(|line| line.starts_with("error: "));
        let [error, cause, hint] = lines[start.unwrap()..] else {
            panic!("{}", said.stderr);
        };
        let (needs, has) = error.split_once(", the ").unwrap();
        assert_eq!(needs, "error: weights need 523.5 GiB");
        let (place, free) = has.split_once(" has ").unwrap();
        assert!(["machine", "container"].contains(&place), "{error}");
        assert!(free.ends_with(" GiB free"), "{error}");
        assert_eq!(
            cause,
            "  caused by: mixtral-8x22b is 140.6 B parameters × 4 bytes (f32)"
        );
        assert!(hint.starts_with("hint: "), "{hint}");
    }
}

/// Rows go from the file to their blocks one by one: beside what is kept, a quarter of the file is never held.
#[cfg(target_os = "linux")]
#[test]
fn a_checkpoint_that_is_quantised_is_not_held_beside_what_is_made_of_it() {
    let home = Home::new();
    let file_bytes = write_checkpoint(&home);
    let four_bits = file_bytes * 4125 / 32_000;
    let peak = peak_of(&home, &["--model", ".", "--dtype", "w4a16"]);
    let seedling = peak_of(&home, &["--model", "seedling"]);
    // The embeddings stay as they are: 3072 rows of 512 in f32.
    let kept = four_bits + 3072 * 512 * 4;
    assert!(
        peak < seedling + kept + file_bytes / 4,
        "{peak} bytes at most, {seedling} of the seedling, for a file of {file_bytes} of which {kept} are kept"
    );
}

/// The most memory of its own, not of files, that a short run was seen to have.
#[cfg(target_os = "linux")]
fn peak_of(home: &Home, model: &[&str]) -> u64 {
    let sizes =
        "--batch 1 --prompt-len 4 --output-len 2 --max-num-batched-tokens 128 --kv-cache-tokens 64";
    let sizes: Vec<&str> = sizes.split(' ').collect();
    let mut command = home.mixgate(&[&["bench", "engine"], model, &sizes].concat());
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let path = format!("/proc/{}/status", child.id());
    let mut most = 0;
    loop {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        most = most.max(field(&status, "RssAnon").unwrap_or(0) << 10);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return most;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// A number of kibibytes by its name.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.strip_prefix(':')?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// One layer of a Mixtral in f32, of 8 experts as wide as 512 × 2048. The size of its weights.
#[cfg(target_os = "linux")]
fn write_checkpoint(home: &Home) -> u64 {
    const HIDDEN: usize = 512;
    const WIDTH: usize = 2048;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models/seedling/");
    let seedling = |file: &str| std::fs::read_to_string(format!("{folder}{file}")).unwrap();
    for file in [
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ] {
        home.write(file, &seedling(file));
    }
    let mut config: Value = serde_json::from_str(&seedling("config.json")).unwrap();
    for (field, value) in [
        ("hidden_size", HIDDEN),
        ("intermediate_size", WIDTH),
        ("num_hidden_layers", 1),
    ] {
        config[field] = value.into();
    }
    home.write("config.json", &config.to_string());
    let size = |field: &str| config[field].as_u64().unwrap() as usize;
    let (vocab, dim, experts) = (
        size("vocab_size"),
        size("head_dim"),
        size("num_local_experts"),
    );
    let [q, kv] = ["num_attention_heads", "num_key_value_heads"].map(|heads| size(heads) * dim);
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("model.embed_tokens".into(), vec![vocab, HIDDEN]),
        ("lm_head".into(), vec![vocab, HIDDEN]),
        ("model.norm".into(), vec![HIDDEN]),
    ];
    let layer = [
        ("input_layernorm", vec![HIDDEN]),
        ("post_attention_layernorm", vec![HIDDEN]),
        ("self_attn.q_proj", vec![q, HIDDEN]),
        ("self_attn.k_proj", vec![kv, HIDDEN]),
        ("self_attn.v_proj", vec![kv, HIDDEN]),
        ("self_attn.o_proj", vec![HIDDEN, q]),
        ("block_sparse_moe.gate", vec![experts, HIDDEN]),
    ];
    shapes.extend(layer.map(|(name, shape)| (format!("model.layers.0.{name}"), shape)));
    for expert in 0..experts {
        let name = |part| format!("model.layers.0.block_sparse_moe.experts.{expert}.{part}");
        shapes.push((name("w1"), vec![WIDTH, HIDDEN]));
        shapes.push((name("w2"), vec![HIDDEN, WIDTH]));
        shapes.push((name("w3"), vec![WIDTH, HIDDEN]));
    }
    let tensors: HashMap<String, Tensor> = (shapes.into_iter())
        .map(|(name, shape)| {
            let values = Tensor::rand(-0.1f32, 0.1, shape, &Device::Cpu).unwrap();
            assert_eq!(values.dtype(), DType::F32);
            (format!("{name}.weight"), values)
        })
        .collect();
    let path = home.path().join("model.safetensors");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    std::fs::metadata(path).unwrap().len()
}
