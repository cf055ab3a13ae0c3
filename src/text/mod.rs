//! Text ↔ token ids. Knows no HTTP and no engine: pure functions over one tokenizer.
//!
//! On the way in: [`normalise()`] makes any client's messages one well-formed talk, and [`TextModel::chat_prompt`] lays
//! it out (`template`: by hand for `[INST]` models, `jinja` for others) over a `vocabulary` that never mistakes text
//! for a control token. On the way out: [`Detokenizer`] (over `pieces`) gives whole characters, [`StopStrings`] ends
//! them.

mod detokenizer;
mod jinja;
mod normalise;
mod pieces;
mod stop;
mod template;
mod vocabulary;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::engine::TokenId;
use detokenizer::Utf8Stream;
use pieces::{Lead, Pieces};
use template::{ChatTemplate, Specials};
use vocabulary::Vocabulary;

pub use detokenizer::Detokenizer;
pub use normalise::normalise;
pub use stop::{Released, StopStrings};

/// Who speaks, after normalisation. `developer` has become `System`, `tool` has become `User`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The operator or the application: at most one turn, the first.
    System,
    /// The caller, or a tool that answers a call.
    User,
    /// The model.
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
    pub tool_calls: Option<Value>,
    /// The call that a `tool` message answers.
    pub tool_call_id: Option<String>,
}

/// One turn of a normalised talk. Roles alternate: an optional `System` first, then `User`, `Assistant`, `User` …
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said; not empty.
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

/// A model's tokenizer, its special ids and its way of laying out a chat.
///
/// Never changes once read: share it in an [`Arc`].
pub struct TextModel {
    vocabulary: Vocabulary,
    pieces: Pieces,
    template: ChatTemplate,
    bos: TokenId,
    eos: TokenId,
    /// Bytes of the longest token, at least 1.
    longest_token: usize,
}

impl TextModel {
    /// Reads the files of a Hugging Face checkpoint folder, as bytes.
    ///
    /// # Errors
    /// A sentence naming the file and what is wrong with it.
    pub fn new(files: &TextFiles<'_>) -> Result<Self, TextError> {
        let file: Value = serde_json::from_slice(files.tokenizer)
            .map_err(|error| TextError(format!("tokenizer.json is not JSON: {error}")))?;
        let config = match files.tokenizer_config {
            None => Value::Null,
            Some(bytes) => serde_json::from_slice(bytes).map_err(|error| {
                TextError(format!("tokenizer_config.json is not JSON: {error}"))
            })?,
        };
        if !file.is_object() {
            return Err(TextError("tokenizer.json is not an object".into()));
        }
        let source = match files.chat_template {
            Some(source) => Some(source),
            None => configured_template(&config)?,
        };
        let specials = Specials {
            bos: configured_token(&config, "bos_token")
                .unwrap_or("<s>")
                .to_owned(),
            eos: configured_token(&config, "eos_token")
                .unwrap_or("</s>")
                .to_owned(),
            unknown: configured_token(&config, "unk_token").map(str::to_owned),
            padding: configured_token(&config, "pad_token").map(str::to_owned),
        };

        let is_named = |content: &str| {
            [&specials.bos, &specials.eos]
                .into_iter()
                .any(|name| name == content)
        };
        let is_silent = silent_tokens(&file, is_named);
        let decoder = file["decoder"].clone();
        let vocabulary = Vocabulary::new(file, |content| {
            is_named(content)
                || source
                    .is_some_and(|source| !content.trim().is_empty() && source.contains(content))
        })?;
        let id = |field: &str, token: &str| {
            vocabulary.id(token).ok_or_else(|| {
                TextError(format!(
                    "tokenizer.json has no token {token:?}; name the right one as {field} in tokenizer_config.json"
                ))
            })
        };
        let (bos, eos) = (
            id("bos_token", &specials.bos)?,
            id("eos_token", &specials.eos)?,
        );
        let pieces = Pieces::new(&decoder, vocabulary.tokenizer(), vocabulary.size(), |id| {
            id == bos
                || id == eos
                || vocabulary
                    .token(id)
                    .is_some_and(|token| is_silent.contains(&token))
        })?;
        let template = ChatTemplate::new(source, &vocabulary, specials)?;
        Ok(Self {
            longest_token: pieces.longest().max(1),
            vocabulary,
            pieces,
            template,
            bos,
            eos,
        })
    }

