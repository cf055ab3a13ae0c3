//! The body of `POST /v1/chat/completions`, from JSON to a value that holds only what is meant and in range.
//!
//! | field | range |
//! |---|---|
//! | `temperature` | 0 to 2 |
//! | `top_p`, `min_p` | 0 to 1 |
//! | `top_k` | ≥ 1; 0 and −1 keep all, as in vLLM |
//! | `frequency_penalty`, `presence_penalty` | −2 to 2 |
//! | `repetition_penalty` | above 0 |
//! | `seed` | any 64-bit signed number |
//! | `n` | 1 to 16 |
//! | `max_tokens`, `max_completion_tokens` | ≥ 1, the same if both are given |
//! | `stop` | a string or up to 16; an empty one never matches |
//! | `logit_bias` | up to 1024 token ids → −100 to 100 |
//! | `cache_salt` | 1 to 256 bytes; cached prefixes are shared only under the same one |

use std::sync::Arc;

use serde_json::Value;

use super::fields::{self, MESSAGE_FIELDS, PART_FIELDS, REQUEST_FIELDS, STREAM_FIELDS};
use crate::engine::TokenId;
use crate::server::value::{Field, Object, kind_of};
use crate::server::{ApiError, ModelCard};
use crate::text::RawMessage;

/// A chat request whose every field is valid by itself.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ChatRequest {
    pub(super) messages: Vec<RawMessage>,
    pub(super) stream: bool,
    pub(super) stream_options: StreamOptions,
    pub(super) n: u32,
    /// Of `max_completion_tokens` or its older name.
    pub(super) max_tokens: Option<usize>,
    pub(super) min_tokens: usize,
    pub(super) ignore_eos: bool,
    pub(super) stop: Vec<String>,
    pub(super) stop_token_ids: Vec<TokenId>,
    pub(super) sampling: WireSampling,
    /// Narrows with whom cached prefixes are shared.
    pub(super) cache_salt: Option<Arc<str>>,
}

/// Sampling fields as sent; what is `None` was not.
#[derive(Debug, Default, PartialEq)]
pub(super) struct WireSampling {
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    /// `Some(None)`: the caller wants all tokens, whatever the model's default.
    pub(super) top_k: Option<Option<u32>>,
    pub(super) min_p: Option<f32>,
    pub(super) repetition_penalty: Option<f32>,
    pub(super) frequency_penalty: f32,
    pub(super) presence_penalty: f32,
    pub(super) logit_bias: Vec<(TokenId, f32)>,
    pub(super) seed: Option<u64>,
}

/// `stream_options`
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamOptions {
    /// One more chunk at the end, with `usage` and no choices; earlier chunks say `usage: null`.
    pub(crate) include_usage: bool,
    /// `usage` so far on every chunk.
    pub(crate) continuous_usage_stats: bool,
}

impl ChatRequest {
    /// Reads a body that is meant for `model`.
    pub(super) fn parse(body: &Value, model: &ModelCard) -> Result<Self, ApiError> {
        let Value::Object(body) = body else {
            return Err(ApiError::not_an_object(kind_of(body)));
        };
        let name = required(body, "", "model")?.text()?;
        if name != model.id {
            return Err(ApiError::model_not_found(name));
        }
        fields::check(body, REQUEST_FIELDS, "")?;
        let field = |name| Field::of(body, "", name);
        let stream = optional(field("stream"), Field::flag)?.unwrap_or(false);
        let max_tokens = max_tokens(body)?;
        let min_tokens =
            optional(field("min_tokens"), |field| field.count(0, u32::MAX))?.unwrap_or(0) as usize;
        if let Some(most) = max_tokens.filter(|most| min_tokens > *most) {
            return Err(ApiError::invalid_value(
                "min_tokens",
                format_args!("must be at most max_tokens ({most})"),
            ));
        }
        Ok(Self {
            messages: messages(&required(body, "", "messages")?)?,
            stream,
            stream_options: stream_options(field("stream_options"), stream)?,
            n: optional(field("n"), |field| field.count(1, MAX_N))?.unwrap_or(1),
            max_tokens,
            min_tokens,
            ignore_eos: optional(field("ignore_eos"), Field::flag)?.unwrap_or(false),
            stop: optional(field("stop"), stop)?.unwrap_or_default(),
            stop_token_ids: optional(field("stop_token_ids"), |field| {
                token_ids(field, model.vocab_size)
            })?
            .unwrap_or_default(),
            sampling: WireSampling::parse(body, model.vocab_size)?,
            cache_salt: optional(field("cache_salt"), cache_salt)?,
        })
    }
}

