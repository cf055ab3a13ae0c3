use serde_json::json;

use super::*;
use crate::server::SamplingDefaults;

fn card() -> ModelCard {
    ModelCard {
        id: "m".to_owned(),
        created: 0,
        owned_by: "o".to_owned(),
        max_model_len: 512,
        vocab_size: 100,
        sampling: SamplingDefaults::default(),
    }
}

/// A minimal request with `fields` added or replaced.
fn body(fields: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    body
}

fn parsed(fields: Value) -> ChatRequest {
    let body = body(fields);
    ChatRequest::parse(&body, &card()).unwrap_or_else(|error| panic!("{body}: {}", error.message()))
}

/// Code and path of the refusal.
fn refused(fields: Value) -> (&'static str, String) {
    let body = body(fields);
    match ChatRequest::parse(&body, &card()) {
        Ok(chat) => panic!("{body} became {chat:?}"),
        Err(error) => {
            assert!(error.status().is_client_error(), "{body}: {error:?}");
            (error.code(), error.param().unwrap_or_default().to_owned())
        }
    }
}

#[test]
fn a_minimal_request_has_openais_defaults() {
    let chat = parsed(json!({}));
    assert_eq!(
        chat,
        ChatRequest {
            messages: vec![RawMessage {
                role: "user".to_owned(),
                content: Some("hi".to_owned()),
                tool_calls: None,
                tool_call_id: None
            }],
            n: 1,
            ..ChatRequest::default()
        }
    );
}

#[test]
fn every_supported_field_arrives() {
    let chat = parsed(json!({
        "stream": true, "stream_options": {"include_usage": true, "continuous_usage_stats": true},
        "n": 2, "max_completion_tokens": 7, "min_tokens": 3, "ignore_eos": true,
        "stop": ["a", "", "b"], "stop_token_ids": [5, 99],
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": -1,
        "frequency_penalty": -2, "presence_penalty": 2, "repetition_penalty": 1.1,
        "logit_bias": {"0": -100, "99": 1.5}, "cache_salt": "pepper",
    }));
    assert_eq!(chat.cache_salt.as_deref(), Some("pepper"));
    assert!(chat.stream && chat.ignore_eos);
    assert!(chat.stream_options.include_usage && chat.stream_options.continuous_usage_stats);
    assert_eq!((chat.n, chat.max_tokens, chat.min_tokens), (2, Some(7), 3));
    assert_eq!(chat.stop, ["a", "b"]);
    assert_eq!(chat.stop_token_ids, [5, 99]);
    assert_eq!(
        chat.sampling,
        WireSampling {
            temperature: Some(0.5),
            top_p: Some(0.9),
            top_k: Some(Some(40)),
            min_p: Some(0.1),
            repetition_penalty: Some(1.1),
            frequency_penalty: -2.0,
            presence_penalty: 2.0,
            logit_bias: vec![(0, -100.0), (99, 1.5)],
            seed: Some(u64::MAX),
        }
    );
}

#[test]
fn null_is_the_same_as_leaving_out() {
    let nulls = REQUEST_FIELDS
        .iter()
        .map(|row| row.name)
        .filter(|name| !["model", "messages"].contains(name));
    let nulls: Object = nulls.map(|name| (name.to_owned(), Value::Null)).collect();
    assert_eq!(parsed(Value::Object(nulls)), parsed(json!({})));
}

#[test]
fn wrong_types_are_named_with_what_is_wanted() {
    for (fields, path) in [
        (json!({"model": 7}), "model"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": ["hi"]}), "messages[0]"),
        (
            json!({"messages": [{"role": "user", "content": "a"}, {"role": 1}]}),
            "messages[1].role",
        ),
        (
            json!({"messages": [{"role": "user", "content": 7}]}),
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}),
            "messages[0].content[0].text",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": {}}]}),
            "messages[0].tool_calls",
        ),
        (json!({"stream": "true"}), "stream"),
        (json!({"stream": 1}), "stream"),
        (
            json!({"stream": true, "stream_options": true}),
            "stream_options",
        ),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "stream_options.include_usage",
        ),
        (json!({"temperature": "0.7"}), "temperature"),
        (json!({"max_tokens": "16"}), "max_tokens"),
        (json!({"max_tokens": 1.5}), "max_tokens"),
        (json!({"cache_salt": 7}), "cache_salt"),
        (json!({"n": [1]}), "n"),
        (json!({"stop": 7}), "stop"),
        (json!({"stop": ["a", 7]}), "stop[1]"),
        (json!({"stop_token_ids": 7}), "stop_token_ids"),
        (json!({"logit_bias": [1]}), "logit_bias"),
        (json!({"logit_bias": {"7": "1"}}), "logit_bias.7"),
        (json!({"seed": "x"}), "seed"),
        (json!({"ignore_eos": 0}), "ignore_eos"),
    ] {
        assert_eq!(refused(fields), ("invalid_type", path.to_owned()));
    }
    let error = ChatRequest::parse(&body(json!({"temperature": "0.7"})), &card()).unwrap_err();
    assert_eq!(
        error.message(),
        "'temperature' must be a number, not a string."
    );
}

