//! Renders a checkpoint's chat template without showing it what the callers wrote.
//!
//! The template sees a placeholder where a message's text would stand, and is cut at the placeholders afterwards. So
//! the control tokens that it writes are told from look-alikes in a message, and no placeholder can be forged: nothing
//! of a caller's but white space is ever in the rendered text.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use super::template::{Part, Specials, with_system_folded};
use super::vocabulary::Vocabulary;
use super::{PromptError, Role, TextError, Turn};

/// A checkpoint's chat template, with the globals and white-space rules that `transformers` gives it.
#[derive(Debug)]
pub(super) struct JinjaTemplate {
    environment: Environment<'static>,
    specials: Specials,
}

impl JinjaTemplate {
    /// Parses `source`; the operator is trusted to mean well, not to write without mistakes.
    pub(super) fn new(source: &str, specials: Specials) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        let unusable = |error: Error| TextError(format!("chat template: {error}"));
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(unusable)?);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Value, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(unusable)?;
        Ok(Self {
            environment,
            specials,
        })
    }

    /// The control tokens and texts of a prompt that the model is to answer. A template that refuses a system turn
    /// gets the same talk with the system's text at the head of the first user turn.
    pub(super) fn render(
        &self,
        turns: &[Turn],
        vocabulary: &Vocabulary,
    ) -> Result<Vec<Part>, PromptError> {
        self.render_as_is(turns, vocabulary).or_else(|refusal| {
            if turns.first().is_some_and(|turn| turn.role == Role::System) {
                self.render_as_is(&with_system_folded(turns), vocabulary)
                    .map_err(|_| refusal)
            } else {
                Err(refusal)
            }
        })
    }

    fn render_as_is(
        &self,
        turns: &[Turn],
        vocabulary: &Vocabulary,
    ) -> Result<Vec<Part>, PromptError> {
        let messages: Vec<Value> = turns
            .iter()
            .enumerate()
            .map(|(index, turn)| context! { role => role_name(turn.role), content => placeholder(index, &turn.text) })
            .collect();
        let rendered = self
            .environment
            .get_template(NAME)
            .and_then(|template| {
                template.render(context! {
                    messages => messages,
                    tools => (),
                    documents => (),
                    add_generation_prompt => true,
                    bos_token => &self.specials.bos,
                    eos_token => &self.specials.eos,
                    unk_token => &self.specials.unknown,
                    pad_token => &self.specials.padding,
                })
            })
            .map_err(|error| refused(error.detail().unwrap_or(&error.kind().to_string())))?;
        cut(&rendered, turns, vocabulary)
    }
}

/// What the template sees of message `index`: its outer white space as it is, so that `trim` does what it would do,
/// and noncharacters, which no tokenizer's control token contains, around the index.
fn placeholder(index: usize, text: &str) -> String {
    let core = text.trim();
    if core.is_empty() {
        return format!("{OPEN}{index}{CLOSE}");
    }
    let start = text.len() - text.trim_start().len();
    format!(
        "{}{OPEN}{index}{CLOSE}{}",
        &text[..start],
        &text[start + core.len()..]
    )
}

/// The text that [`placeholder`] kept back.
fn kept_back(text: &str) -> &str {
    let core = text.trim();
    if core.is_empty() { text } else { core }
}

/// Cuts rendered text into control tokens and texts, and puts the messages' texts back in their places.
fn cut(rendered: &str, turns: &[Turn], vocabulary: &Vocabulary) -> Result<Vec<Part>, PromptError> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = rendered;
    while let Some(next) = rest.chars().next() {
        if next == OPEN {
            let (turn, after) = rest[OPEN.len_utf8()..]
                .split_once(CLOSE)
                .and_then(|(index, after)| Some((turns.get(index.parse::<usize>().ok()?)?, after)))
                .ok_or_else(|| {
                    refused("it takes a message's text apart instead of writing it whole")
                })?;
            text.push_str(kept_back(&turn.text));
            rest = after;
        } else if let Some(token) = vocabulary.control_at(rest) {
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(Part::Control(token.clone()));
            rest = &rest[token.content.len()..];
        } else {
            text.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

/// A template's refusal: its own words up to a placeholder, and not too many of them.
fn refused(detail: &str) -> PromptError {
    let detail: String = detail
        .chars()
        .take_while(|c| *c != OPEN)
        .take(MAX_DETAIL)
        .collect();
    PromptError {
        message: format!(
            "The model's chat template does not accept these messages: {}",
            detail.trim()
        ),
        param: "messages".into(),
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

const NAME: &str = "chat_template";

/// Noncharacters: Unicode reserves them for a program's own use.
const OPEN: char = '\u{FDD0}';
const CLOSE: char = '\u{FDD1}';

/// Characters of a template's error message that a caller sees.
const MAX_DETAIL: usize = 200;
