//! Lays out a talk as token ids: by hand for `[INST]` models, by the checkpoint's own template for others.

use super::jinja::JinjaTemplate;
use super::vocabulary::{ControlToken, Vocabulary};
use super::{PromptError, Role, TextError, Turn};
use crate::engine::TokenId;

/// A model's way of writing a talk down.
#[derive(Debug)]
pub(super) enum ChatTemplate {
    /// `[BOS]` and per turn `[INST] text [/INST]` or `text [EOS]`, each encoded by itself, as mistral-common v1 does.
    ///
    /// The Jinja templates of these models come in two generations that refuse or misplace a system message, and
    /// encoding their output as one text depends on how a tokenizer file treats spaces. The ids of this layout do not.
    Inst,
    /// Whatever the template says.
    Jinja(Box<JinjaTemplate>),
}

impl ChatTemplate {
    /// Chooses the layout. `[INST]` in the template means [`ChatTemplate::Inst`], unless it is one token (Mistral's
    /// later tokenizers) or the template is Llama 2's, which marks system text in its own way.
    pub(super) fn new(
        source: Option<&str>,
        vocabulary: &Vocabulary,
        specials: Specials,
    ) -> Result<Self, TextError> {
        let is_token = vocabulary.id("[INST]").is_some();
        match source {
            None if is_token => Err(TextError(
                "there is no chat template, and the tokenizer has [INST] as one token, so that the layout cannot be \
                 guessed; name a template"
                    .into(),
            )),
            None => Ok(Self::Inst),
            Some(source) => {
                let inst = source.contains("[INST]") && source.contains("[/INST]") && !source.contains("<<SYS>>");
                if inst && !is_token {
                    return Ok(Self::Inst);
                }
                Ok(Self::Jinja(Box::new(JinjaTemplate::new(source, specials)?)))
            }
        }
    }

    /// Token ids of `turns`, ready for the model to answer: exactly one `bos`, first.
    pub(super) fn prompt(
        &self,
        turns: &[Turn],
        vocabulary: &Vocabulary,
        bos: TokenId,
        eos: TokenId,
    ) -> Result<Vec<TokenId>, PromptError> {
        check_order(turns)?;
        match self {
            Self::Inst => Ok(inst_prompt(turns, vocabulary, bos, eos)),
            Self::Jinja(template) => {
                let mut ids = vec![bos];
                ids.extend(encode(&template.render(turns, vocabulary)?, vocabulary));
                let mut is_first = true;
                ids.retain(|id| *id != bos || std::mem::take(&mut is_first));
                Ok(ids)
            }
        }
    }
}

/// The control tokens that templates ask for by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Specials {
    pub(super) bos: String,
    pub(super) eos: String,
    pub(super) unknown: Option<String>,
    pub(super) padding: Option<String>,
}

/// A prompt between rendering and encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A control token that the template wrote.
    Control(ControlToken),
    /// Text of the template and of the messages, up to the next control token.
    Text(String),
}

/// Encodes each text between two control tokens as one, as the reference tokenizer does.
fn encode(parts: &[Part], vocabulary: &Vocabulary) -> Vec<TokenId> {
    let mut ids = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let text = match part {
            Part::Control(token) => {
                ids.push(token.id);
                continue;
            }
            Part::Text(text) => text.as_str(),
        };
        let before = index.checked_sub(1).and_then(|before| parts.get(before));
        let text = match before {
            Some(Part::Control(token)) if token.rstrip => text.trim_start(),
            _ => text,
        };
        let text = match parts.get(index + 1) {
            Some(Part::Control(token)) if token.lstrip => text.trim_end(),
            _ => text,
        };
        if index == 0 {
            ids.extend(vocabulary.encode(text));
        } else {
            ids.extend(vocabulary.encode_interior(text));
        }
    }
    ids
}

/// `turns` have passed [`check_order`].
fn inst_prompt(
    turns: &[Turn],
    vocabulary: &Vocabulary,
    bos: TokenId,
    eos: TokenId,
) -> Vec<TokenId> {
    let mut ids = vec![bos];
    for turn in &*with_system_folded(turns) {
        if turn.role == Role::Assistant {
            ids.extend(vocabulary.encode_segment(&turn.text));
            ids.push(eos);
        } else {
            ids.extend(vocabulary.encode_segment(&format!("[INST] {} [/INST]", turn.text)));
        }
    }
    ids
}

/// `turns` with the system's text at the head of the first user turn, for templates that know no system.
pub(super) fn with_system_folded(turns: &[Turn]) -> std::borrow::Cow<'_, [Turn]> {
    match turns {
        [system, user, rest @ ..] if system.role == Role::System => {
            let text = format!("{}\n\n{}", system.text, user.text);
            let mut folded = vec![Turn {
                role: Role::User,
                text,
            }];
            folded.extend_from_slice(rest);
            folded.into()
        }
        _ => turns.into(),
    }
}

/// Holds `turns` against what [`super::normalise()`] promises.
fn check_order(turns: &[Turn]) -> Result<(), PromptError> {
    let talk = match turns {
        [system, talk @ ..] if system.role == Role::System => talk,
        talk => talk,
    };
    let alternates = talk.iter().enumerate().all(|(index, turn)| {
        turn.role
            == if index.is_multiple_of(2) {
                Role::User
            } else {
                Role::Assistant
            }
    });
    if talk.len().is_multiple_of(2) || !alternates {
        return Err(PromptError {
            message: "after an optional system message, messages must alternate between user and assistant and end \
                      with the user."
                .into(),
            param: "messages".into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