impl WireSampling {
    fn parse(body: &Object, vocab_size: usize) -> Result<Self, ApiError> {
        let number = |name: &str, least: f64, most: f64| {
            optional(Field::of(body, "", name), |field| {
                field.number(least..=most)
            })
            .map(|n| n.map(|n| n as f32))
        };
        Ok(Self {
            temperature: number("temperature", 0.0, 2.0)?,
            top_p: number("top_p", 0.0, 1.0)?,
            top_k: optional(Field::of(body, "", "top_k"), |field| {
                let k = field.whole(-1..=i64::from(u32::MAX))?;
                Ok((k > 0).then_some(k as u32))
            })?,
            min_p: number("min_p", 0.0, 1.0)?,
            repetition_penalty: optional(
                Field::of(body, "", "repetition_penalty"),
                repetition_penalty,
            )?,
            frequency_penalty: number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
            presence_penalty: number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
            logit_bias: optional(Field::of(body, "", "logit_bias"), |field| {
                logit_bias(field, vocab_size)
            })?
            .unwrap_or_default(),
            seed: optional(Field::of(body, "", "seed"), |field| {
                field.whole(i64::MIN..=i64::MAX)
            })?
            .map(i64::cast_unsigned),
        })
    }
}

fn required<'a>(object: &'a Object, parent: &str, name: &str) -> Result<Field<'a>, ApiError> {
    Field::of(object, parent, name)
        .ok_or_else(|| ApiError::missing(&crate::server::value::join(parent, name)))
}

fn optional<'a, T>(
    field: Option<Field<'a>>,
    read: impl FnOnce(&Field<'a>) -> Result<T, ApiError>,
) -> Result<Option<T>, ApiError> {
    field.as_ref().map(read).transpose()
}

fn messages(field: &Field<'_>) -> Result<Vec<RawMessage>, ApiError> {
    let list = field.list()?;
    if list.is_empty() {
        return Err(field.invalid("must hold at least one message"));
    }
    list.iter().map(message).collect()
}

fn message(field: &Field<'_>) -> Result<RawMessage, ApiError> {
    let (object, path) = (field.object()?, &*field.path);
    fields::check(object, MESSAGE_FIELDS, path)?;
    let tool_calls = optional(Field::of(object, path, "tool_calls"), Field::list)?;
    Ok(RawMessage {
        role: required(object, path, "role")?.text()?.to_owned(),
        content: optional(Field::of(object, path, "content"), content)?,
        // An empty list is what SDKs write for "none".
        tool_calls: tool_calls
            .filter(|calls| !calls.is_empty())
            .and_then(|_| object.get("tool_calls").cloned()),
        tool_call_id: optional(Field::of(object, path, "tool_call_id"), |id| {
            Ok(id.text()?.to_owned())
        })?,
    })
}

/// A string, or text parts, which are lines of one text.
fn content(field: &Field<'_>) -> Result<String, ApiError> {
    match field.value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(_) => {
            let parts = field.list()?;
            let texts: Result<Vec<&str>, ApiError> = parts.iter().map(part).collect();
            Ok(texts?.join("\n"))
        }
        _ => Err(field.wrong_type("a string or an array of text parts")),
    }
}

fn part<'a>(field: &Field<'a>) -> Result<&'a str, ApiError> {
    let object = field.object()?;
    let kind = required(object, &field.path, "type")?;
    if kind.text()? != "text" {
        return Err(ApiError::unsupported(
            &kind.path,
            "\"text\": this model reads no images, audio or files",
        ));
    }
    fields::check(object, PART_FIELDS, &field.path)?;
    required(object, &field.path, "text")?.text()
}

fn stream_options(field: Option<Field<'_>>, stream: bool) -> Result<StreamOptions, ApiError> {
    let Some(field) = field else {
        return Ok(StreamOptions::default());
    };
    if !stream {
        return Err(field.invalid("is only allowed together with 'stream': true"));
    }
    let (object, path) = (field.object()?, &*field.path);
    fields::check(object, STREAM_FIELDS, path)?;
    let flag = |name| {
        optional(Field::of(object, path, name), Field::flag).map(|flag| flag.unwrap_or(false))
    };
    Ok(StreamOptions {
        include_usage: flag("include_usage")?,
        continuous_usage_stats: flag("continuous_usage_stats")?,
    })
}

