//! Turns a completion's token ids into text, piece by piece.

use std::sync::Arc;

use super::TextModel;
use super::pieces::{Broken, Lead};
use crate::engine::TokenId;

/// Turns a completion's token ids into text, piece by piece; never emits part of a UTF-8 character.
///
/// All pushes and [`Detokenizer::finish`] together give what [`TextModel::decode`] gives for all ids at once. Each
/// push costs as much as its own token: nothing before it is decoded again.
///
/// A byte becomes the replacement character only once nothing can complete it. This is stricter than the reference
/// tokenizer, which also discards whole characters that stand in the same run of byte tokens as a broken one: here
/// they are already on the caller's screen.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    model: Arc<TextModel>,
    bytes: Utf8Stream,
}

impl Detokenizer {
    pub(super) fn new(model: Arc<TextModel>, lead: Lead) -> Self {
        let bytes = Utf8Stream::new(lead, model.pieces.broken());
        Self { model, bytes }
    }

    /// Adds one token; returns the text that has become certain, maybe empty.
    pub fn push(&mut self, id: TokenId) -> String {
        self.bytes.push(self.model.pieces.bytes(id))
    }

    /// The rest, with the replacement character for bytes that never became a character.
    pub fn finish(self) -> String {
        self.bytes.finish()
    }
}

/// Bytes in, whole characters out.
#[derive(Debug, Clone)]
pub(super) struct Utf8Stream {
    /// At most one unfinished character between two pushes.
    pending: Vec<u8>,
    lead: Lead,
    broken: Broken,
}

impl Utf8Stream {
    pub(super) fn new(lead: Lead, broken: Broken) -> Self {
        Self {
            pending: Vec::new(),
            lead,
            broken,
        }
    }

    /// Adds the bytes of one token; none for a token without text.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        if bytes.is_empty() {
            return String::new();
        }
        self.lead.append(bytes, &mut self.pending);
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(whole) => {
                    text.push_str(whole);
                    rest = &[];
                    break;
                }
                Err(error) => error,
            };
            let (whole, tail) = rest.split_at(error.valid_up_to());
            text.push_str(std::str::from_utf8(whole).unwrap_or_default());
            rest = tail;
            // Without a length, the bytes could still become a character.
            let Some(length) = error.error_len() else {
                break;
            };
            self.broken.replace(length, &mut text);
            rest = &rest[length..];
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
        text
    }

    pub(super) fn finish(self) -> String {
        let mut text = String::new();
        if !self.pending.is_empty() {
            self.broken.replace(self.pending.len(), &mut text);
        }
        text
    }
}

#[cfg(test)]
mod tests;
