use serde_json::json;

use super::*;

/// A configuration as transformers 5 writes it, with some fields replaced or, by null, unset.
fn with(changes: Value) -> Result<MixtralConfig, ModelError> {
    let mut config = json!({
        "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "dtype": "bfloat16",
        "eos_token_id": 2, "head_dim": null, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32,
        "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8,
        "rms_norm_eps": 1e-05, "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
        "router_jitter_noise": 0.0, "sliding_window": null, "tie_word_embeddings": false, "vocab_size": 32000
    });
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    MixtralConfig::parse(config.to_string().as_bytes())
}

fn refusal(changes: Value) -> String {
    with(changes).unwrap_err().to_string()
}

#[test]
fn mixtral_8x7b_is_read_as_it_is_published() {
    let config = with(json!({})).unwrap();
    assert_eq!(
        (
            config.head_dim,
            config.num_key_value_heads,
            config.rope_theta
        ),
        (128, 8, 1e6)
    );
    assert_eq!(
        (
            config.sliding_window,
            config.eos_token_ids,
            config.bos_token_id
        ),
        (None, vec![2], Some(1))
    );
    assert!(!config.tie_word_embeddings);
}

#[test]
fn older_files_say_torch_dtype_and_a_flat_rope_theta() {
    let old = json!({"rope_parameters": null, "rope_theta": 10000.0, "dtype": null, "torch_dtype": "float32"});
    assert_eq!(with(old).unwrap().rope_theta, 1e4);
}

#[test]
fn optional_fields_are_taken_when_they_are_there() {
    let changes = json!({
        "sliding_window": 4096, "head_dim": 96, "tie_word_embeddings": true, "eos_token_id": [2, 7],
        "bos_token_id": null, "num_key_value_heads": null
    });
    let config = with(changes).unwrap();
    assert_eq!(config.sliding_window, NonZeroUsize::new(4096));
    assert_eq!((config.head_dim, config.num_key_value_heads), (96, 32));
    assert_eq!(
        (config.eos_token_ids, config.bos_token_id),
        (vec![2, 7], None)
    );
    assert!(config.tie_word_embeddings);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let architecture = refusal(json!({"architectures": ["LlamaForCausalLM"]}));
    assert_eq!(
        architecture,
        "config.json: architectures is [\"LlamaForCausalLM\"]; supported is [\"MixtralForCausalLM\"]"
    );
    assert!(refusal(json!({"hidden_act": "gelu"})).contains("hidden_act is \"gelu\""));
    let yarn = refusal(json!({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}}));
    assert!(
        yarn.contains("rope_type is \"yarn\"; supported is \"default\""),
        "{yarn}"
    );
    assert!(
        refusal(json!({"rope_scaling": {"type": "linear", "factor": 2}}))
            .contains("rope_scaling is")
    );
    assert!(
        refusal(json!({"quantization_config": {"quant_method": "gptq"}})).contains("asks for gptq")
    );
}

#[test]
fn sizes_that_cannot_be_are_refused_and_never_panic() {
    for field in [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "num_attention_heads",
        "num_experts_per_tok",
        "num_hidden_layers",
        "num_key_value_heads",
        "num_local_experts",
        "head_dim",
    ] {
        assert!(
            refusal(json!({ field: 0 })).contains(&format!("{field} is 0")),
            "{field}"
        );
        let huge = refusal(json!({ field: u64::MAX }));
        assert!(
            huge.contains(field) || huge.contains("num_"),
            "{field}: {huge}"
        );
        assert!(
            refusal(json!({ field: -1 })).contains("invalid value"),
            "{field}"
        );
    }
    assert!(
        refusal(json!({"num_key_value_heads": 5})).contains("no multiple of num_key_value_heads 5")
    );
    assert!(
        refusal(json!({"num_experts_per_tok": 9})).contains("is more than num_local_experts 8")
    );
    assert!(
        refusal(json!({"num_attention_heads": 24, "num_key_value_heads": 8}))
            .contains("head_dim is not given")
    );
    assert!(refusal(json!({"head_dim": 65})).contains("head_dim 65 is odd"));
    assert!(refusal(json!({"sliding_window": 0})).contains("sliding_window is 0"));
    assert!(refusal(json!({"rms_norm_eps": 0.0})).contains("rms_norm_eps is 0"));
    assert!(refusal(json!({"rope_parameters": {"rope_theta": 0.0}})).contains("rope_theta is 0"));
}

#[test]
fn a_missing_field_is_named_and_so_is_nonsense() {
    let error = MixtralConfig::parse(br#"{"architectures": ["MixtralForCausalLM"]}"#)
        .unwrap_err()
        .to_string();
    assert!(error.contains("missing field `vocab_size`"), "{error}");
    assert!(
        MixtralConfig::parse(b"not json")
            .unwrap_err()
            .to_string()
            .starts_with("config.json: ")
    );
}

#[test]
fn generation_config_wins_over_config_and_may_be_absent() {
    let config = with(json!({})).unwrap();
    let parse = |json: &str| GenerationDefaults::parse(Some(json.as_bytes()), &config);
    let given = parse(r#"{"eos_token_id": [2, 5], "temperature": 0.7, "top_p": 0.9, "top_k": 50}"#)
        .unwrap();
    let expected = GenerationDefaults {
        eos_token_ids: vec![2, 5],
        temperature: Some(0.7),
        top_p: Some(0.9),
        top_k: Some(50),
    };
    assert_eq!(given, expected);
    assert_eq!(parse(r#"{"eos_token_id": 9}"#).unwrap().eos_token_ids, [9]);
    assert_eq!(parse("{}").unwrap().eos_token_ids, [2]);
    assert_eq!(
        GenerationDefaults::parse(None, &config)
            .unwrap()
            .eos_token_ids,
        [2]
    );
    assert!(
        parse("[")
            .unwrap_err()
            .to_string()
            .starts_with("generation_config.json: ")
    );
}