fn max_tokens(body: &Object) -> Result<Option<usize>, ApiError> {
    let read = |name| optional(Field::of(body, "", name), |field| field.count(1, u32::MAX));
    match (read("max_tokens")?, read("max_completion_tokens")?) {
        (Some(old), Some(new)) if old != new => Err(ApiError::invalid_value(
            "max_tokens",
            format_args!("must equal max_completion_tokens ({new}) if both are given"),
        )),
        (old, new) => Ok(new.or(old).map(|most| most as usize)),
    }
}

fn stop(field: &Field<'_>) -> Result<Vec<String>, ApiError> {
    let stops: Vec<&str> = match field.value {
        Value::String(stop) => vec![stop],
        Value::Array(_) => field
            .list()?
            .iter()
            .map(Field::text)
            .collect::<Result<_, _>>()?,
        _ => return Err(field.wrong_type("a string or an array of strings")),
    };
    if stops.len() > MAX_STOPS {
        return Err(field.invalid(format_args!(
            "holds {} strings, at most {MAX_STOPS} are watched for",
            stops.len()
        )));
    }
    if stops.iter().any(|stop| stop.len() > MAX_STOP_BYTES) {
        return Err(field.invalid(format_args!(
            "may hold strings of at most {MAX_STOP_BYTES} bytes"
        )));
    }
    Ok(stops
        .into_iter()
        .filter(|stop| !stop.is_empty())
        .map(str::to_owned)
        .collect())
}

fn token_ids(field: &Field<'_>, vocab_size: usize) -> Result<Vec<TokenId>, ApiError> {
    let list = field.list()?;
    if list.len() > MAX_IDS {
        return Err(field.invalid(format_args!(
            "holds {} token ids, at most {MAX_IDS} are taken",
            list.len()
        )));
    }
    list.iter()
        .map(|id| id.count(0, last_id(vocab_size)))
        .collect()
}

fn logit_bias(field: &Field<'_>, vocab_size: usize) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let object = field.object()?;
    if object.len() > MAX_IDS {
        return Err(field.invalid(format_args!(
            "holds {} entries, at most {MAX_IDS} are taken",
            object.len()
        )));
    }
    let mut biases = Vec::with_capacity(object.len());
    for (key, value) in object {
        // One spelling per id: "7" and "07" would otherwise be two biases for one token.
        let id = key
            .parse()
            .ok()
            .filter(|id: &TokenId| id.to_string() == *key && *id <= last_id(vocab_size));
        let Some(id) = id else {
            let last = last_id(vocab_size);
            return Err(field.invalid(format_args!(
                "must have token ids from 0 to {last} as its keys, not {}",
                shown(key)
            )));
        };
        let bias = Field {
            path: format!("{}.{key}", field.path),
            value,
        }
        .number(-100.0..=100.0)?;
        biases.push((id, bias as f32));
    }
    Ok(biases)
}

fn cache_salt(field: &Field<'_>) -> Result<Arc<str>, ApiError> {
    let salt = field.text()?;
    if (1..=MAX_SALT_BYTES).contains(&salt.len()) {
        Ok(salt.into())
    } else {
        Err(field.invalid(format_args!(
            "must have 1 to {MAX_SALT_BYTES} bytes, not {}",
            salt.len()
        )))
    }
}

fn repetition_penalty(field: &Field<'_>) -> Result<f32, ApiError> {
    let given = field.number(f64::MIN..=f64::MAX)?;
    // What is tiny or huge may become 0 or infinity in f32.
    let penalty = given as f32;
    if penalty.is_normal() && penalty > 0.0 {
        Ok(penalty)
    } else {
        Err(field.invalid(format_args!(
            "must be above 0 (1 does nothing), not {given}"
        )))
    }
}

fn last_id(vocab_size: usize) -> TokenId {
    TokenId::try_from(vocab_size.saturating_sub(1)).unwrap_or(TokenId::MAX)
}

/// A caller's word, short and in quotes.
fn shown(word: &str) -> String {
    format!("{:?}", word.chars().take(32).collect::<String>())
}

/// Each completion holds KV blocks of its own; 16 is more than any common client asks for.
const MAX_N: u32 = 16;
/// OpenAI takes 4; editors send more.
const MAX_STOPS: usize = 16;
/// Each piece of text is compared with every stop string.
const MAX_STOP_BYTES: usize = 1024;
/// As many as a name in a token.
const MAX_SALT_BYTES: usize = 256;
/// Bounds the work per sampled token.
const MAX_IDS: usize = 1024;

#[cfg(test)]
mod tests;
