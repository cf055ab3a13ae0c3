//! Fields that are refused, by their whole answer or by what it names.

use serde_json::{Value, json};

use super::abuse::{server, unharmed};
use super::common::{refusal, within};

#[tokio::test]
async fn every_field_of_a_wrong_type_or_size_is_named() {
    let server = server();
    let wrong = |names: &'static [&'static str], values: Vec<Value>| {
        names
            .iter()
            .flat_map(move |name| values.clone().into_iter().map(move |value| (*name, value)))
    };
    let types = [
        wrong(
            &["model", "messages", "stop"],
            vec![json!(7), json!(true), json!({})],
        ),
        wrong(
            &["temperature", "top_p", "min_p", "frequency_penalty"],
            vec![json!("1"), json!(true), json!([1]), json!({})],
        ),
        wrong(
            &["presence_penalty", "repetition_penalty"],
            vec![json!("1"), json!(false), json!([])],
        ),
        wrong(
            &["n", "seed", "top_k", "max_tokens", "max_completion_tokens"],
            vec![json!("1"), json!(1.5), json!(true), json!([1])],
        ),
        wrong(
            &["min_tokens"],
            vec![json!("1"), json!(0.5), json!(true), json!({})],
        ),
        wrong(
            &["stream", "ignore_eos"],
            vec![json!("true"), json!(1), json!([])],
        ),
        wrong(
            &["stop_token_ids", "logit_bias"],
            vec![json!("1"), json!(1), json!(true)],
        ),
    ];
    let mut cases: Vec<(Value, &str, String)> = types
        .into_iter()
        .flatten()
        .map(|(name, value)| (json!({name: value}), "invalid_type", name.to_owned()))
        .collect();
    let many = |n: usize| (0..n).map(|i| format!("s{i}")).collect::<Vec<_>>();
    for (fields, code, param) in [
        (json!({"n": 0}), "invalid_value", "n"),
        (json!({"n": 17}), "invalid_value", "n"),
        (json!({"n": 1e300}), "invalid_value", "n"),
        (json!({"n": u64::MAX}), "invalid_value", "n"),
        (json!({"max_tokens": 0}), "invalid_value", "max_tokens"),
        (json!({"max_tokens": -1}), "invalid_value", "max_tokens"),
        (
            json!({"max_tokens": u64::MAX}),
            "invalid_value",
            "max_tokens",
        ),
        (
            json!({"max_tokens": 1, "max_completion_tokens": 2}),
            "invalid_value",
            "max_tokens",
        ),
        (json!({"min_tokens": -1}), "invalid_value", "min_tokens"),
        (
            json!({"min_tokens": 9, "max_tokens": 2}),
            "invalid_value",
            "min_tokens",
        ),
        (json!({"temperature": -0.1}), "invalid_value", "temperature"),
        (json!({"temperature": 2.1}), "invalid_value", "temperature"),
        (json!({"top_p": 1.01}), "invalid_value", "top_p"),
        (json!({"min_p": -1}), "invalid_value", "min_p"),
        (json!({"top_k": -2}), "invalid_value", "top_k"),
        (
            json!({"frequency_penalty": 3}),
            "invalid_value",
            "frequency_penalty",
        ),
        (
            json!({"repetition_penalty": 0}),
            "invalid_value",
            "repetition_penalty",
        ),
        (json!({"seed": u64::MAX}), "invalid_value", "seed"),
        (json!({"stop": many(1000)}), "invalid_value", "stop"),
        (json!({"stop": ["x".repeat(5000)]}), "invalid_value", "stop"),
        (json!({"stop": ["a", 1]}), "invalid_type", "stop[1]"),
        (
            json!({"stop_token_ids": [3072]}),
            "invalid_value",
            "stop_token_ids[0]",
        ),
        (
            json!({"stop_token_ids": [-1]}),
            "invalid_value",
            "stop_token_ids[0]",
        ),
        (
            json!({"logit_bias": {"3072": 1}}),
            "invalid_value",
            "logit_bias",
        ),
        (
            json!({"logit_bias": {"-1": 1}}),
            "invalid_value",
            "logit_bias",
        ),
        (
            json!({"logit_bias": {"5": 101}}),
            "invalid_value",
            "logit_bias.5",
        ),
        (
            json!({"logit_bias": {"5": "1"}}),
            "invalid_type",
            "logit_bias.5",
        ),
        (
            json!({"stream_options": {"include_usage": true}}),
            "invalid_value",
            "stream_options",
        ),
        (
            json!({"stream": true, "stream_options": 7}),
            "invalid_type",
            "stream_options",
        ),
        (json!({"messages": []}), "invalid_value", "messages"),
        (json!({"messages": [7]}), "invalid_type", "messages[0]"),
        (
            json!({"messages": [{"content": "x"}]}),
            "missing_required_parameter",
            "messages[0].role",
        ),
        (
            json!({"model": null}),
            "missing_required_parameter",
            "model",
        ),
        (
            json!({"messages": null}),
            "missing_required_parameter",
            "messages",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
            "unsupported_parameter",
            "messages[0].content[0].type",
        ),
    ] {
        cases.push((fields, code, param.to_owned()));
    }
    for (fields, code, param) in cases {
        let given = refusal(server.chat(&fields).await).await;
        let shown: String = fields.to_string().chars().take(80).collect();
        assert_eq!(given, (400, code.to_owned(), Some(param)), "{shown}");
    }
    unharmed(&server).await;
}

#[tokio::test]
async fn refusals_say_fact_limit_and_given() {
    let server = server();
    let long = json!({"messages": [{"role": "user", "content": "carrots ".repeat(4000)}], "max_tokens": 10});
    let body: Value = within(server.chat(&long).await.json()).await.unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    let prompt: usize = message
        .split_once(" tokens (")
        .and_then(|(_, rest)| rest.split_once(" in the messages"))
        .and_then(|(count, _)| count.parse().ok())
        .unwrap_or_else(|| panic!("{message}"));
    assert!(prompt >= 4000, "{message}");
    assert_eq!(
        body,
        json!({"error": {
            "message": format!(
                "This model's maximum context length is 2048 tokens. However, you requested {} tokens ({prompt} in the \
                 messages, 10 in the completion). Please reduce the length of the messages or completion.",
                prompt + 10
            ),
            "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded",
        }})
    );
    for (fields, status, message, param, code) in [
        (
            json!({"model": "gpt-4"}),
            404,
            "The model `gpt-4` does not exist or you do not have access to it.",
            "model",
            "model_not_found",
        ),
        (
            json!({"temprature": 1}),
            400,
            "Unknown parameter: 'temprature'. Did you mean 'temperature'?",
            "temprature",
            "unknown_parameter",
        ),
        (
            json!({"n": 17}),
            400,
            "'n' must be between 1 and 16, not 17.",
            "n",
            "invalid_value",
        ),
        (
            json!({"stream": "yes"}),
            400,
            "'stream' must be true or false, not a string.",
            "stream",
            "invalid_type",
        ),
        (
            json!({"tools": [{"type": "function"}]}),
            400,
            "'tools' is not supported by this server; it may be left out or be empty.",
            "tools",
            "unsupported_parameter",
        ),
        (
            json!({"stop": vec!["x"; 1000]}),
            400,
            "'stop' holds 1000 strings, at most 16 are watched for.",
            "stop",
            "invalid_value",
        ),
    ] {
        let response = server.chat(&fields).await;
        assert_eq!(response.status(), status);
        let body: Value = within(response.json()).await.unwrap();
        assert_eq!(
            body,
            json!({"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}})
        );
    }
    unharmed(&server).await;
}