#[test]
fn values_out_of_range_are_named() {
    for (fields, path) in [
        (json!({"messages": []}), "messages"),
        (json!({"temperature": -0.1}), "temperature"),
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"top_p": 1.1}), "top_p"),
        (json!({"min_p": -0.1}), "min_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"frequency_penalty": 2.5}), "frequency_penalty"),
        (json!({"presence_penalty": -2.5}), "presence_penalty"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"repetition_penalty": 1e-60}), "repetition_penalty"),
        (json!({"repetition_penalty": 1e60}), "repetition_penalty"),
        (json!({"n": 0}), "n"),
        (json!({"n": 17}), "n"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": 1u64 << 40}), "max_tokens"),
        (json!({"max_tokens": 1e300}), "max_tokens"),
        (
            json!({"max_tokens": 5, "max_completion_tokens": 6}),
            "max_tokens",
        ),
        (json!({"max_tokens": 5, "min_tokens": 6}), "min_tokens"),
        (json!({"min_tokens": -1}), "min_tokens"),
        (json!({"seed": u64::MAX}), "seed"),
        (json!({"stop": vec!["x"; 17]}), "stop"),
        (json!({"stop": "x".repeat(1025)}), "stop"),
        (json!({"cache_salt": ""}), "cache_salt"),
        (json!({"cache_salt": "é".repeat(129)}), "cache_salt"),
        (json!({"stop_token_ids": [100]}), "stop_token_ids[0]"),
        (json!({"logit_bias": {"100": 1}}), "logit_bias"),
        (json!({"logit_bias": {"07": 1}}), "logit_bias"),
        (json!({"logit_bias": {"+7": 1}}), "logit_bias"),
        (json!({"logit_bias": {"the": 1}}), "logit_bias"),
        (json!({"logit_bias": {"7": 101}}), "logit_bias.7"),
        (
            json!({"stream_options": {"include_usage": true}}),
            "stream_options",
        ),
    ] {
        assert_eq!(refused(fields), ("invalid_value", path.to_owned()));
    }
}

#[test]
fn the_edges_of_the_ranges_are_inside() {
    for fields in [
        json!({"temperature": 0, "top_p": 0, "min_p": 1, "top_k": 0}),
        json!({"temperature": 2, "top_p": 1, "min_p": 0, "top_k": -1}),
        json!({"n": 16, "max_tokens": 1, "min_tokens": 1, "seed": i64::MIN}),
        json!({"max_tokens": 5, "max_completion_tokens": 5}),
        json!({"stop": "x".repeat(1024), "logit_bias": {}}),
        json!({"stop": []}),
        json!({"cache_salt": "é".repeat(128)}),
    ] {
        parsed(fields);
    }
    assert_eq!(parsed(json!({"top_k": -1})).sampling.top_k, Some(None));
}

#[test]
fn a_whole_number_may_be_written_as_a_decimal() {
    assert_eq!(parsed(json!({"max_tokens": 16.0})).max_tokens, Some(16));
}

#[test]
fn what_would_change_the_result_but_cannot_is_refused_by_name() {
    for fields in [
        json!({"logprobs": true}),
        json!({"top_logprobs": 3}),
        json!({"tools": [{"type": "function", "function": {"name": "f"}}]}),
        json!({"tool_choice": "required"}),
        json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        json!({"functions": [{"name": "f"}]}),
        json!({"response_format": {"type": "json_object"}}),
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}}),
        json!({"modalities": ["text", "audio"]}),
        json!({"audio": {"voice": "a"}}),
        json!({"prediction": {"type": "content", "content": "x"}}),
        json!({"web_search_options": {}}),
        json!({"service_tier": "flex"}),
        json!({"best_of": 2}),
        json!({"echo": true}),
        json!({"suffix": "x"}),
        json!({"use_beam_search": true}),
        json!({"guided_json": {}}),
        json!({"priority": 1}),
        json!({"chat_template_kwargs": {"enable_thinking": false}}),
    ] {
        let name = fields.as_object().unwrap().keys().next().unwrap().clone();
        assert_eq!(refused(fields), ("unsupported_parameter", name));
    }
}

