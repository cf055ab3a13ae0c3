//! The fields of a chat request: which are read, which change nothing, which are refused.
//!
//! No field is silently ignored: one that would change the result but cannot is a 400 that names it, and so is one
//! that nobody knows. Every field that common clients send has its row.

use serde_json::{Map, Value};

use crate::server::ApiError;
use crate::server::value::join;

/// A field and what is done with it. `null` is always the same as leaving it out.
pub struct WireField {
    /// Its name on the wire.
    pub name: &'static str,
    /// What is done with it.
    pub handling: Handling,
}

/// What is done with a field.
pub enum Handling {
    /// It has its effect.
    Read,
    /// Any value is accepted, because none could change the result here; why not.
    Harmless(&'static str),
    /// Only a value that asks for nothing is accepted; which, in words.
    Only(&'static str, fn(&Value) -> bool),
}

/// Refuses what `table` does not let through. `parent` is the path of `object`.
pub(super) fn check(
    object: &Map<String, Value>,
    table: &[WireField],
    parent: &str,
) -> Result<(), ApiError> {
    for (name, value) in object {
        let Some(row) = table.iter().find(|row| row.name == name) else {
            let shown: String = name.chars().take(64).collect();
            return Err(ApiError::unknown_field(
                &join(parent, &shown),
                nearest(name, table),
            ));
        };
        match &row.handling {
            _ if value.is_null() => {}
            Handling::Read | Handling::Harmless(_) => {}
            Handling::Only(_, neutral) if neutral(value) => {}
            Handling::Only(accepted, _) => {
                return Err(ApiError::unsupported(&join(parent, name), accepted));
            }
        }
    }
    Ok(())
}

fn nearest(name: &str, table: &[WireField]) -> Option<&'static str> {
    if name.len() > 64 {
        return None;
    }
    let near = table
        .iter()
        .map(|row| (strsim::damerau_levenshtein(name, row.name), row.name))
        .min()?;
    (near.0 <= 2).then_some(near.1)
}

const fn read(name: &'static str) -> WireField {
    WireField {
        name,
        handling: Handling::Read,
    }
}

const fn harmless(name: &'static str, why: &'static str) -> WireField {
    WireField {
        name,
        handling: Handling::Harmless(why),
    }
}

const fn only(
    name: &'static str,
    accepted: &'static str,
    neutral: fn(&Value) -> bool,
) -> WireField {
    WireField {
        name,
        handling: Handling::Only(accepted, neutral),
    }
}

const fn null(name: &'static str) -> WireField {
    only(name, "null", |_| false)
}

const fn no(name: &'static str) -> WireField {
    only(name, "false", |value| *value == false)
}

const fn yes(name: &'static str) -> WireField {
    only(name, "true", |value| *value == true)
}

const fn empty_list(name: &'static str) -> WireField {
    only(name, "empty", |value| {
        value.as_array().is_some_and(Vec::is_empty)
    })
}

fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

fn is_zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

fn no_choice(value: &Value) -> bool {
    *value == "none" || *value == "auto"
}

/// The body of `POST /v1/chat/completions`.
pub static REQUEST_FIELDS: &[WireField] = &[
    read("model"),
    read("messages"),
    read("stream"),
    read("stream_options"),
    read("n"),
    read("max_tokens"),
    read("max_completion_tokens"),
    read("min_tokens"),
    read("ignore_eos"),
    read("stop"),
    read("stop_token_ids"),
    read("temperature"),
    read("top_p"),
    read("top_k"),
    read("min_p"),
    read("seed"),
    read("frequency_penalty"),
    read("presence_penalty"),
    read("repetition_penalty"),
    read("logit_bias"),
    read("cache_salt"),
    // Bookkeeping of the caller's.
    harmless("user", "who asks is what the token says"),
    harmless("safety_identifier", "who asks is what the token says"),
    harmless("metadata", "nothing is stored that it could label"),
    harmless("store", "nothing is stored either way"),
    harmless("request_id", "requests are named by x-request-id"),
    harmless("session_id", "there are no sessions"),
    harmless(
        "prompt_cache_key",
        "a hint where to look for cached prefixes; the answer is the same",
    ),
    harmless(
        "prompt_cache_retention",
        "a hint how long to cache; the answer is the same",
    ),
    harmless(
        "prompt_cache_options",
        "a hint how to cache; the answer is the same",
    ),
    harmless(
        "reasoning_effort",
        "a hint to models that reason before they answer; this family does not",
    ),
    harmless("include_reasoning", "there is no reasoning to include"),
    harmless("separate_reasoning", "there is no reasoning to separate"),
    harmless(
        "verbosity",
        "a hint to models trained to follow it; this family is not",
    ),
    harmless(
        "parallel_tool_calls",
        "without tools there is no call to make in parallel",
    ),
    harmless(
        "spaces_between_special_tokens",
        "special tokens are not shown",
    ),
    only("service_tier", "\"auto\" or \"default\"", |value| {
        *value == "auto" || *value == "default"
    }),
    only("priority", "0", is_zero),
    // What other APIs or engines do and this one does not.
    no("logprobs"),
    only("top_logprobs", "0", is_zero),
    null("prompt_logprobs"),
    empty_list("tools"),
    only(
        "tool_choice",
        "\"none\", or \"auto\" without tools",
        no_choice,
    ),
    empty_list("functions"),
    only(
        "function_call",
        "\"none\", or \"auto\" without functions",
        no_choice,
    ),
    only("response_format", "{\"type\": \"text\"}", |value| {
        value["type"] == "text"
    }),
    only("modalities", "[\"text\"]", |value| {
        value
            .as_array()
            .is_some_and(|list| list.iter().all(|m| *m == "text"))
    }),
    null("audio"),
    null("prediction"),
    null("web_search_options"),
    null("moderation"),
    only("best_of", "1", is_one),
    no("echo"),
    null("suffix"),
    no("use_beam_search"),
    only("length_penalty", "1", is_one),
    only("typical_p", "1", is_one),
    null("guided_json"),
    null("guided_regex"),
    null("guided_choice"),
    null("guided_grammar"),
    null("structured_outputs"),
    null("regex"),
    null("grammar"),
    null("json_schema"),
    null("allowed_token_ids"),
    empty_list("bad_words"),
    null("logits_processors"),
    null("truncate_prompt_tokens"),
    null("documents"),
    null("chat_template"),
    only("chat_template_kwargs", "{}", |value| {
        value.as_object().is_some_and(Map::is_empty)
    }),
    yes("add_generation_prompt"),
    no("continue_final_message"),
    no("add_special_tokens"),
    yes("skip_special_tokens"),
    no("include_stop_str_in_output"),
    no("return_token_ids"),
    no("return_tokens_as_token_ids"),
    no("return_prompt_text"),
    null("kv_transfer_params"),
    null("vllm_xargs"),
    null("thinking_token_budget"),
    null("repetition_detection"),
];

/// One of `messages`. Clients echo our own answers back, with every key of the SDK's type.
pub static MESSAGE_FIELDS: &[WireField] = &[
    read("role"),
    read("content"),
    read("tool_calls"),
    read("tool_call_id"),
    harmless("name", "the chat template has no place for names"),
    harmless(
        "cache_control",
        "a hint what to cache; the answer is the same",
    ),
    null("refusal"),
    null("audio"),
    null("function_call"),
    empty_list("annotations"),
    only("reasoning", "empty", |value| *value == ""),
    only("reasoning_content", "empty", |value| *value == ""),
    no("prefix"),
];

/// One text part of a message's content.
pub(super) static PART_FIELDS: &[WireField] = &[
    read("type"),
    read("text"),
    harmless(
        "cache_control",
        "a hint what to cache; the answer is the same",
    ),
];

/// `stream_options`
pub(super) static STREAM_FIELDS: &[WireField] = &[
    read("include_usage"),
    read("continuous_usage_stats"),
    harmless(
        "include_obfuscation",
        "padding that hides the lengths of chunks; the answer is the same",
    ),
];
