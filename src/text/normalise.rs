//! Makes the messages that real clients send fit one optional system turn and then strictly alternating roles.
//!
//! Pure: no tokenizer, no template. Nothing a client wrote is lost; a text may move (a late system message) or gain
//! a line that says what it is (a tool's answer).

use serde_json::{Value, json};

use super::{PromptError, RawMessage, Role, Turn};

/// Makes `messages` fit a template that wants one optional system turn and then strictly alternating roles.
///
/// - `developer` is `system`. The system messages before the talk become one turn.
/// - A later system message is put before the next user turn's text. If none follows, it closes the last user turn;
///   after an assistant's turn it becomes a user turn of its own, so that the model still has something to answer.
/// - `tool` becomes user text that names the call; an assistant's `tool_calls` become one line of JSON.
/// - Neighbours of the same role become one turn. Joined texts stand a blank line apart.
///
/// The last message must not be the assistant's: the templates close such a turn, so the model could not continue it.
///
/// # Errors
/// [`PromptError`] for an empty list, an unknown role, a talk that does not begin with the user or ends with the
/// assistant, an empty turn.
pub fn normalise(messages: &[RawMessage]) -> Result<Vec<Turn>, PromptError> {
    let Some(last) = messages.last() else {
        return Err(PromptError {
            message: "messages is empty; send at least one user message.".into(),
            param: "messages".into(),
        });
    };
    let mut talk = Talk::default();
    for (index, message) in messages.iter().enumerate() {
        talk.add(index, message)?;
    }
    if last.role == "assistant" {
        let index = messages.len() - 1;
        return Err(PromptError {
            message: format!(
                "messages[{index}] is the last one and comes from the assistant; end with a user or tool message."
            ),
            param: format!("messages[{index}].role"),
        });
    }
    talk.finish()
}

/// The turns so far.
#[derive(Default)]
struct Talk {
    /// System texts before the first turn.
    system: Vec<String>,
    turns: Vec<Turn>,
    /// System texts that came later and wait for a user turn.
    late: Vec<String>,
}

impl Talk {
    fn add(&mut self, index: usize, message: &RawMessage) -> Result<(), PromptError> {
        match message.role.as_str() {
            "system" | "developer" => {
                let text = said(index, message)?;
                if self.turns.is_empty() {
                    self.system.push(text);
                } else {
                    self.late.push(text);
                }
            }
            "user" => self.user(said(index, message)?),
            "tool" => self.user(tool_answer(message)),
            "assistant" => {
                if self.turns.is_empty() {
                    return Err(PromptError {
                        message: format!(
                            "messages[{index}] comes from the assistant before any user spoke; \
                             begin with a user message, after the system message if there is one."
                        ),
                        param: format!("messages[{index}].role"),
                    });
                }
                // Clients echo what we answered, and an answer may be empty: nothing was said.
                if let Some(text) = assistant(message) {
                    self.turn(Role::Assistant, text);
                }
            }
            unknown => {
                return Err(PromptError {
                    message: format!(
                        "messages[{index}].role is {}; send system, developer, user, assistant or tool.",
                        quoted(unknown)
                    ),
                    param: format!("messages[{index}].role"),
                });
            }
        }
        Ok(())
    }

    fn user(&mut self, text: String) {
        self.late.push(text);
        let text = std::mem::take(&mut self.late).join(SEPARATOR);
        self.turn(Role::User, text);
    }

    fn turn(&mut self, role: Role, text: String) {
        match self.turns.last_mut() {
            Some(last) if last.role == role => {
                last.text.push_str(SEPARATOR);
                last.text.push_str(&text);
            }
            _ => self.turns.push(Turn { role, text }),
        }
    }

    fn finish(mut self) -> Result<Vec<Turn>, PromptError> {
        if self.turns.is_empty() {
            return Err(PromptError {
                message: "messages has system messages only; add a user message to answer.".into(),
                param: "messages".into(),
            });
        }
        if !self.late.is_empty() {
            let text = std::mem::take(&mut self.late).join(SEPARATOR);
            self.turn(Role::User, text);
        }
        if !self.system.is_empty() {
            let text = self.system.join(SEPARATOR);
            self.turns.insert(
                0,
                Turn {
                    role: Role::System,
                    text,
                },
            );
        }
        Ok(self.turns)
    }
}

/// The message's text, which must not be empty. White space counts as text: some clients send `" "` on purpose.
fn said(index: usize, message: &RawMessage) -> Result<String, PromptError> {
    match message.content.as_deref() {
        None | Some("") => Err(PromptError {
            message: format!(
                "messages[{index}].content is empty; send text, or leave the message out."
            ),
            param: format!("messages[{index}].content"),
        }),
        Some(text) => Ok(text.to_owned()),
    }
}

/// An assistant's words, then its calls; either may be missing. `None` without both.
fn assistant(message: &RawMessage) -> Option<String> {
    let text = message.content.as_deref().filter(|text| !text.is_empty());
    let calls = match &message.tool_calls {
        None | Some(Value::Null) => None,
        Some(Value::Array(calls)) if calls.is_empty() => None,
        Some(calls) => Some(tool_calls(calls)),
    };
    match (text, calls) {
        (Some(text), Some(calls)) => Some(format!("{text}{SEPARATOR}{calls}")),
        (text, calls) => text.map(str::to_owned).or(calls),
    }
}

/// A tool's answer as user text. An empty answer is an answer: the line above it says so.
fn tool_answer(message: &RawMessage) -> String {
    let content = message.content.as_deref().unwrap_or_default();
    match message.tool_call_id.as_deref() {
        None | Some("") => format!("Result of a tool call:\n{content}"),
        Some(id) => format!("Result of tool call {id}:\n{content}"),
    }
}

/// One line of JSON: `[{"id":…,"name":…,"arguments":…}]`, the same for the same calls whatever the order of their
/// fields. Arguments are written as JSON if the string that carries them is JSON. What has another shape is kept whole.
fn tool_calls(calls: &Value) -> String {
    let mut calls = calls.clone();
    calls.sort_all_objects();
    if let Value::Array(calls) = &mut calls {
        for call in calls {
            if let Some(plain) = function_call(call) {
                *call = plain;
            }
        }
    }
    calls.to_string()
}

/// `{"id","type","function":{"name","arguments"}}` without the wrapping.
fn function_call(call: &Value) -> Option<Value> {
    let function = call.get("function")?;
    let name = function.get("name")?.as_str()?;
    let arguments = match function.get("arguments") {
        Some(Value::String(text)) => {
            let mut parsed =
                serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
            parsed.sort_all_objects();
            parsed
        }
        Some(other) => other.clone(),
        None => json!({}),
    };
    Some(match call.get("id") {
        Some(Value::String(id)) => json!({ "id": id, "name": name, "arguments": arguments }),
        _ => json!({ "name": name, "arguments": arguments }),
    })
}

/// A caller's word in an error: escaped, and no longer than a line.
fn quoted(word: &str) -> String {
    if word.chars().count() <= MAX_QUOTED {
        return format!("{word:?}");
    }
    let head: String = word.chars().take(MAX_QUOTED).collect();
    format!("{head:?}… ({} bytes)", word.len())
}

const SEPARATOR: &str = "\n\n";

/// Characters of a caller's word that an error repeats.
const MAX_QUOTED: usize = 32;

#[cfg(test)]
mod tests;
