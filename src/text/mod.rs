//! Text ↔ token ids. Knows no HTTP and no engine: pure functions over one tokenizer.

use std::sync::Arc;

use crate::engine::TokenId;

/// Who speaks, after normalisation. `developer` has become `System`, `tool` has become `User`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
}

/// One message as a client sent it, parsed but not yet normalised.
#[derive(Debug, Clone, PartialEq)]
pub struct RawMessage {
    /// `system`, `developer`, `user`, `assistant` or `tool`, as sent.
    pub role: String,
    /// Text of the message: a string, the joined text parts, or nothing (`null` or absent).
    pub content: Option<String>,
    /// Assistant tool calls as the JSON that was sent; `null` if none.
    pub tool_calls: Option<serde_json::Value>,
    /// The call that a `tool` message answers.
    pub tool_call_id: Option<String>,
}

/// One turn of a normalised talk. Roles alternate: an optional `System` first, then `User`, `Assistant`, `User` …
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub role: Role,
    pub text: String,
}

/// Why messages cannot become a prompt. Each is the caller's mistake: a 400 whose `param` is [`PromptError::param`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PromptError {
    /// One sentence: what is wrong and what to send instead.
    pub message: String,
    /// Path of the field, such as `messages[2].role`.
    pub param: String,
}

/// Makes `messages` fit a template that wants one optional system turn and then strictly alternating roles.
///
/// # Errors
/// [`PromptError`] for an empty list, an unknown role, a talk that does not begin with the user, an empty turn.
pub fn normalise(messages: &[RawMessage]) -> Result<Vec<Turn>, PromptError> {
    let _ = messages;
    todo!()
}

/// A model's tokenizer, its special ids and its way of laying out a chat.
pub struct TextModel {}

impl TextModel {
    /// Reads the files of a Hugging Face checkpoint folder, as bytes.
    ///
    /// # Errors
    /// A sentence naming the file and what is wrong with it.
    pub fn new(files: &TextFiles<'_>) -> Result<Self, TextError> {
        let _ = files;
        todo!()
    }

    /// Lays out a talk as token ids, ready for the model to answer: exactly one BOS, first.
    /// Text of a message never becomes a special token.
    ///
    /// # Errors
    /// [`PromptError`] if the template refuses the talk.
    pub fn chat_prompt(&self, turns: &[Turn]) -> Result<Vec<TokenId>, PromptError> {
        let _ = turns;
        todo!()
    }

    /// Token ids of plain text, without BOS; special tokens in `text` are ordinary text.
    pub fn encode(&self, text: &str) -> Vec<TokenId> {
        let _ = text;
        todo!()
    }

    /// Text of token ids, special tokens left out.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        let _ = ids;
        todo!()
    }

    /// One more than the largest id the tokenizer knows.
    pub fn vocab_size(&self) -> usize {
        todo!()
    }

    /// A detokenizer for one completion that continues a prompt.
    pub fn detokenizer(self: &Arc<Self>) -> Detokenizer {
        todo!()
    }
}

/// The files a [`TextModel`] is made of.
pub struct TextFiles<'a> {
    /// `tokenizer.json`
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`, if the folder has one: special tokens, `chat_template`.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `chat_template.jinja`, if the folder has one or the operator named another; wins over the config's.
    pub chat_template: Option<&'a str>,
}

/// Why a tokenizer or template could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TextError(pub String);

/// Turns a completion's token ids into text, piece by piece; never emits part of a UTF-8 character.
pub struct Detokenizer {}

impl Detokenizer {
    /// Adds one token; returns the text that has become certain, maybe empty.
    pub fn push(&mut self, id: TokenId) -> String {
        let _ = id;
        todo!()
    }

    /// The rest, with the replacement character for bytes that never became a character.
    pub fn finish(self) -> String {
        todo!()
    }
}

/// Finds stop strings in streamed text and holds back what could still become one.
pub struct StopStrings {}

impl StopStrings {
    /// Watches for any of `stops`; empty strings are ignored.
    pub fn new(stops: Vec<String>) -> Self {
        let _ = stops;
        todo!()
    }

    /// Adds text; returns what may be shown and whether a stop string was found (then nothing after it is shown).
    pub fn push(&mut self, text: &str) -> Released {
        let _ = text;
        todo!()
    }

    /// What was held back, once no more text comes.
    pub fn finish(self) -> String {
        todo!()
    }
}

/// Text that may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    pub text: String,
    pub stopped: bool,
}