#[test]
fn the_neutral_values_that_clients_send_pass() {
    assert_eq!(
        parsed(json!({
            "logprobs": false, "top_logprobs": 0, "tools": [], "tool_choice": "auto", "functions": [],
            "parallel_tool_calls": false, "response_format": {"type": "text"}, "modalities": ["text"],
            "service_tier": "auto", "store": false, "metadata": {"a": "b"}, "user": "u", "safety_identifier": "s",
            "prompt_cache_key": "k", "verbosity": "low", "reasoning_effort": "high", "best_of": 1, "echo": false,
            "add_generation_prompt": true, "skip_special_tokens": true, "chat_template_kwargs": {}, "bad_words": [],
        })),
        parsed(json!({}))
    );
}

#[test]
fn an_unknown_field_is_refused_with_the_nearest_known_one() {
    assert_eq!(
        refused(json!({"frobnicate": 1})),
        ("unknown_parameter", "frobnicate".to_owned())
    );
    let error = ChatRequest::parse(&body(json!({"temprature": 1})), &card()).unwrap_err();
    assert!(
        error.message().ends_with("Did you mean 'temperature'?"),
        "{}",
        error.message()
    );
    let message = json!({"messages": [{"role": "user", "content": "hi", "contents": 1}]});
    assert_eq!(
        refused(message),
        ("unknown_parameter", "messages[0].contents".to_owned())
    );
}

#[test]
fn missing_fields_are_named() {
    for (body, path) in [
        (json!({}), "model"),
        (json!({"model": "m"}), "messages"),
        (json!({"model": "m", "messages": null}), "messages"),
        (
            json!({"model": "m", "messages": [{"content": "x"}]}),
            "messages[0].role",
        ),
        (
            json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "messages[0].content[0].text",
        ),
    ] {
        let error = ChatRequest::parse(&body, &card()).unwrap_err();
        assert_eq!(
            (error.code(), error.param()),
            ("missing_required_parameter", Some(path)),
            "{body}"
        );
    }
    let error = ChatRequest::parse(&json!([1]), &card()).unwrap_err();
    assert_eq!(
        error.message(),
        "The request body must be a JSON object, not an array."
    );
}

#[test]
fn another_model_is_404_in_openais_words() {
    let error = ChatRequest::parse(&body(json!({"model": "gpt-4"})), &card()).unwrap_err();
    assert_eq!(
        (error.status().as_u16(), error.code()),
        (404, "model_not_found")
    );
    assert_eq!(
        error.message(),
        "The model `gpt-4` does not exist or you do not have access to it."
    );
}

#[test]
fn content_may_be_text_parts_and_images_are_refused_by_index() {
    let parts = |parts: Value| json!({"messages": [{"role": "user", "content": parts}]});
    let chat = parsed(parts(
        json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
    ));
    assert_eq!(chat.messages[0].content.as_deref(), Some("a\nb"));
    let image =
        json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]);
    assert_eq!(
        refused(parts(image)),
        (
            "unsupported_parameter",
            "messages[0].content[1].type".to_owned()
        )
    );
}

#[test]
fn an_answer_echoed_back_with_every_key_of_the_sdk_passes() {
    let echoed = json!({"messages": [
        {"role": "user", "content": "a", "name": "ann"},
        {"role": "assistant", "content": null, "refusal": null, "annotations": [], "audio": null, "function_call": null,
         "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "7"},
        {"role": "assistant", "content": "b", "tool_calls": []},
    ]});
    let messages = parsed(echoed).messages;
    assert_eq!(messages[1].content, None);
    assert_eq!(messages[1].tool_calls.as_ref().unwrap()[0]["id"], "c1");
    assert_eq!(messages[2].tool_call_id.as_deref(), Some("c1"));
    assert_eq!(messages[3].tool_calls, None);
}