    /// Lays out a talk as token ids, ready for the model to answer: exactly one BOS, first.
    /// Text of a message never becomes a special token.
    ///
    /// # Errors
    /// [`PromptError`] if the template refuses the talk, or `turns` are not as [`normalise()`] makes them.
    pub fn chat_prompt(&self, turns: &[Turn]) -> Result<Vec<TokenId>, PromptError> {
        self.template
            .prompt(turns, &self.vocabulary, self.bos, self.eos)
    }

    /// Token ids of plain text, without BOS; special tokens in `text` are ordinary text.
    pub fn encode(&self, text: &str) -> Vec<TokenId> {
        self.vocabulary.encode(text)
    }

    /// A lower bound of how many tokens `bytes` bytes of text become, found without looking at them.
    ///
    /// It lets a server refuse a text of megabytes before it spends seconds and hundreds of megabytes on tokenising it.
    pub fn least_tokens(&self, bytes: usize) -> usize {
        if self.vocabulary.keeps_every_byte() {
            bytes / (self.longest_token * MOST_SHRINKING)
        } else {
            0
        }
    }

    /// Text of token ids, special tokens left out: what a [`TextModel::detokenizer`] gives for them.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        let mut stream = Utf8Stream::new(self.pieces.lead(), self.pieces.broken());
        let mut text: String = ids
            .iter()
            .map(|id| stream.push(self.pieces.bytes(*id)))
            .collect();
        text.push_str(&stream.finish());
        text
    }

    /// One more than the largest id the tokenizer knows.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.size()
    }

    /// The token that begins every prompt.
    pub fn bos(&self) -> TokenId {
        self.bos
    }

    /// The token with which the model ends its answer. A checkpoint's `generation_config.json` may name more.
    pub fn eos(&self) -> TokenId {
        self.eos
    }

    /// The bytes that `id` adds to a text, its leading space included; none for a special or unknown token. They may
    /// be a part of a character.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        self.pieces.bytes(id)
    }

    /// `id` by itself, for people: its text with the leading space, or the name of a special token such as `</s>`.
    /// `None` for an id without a token.
    pub fn token_text(&self, id: TokenId) -> Option<String> {
        match self.pieces.bytes(id) {
            [] => self.vocabulary.token(id),
            bytes => Some(String::from_utf8_lossy(bytes).into_owned()),
        }
    }

    /// A detokenizer for the answer to a [`TextModel::chat_prompt`]: like [`TextModel::decode`], it drops the space
    /// that SentencePiece tokenizers put before a text.
    pub fn detokenizer(self: &Arc<Self>) -> Detokenizer {
        Detokenizer::new(self.clone(), self.pieces.lead())
    }

    /// A detokenizer for text that goes on where a plain prompt stopped: a space at its beginning is a space.
    pub fn continuing_detokenizer(self: &Arc<Self>) -> Detokenizer {
        Detokenizer::new(self.clone(), Lead::Keep)
    }
}

impl fmt::Debug for TextModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextModel")
            .field("vocab_size", &self.vocab_size())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

/// The files a [`TextModel`] is made of.
#[derive(Debug, Clone, Copy)]
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

/// A token of `tokenizer_config.json`: a string, or an object with its `content`.
fn configured_token<'a>(config: &'a Value, field: &str) -> Option<&'a str> {
    let token = &config[field];
    token.as_str().or_else(|| token["content"].as_str())
}

/// The template of `tokenizer_config.json`: a string, or the one named `default` of several.
fn configured_template(config: &Value) -> Result<Option<&str>, TextError> {
    match &config["chat_template"] {
        Value::Null => Ok(None),
        Value::String(source) => Ok(Some(source)),
        several => several
            .as_array()
            .into_iter()
            .flatten()
            .find(|template| template["name"] == "default")
            .and_then(|template| template["template"].as_str())
            .map(Some)
            .ok_or_else(|| {
                TextError("tokenizer_config.json: chat_template names no default template".into())
            }),
    }
}

/// Contents of the added tokens that have no text. The file's own word counts here: a token that only the template
/// makes a control token (`<tool_call>`) is still text when the model writes it.
fn silent_tokens(
    file: &Value,
    is_named: impl Fn(&str) -> bool,
) -> std::collections::HashSet<String> {
    file["added_tokens"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|token| Some((token["content"].as_str()?, token["special"] == true)))
        .filter(|(content, special)| *special || is_named(content))
        .map(|(content, _)| content.to_owned())
        .collect()
}

/// A normaliser that composes characters (NFC, NFKC) shortens a text to this fraction at the most.
const MOST_SHRINKING: usize = 4;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod seedling_tests;
#[cfg(test)]
mod tests;
