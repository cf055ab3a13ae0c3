//! The bytes that each token id stands for, read off the decoder that a tokenizer file describes.
//!
//! A table made once instead of the tokenizer's own decoder, because that one needs all ids to decode any of them.

use std::collections::HashMap;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::TextError;
use crate::engine::TokenId;

/// The bytes of every token, end to end.
#[derive(Debug)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Token `id` owns `bytes[ends[id - 1]..ends[id]]`.
    ends: Vec<usize>,
    lead: Lead,
    broken: Broken,
}

impl Pieces {
    /// Reads `decoder`, that part of a parsed `tokenizer.json`, for ids below `vocab_size`. The ids that `is_silent`
    /// names (end of text and the like) get no bytes.
    pub(super) fn new(
        decoder: &Value,
        tokenizer: &Tokenizer,
        vocab_size: usize,
        is_silent: impl Fn(TokenId) -> bool,
    ) -> Result<Self, TextError> {
        let decoder = Decoder::new(decoder)?;
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(vocab_size);
        for id in 0..TokenId::try_from(vocab_size).unwrap_or(TokenId::MAX) {
            if !is_silent(id)
                && let Some(token) = tokenizer.id_to_token(id)
            {
                decoder.append(token, &mut bytes);
            }
            ends.push(bytes.len());
        }
        Ok(Self {
            bytes,
            ends,
            lead: decoder.lead,
            broken: decoder.broken,
        })
    }

    /// Bytes of the longest token.
    pub(super) fn longest(&self) -> usize {
        let starts = std::iter::once(&0).chain(&self.ends);
        let lengths = starts.zip(&self.ends).map(|(start, end)| end - start);
        lengths.max().unwrap_or(0)
    }

    /// The bytes that `id` adds to a text; none for a special or unknown token.
    pub(super) fn bytes(&self, id: TokenId) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else {
            return &[];
        };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..end]
    }

    /// What happens to the spaces at the beginning of a text.
    pub(super) fn lead(&self) -> Lead {
        self.lead
    }

    /// What becomes of bytes that are no character.
    pub(super) fn broken(&self) -> Broken {
        self.broken
    }
}

/// What happens to the spaces at the beginning of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    /// They stay.
    Keep,
    /// At most this many go.
    Strip(usize),
    /// All spaces of the first token go.
    FirstToken,
}

impl Lead {
    /// Appends the next token's bytes to `out`, without the spaces that go. `bytes` is not empty.
    pub(super) fn append(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match *self {
            Self::Keep => out.extend_from_slice(bytes),
            Self::Strip(most) => {
                let spaces = bytes
                    .iter()
                    .take(most)
                    .take_while(|byte| **byte == b' ')
                    .count();
                out.extend_from_slice(&bytes[spaces..]);
                // Only a token of nothing but spaces leaves the next one at the beginning.
                *self = if spaces == bytes.len() && spaces < most {
                    Self::Strip(most - spaces)
                } else {
                    Self::Keep
                };
            }
            Self::FirstToken => {
                out.extend(bytes.iter().filter(|byte| **byte != b' '));
                *self = Self::Keep;
            }
        }
    }
}

/// What becomes of bytes that are no character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// One replacement character per byte, as byte-fallback decoders do.
    PerByte,
    /// One replacement character per beginning of a character, as [`String::from_utf8_lossy`] and byte-level
    /// decoders do.
    PerSequence,
}

impl Broken {
    /// Appends the replacement for `length` bytes that together could have begun one character.
    pub(super) fn replace(self, length: usize, text: &mut String) {
        let count = match self {
            Self::PerByte => length,
            Self::PerSequence => 1,
        };
        text.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, count));
    }
}

/// The decoder of a tokenizer file, as steps that look at one token each.
struct Decoder {
    steps: Vec<Step>,
    lead: Lead,
    broken: Broken,
}

enum Step {
    Replace { pattern: String, content: String },
    ByteFallback,
    ByteLevel(HashMap<char, u8>),
}

impl Decoder {
    fn new(json: &Value) -> Result<Self, TextError> {
        let mut decoder = Self {
            steps: Vec::new(),
            lead: Lead::Keep,
            broken: Broken::PerByte,
        };
        let mut fused = false;
        decoder.read(json, &mut fused)?;
        Ok(decoder)
    }

    fn read(&mut self, json: &Value, fused: &mut bool) -> Result<(), TextError> {
        let kind = json["type"].as_str().unwrap_or("none");
        match kind {
            "Sequence" => {
                for step in json["decoders"].as_array().into_iter().flatten() {
                    self.read(step, fused)?;
                }
            }
            "Fuse" => *fused = true,
            "Replace" if !*fused && json["pattern"]["String"].is_string() => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                self.steps.push(Step::Replace {
                    pattern: text(&json["pattern"]["String"]),
                    content: text(&json["content"]),
                });
            }
            "ByteFallback" if !*fused => self.steps.push(Step::ByteFallback),
            "Strip"
                if *fused
                    && json["content"] == " "
                    && json["stop"] == 0
                    && self.lead == Lead::Keep =>
            {
                self.lead = Lead::Strip(json["start"].as_u64().unwrap_or(0) as usize);
            }
            "Metaspace" if !*fused && self.lead == Lead::Keep => {
                self.steps.push(Step::Replace {
                    pattern: json["replacement"].as_str().unwrap_or("▁").to_owned(),
                    content: " ".to_owned(),
                });
                let scheme = json["prepend_scheme"].as_str();
                let never = scheme == Some("never")
                    || (scheme.is_none() && json["add_prefix_space"] == false);
                if !never {
                    self.lead = Lead::FirstToken;
                }
            }
            "ByteLevel" if !*fused => {
                self.steps.push(Step::ByteLevel(byte_level_alphabet()));
                self.broken = Broken::PerSequence;
            }
            _ => {
                return Err(TextError(format!(
                    "tokenizer.json: the decoder step {kind:?} is not supported here; \
                     supported are Replace, ByteFallback, Fuse, Strip and Metaspace as Mixtral has them, and ByteLevel"
                )));
            }
        }
        Ok(())
    }

    fn append(&self, mut token: String, bytes: &mut Vec<u8>) {
        for step in &self.steps {
            match step {
                Step::Replace { pattern, content } => {
                    token = token.replace(pattern.as_str(), content)
                }
                Step::ByteFallback => {
                    if let Some(byte) = fallback_byte(&token) {
                        bytes.push(byte);
                        return;
                    }
                }
                Step::ByteLevel(alphabet) => {
                    let mapped: Option<Vec<u8>> =
                        token.chars().map(|c| alphabet.get(&c).copied()).collect();
                    bytes.extend(mapped.unwrap_or_else(|| token.into_bytes()));
                    return;
                }
            }
        }
        bytes.extend_from_slice(token.as_bytes());
    }
}

/// The byte of a token like `<0xF0>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The letters that byte-level tokenizers write bytes with: printable Latin-1 as itself, the other 68 bytes, in
/// order, as U+0100 and on (the table of GPT-2).
fn byte_level_alphabet() -> HashMap<char, u8> {
    let mut next = 0x100;
    (0..=u8::MAX)
        .map(|byte| {
            if matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) {
                return (char::from(byte), byte);
            }
            next += 1;
            (char::from_u32(next - 1).unwrap_or_default(), byte)
        })
        .collect()
}
