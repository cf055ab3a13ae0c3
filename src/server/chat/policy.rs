//! What the policy has to say about the words and numbers of a chat request.

use serde_json::Value;

use super::fields::{Handling, REQUEST_FIELDS, WireField};
use super::wire::ChatRequest;
use crate::auth::{Denied, Rights};
use crate::server::ModelCard;

/// Refuses a model that the caller may not name, whether or not it exists, and then fields that it may not use. `body`
/// may still be anything; what is wrong with its form is for others to say.
///
/// # Errors
/// 403 `model_not_allowed`, 400 `parameter_not_allowed`.
pub(super) fn check_names(body: &Value, served: &str, rights: &Rights) -> Result<(), Denied> {
    let Some(model) = body["model"].as_str() else {
        return Ok(());
    };
    rights.check_model(model)?;
    // Of a model that does not exist, that is the thing to say.
    if model != served {
        return Ok(());
    }
    let asked = REQUEST_FIELDS
        .iter()
        .filter(|row| body.get(row.name).is_some_and(|value| asks(row, value)));
    for row in asked {
        rights.check_field(row.name)?;
    }
    Ok(())
}

/// Refuses numbers above the caller's. `chat` was read from `body`.
///
/// # Errors
/// 400 `parameter_not_allowed`, naming the field and the most.
pub(super) fn check_numbers(
    body: &Value,
    chat: &ChatRequest,
    rights: &Rights,
) -> Result<(), Denied> {
    let max_tokens = match body.get("max_completion_tokens") {
        None | Some(Value::Null) => "max_tokens",
        Some(_) => "max_completion_tokens",
    };
    Rights::check_most(max_tokens, chat.max_tokens.unwrap_or(0), rights.max_tokens)?;
    Rights::check_most("min_tokens", chat.min_tokens, rights.max_tokens)?;
    Rights::check_most("n", chat.n as usize, rights.max_n)
}

/// Longest prompt and completion together, in tokens: the model's or the caller's, whichever is less.
pub(in crate::server) fn context(model: &ModelCard, rights: &Rights) -> usize {
    let most = rights.max_context.map_or(usize::MAX, |most| most as usize);
    model.max_model_len.min(most)
}

/// Whether a field asks for anything: clients send many with the value that asks for nothing.
fn asks(row: &WireField, value: &Value) -> bool {
    let is_neutral = match &row.handling {
        Handling::Only(_, neutral) => neutral(value),
        Handling::Read | Handling::Harmless(_) => false,
    };
    !is_neutral && !value.is_null() && value.as_array().is_none_or(|items| !items.is_empty())
}
