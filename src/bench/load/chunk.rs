//! What a line of an event stream says.
//!
//! Thousands of lines a second carry text and nothing else. They are known by a few bytes and not parsed: in JSON, a
//! quote inside a string is escaped, so `"content":"` with bare quotes can only be a member's name.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;

/// What one line says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    /// Nothing that counts: a comment, an empty line, another field of the event.
    Nothing,
    /// Text, and nothing else of interest.
    Text,
    /// `[DONE]`.
    Done,
    /// Anything else in a `data:` line.
    Told(Told),
    /// A `data:` line that holds no JSON object of the expected shape.
    Garbled,
}

/// What a chunk that was parsed says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Told {
    /// It is a chunk of the answer, if perhaps an empty one.
    pub(super) has_choice: bool,
    /// It carries text.
    pub(super) has_text: bool,
    /// It ends the answer.
    pub(super) is_finish: bool,
    /// It tells what was used.
    pub(super) usage: Option<Usage>,
    /// It tells of a failure.
    pub(super) error: Option<ErrorBody>,
}

/// Tokens as the server counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Usage {
    #[serde(default)]
    pub(super) prompt_tokens: u64,
    #[serde(default)]
    pub(super) completion_tokens: u64,
    prompt_tokens_details: Option<PromptDetails>,
}

impl Usage {
    /// Prompt tokens that came from a cache, if the server says.
    pub(super) fn cached_tokens(&self) -> Option<u64> {
        self.prompt_tokens_details?.cached_tokens
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

/// An error object, in OpenAI's shape or near it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    /// A word or a number; empty if there is none.
    pub(super) code: String,
    /// For people; empty if there is none.
    pub(super) message: String,
}

impl ErrorBody {
    /// Finds code and message in whatever an engine sends: `{"error":{…}}`, `{"error":"…"}` or the bare object.
    pub(super) fn find(value: &serde_json::Value) -> Self {
        let error = value.get("error").unwrap_or(value);
        if let Some(message) = error.as_str() {
            return Self {
                code: String::new(),
                message: short(message),
            };
        }
        let text = |name: &str| match error.get(name) {
            Some(serde_json::Value::String(text)) => short(text),
            Some(serde_json::Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let code = match text("code") {
            code if code.is_empty() => text("type"),
            code => code,
        };
        Self {
            code,
            message: text("message"),
        }
    }
}

/// Understands one line.
pub(super) fn hear(line: &[u8]) -> Heard {
    let Some(data) = data(line) else {
        return Heard::Nothing;
    };
    if data.starts_with(b"[DONE]") {
        return Heard::Done;
    }
    if is_plain_text(data) {
        return Heard::Text;
    }
    match serde_json::from_slice::<Wire>(data) {
        Ok(wire) => Heard::Told(wire.into()),
        Err(_) => Heard::Garbled,
    }
}

/// The text that a line adds to the answer; what is not part of it, such as reasoning, is left out.
pub(super) fn text_of(line: &[u8]) -> Option<String> {
    let wire: Wire = serde_json::from_slice(data(line)?).ok()?;
    let choice = wire.choices.into_iter().flatten().next()?;
    let text = choice.delta.and_then(|delta| delta.content).or(choice.text);
    text.map(Cow::into_owned)
}

/// What follows `data:`.
fn data(line: &[u8]) -> Option<&[u8]> {
    let data = line.strip_prefix(b"data:")?;
    Some(data.strip_prefix(b" ").unwrap_or(data))
}

fn is_plain_text(data: &[u8]) -> bool {
    let has_text = TEXT.iter().any(|name| {
        name.find(data)
            .is_some_and(|at| data.get(at + name.needle().len()) != Some(&b'"'))
    });
    has_text && !SPECIAL.iter().any(|name| name.find(data).is_some())
}

type Needles<const N: usize> = LazyLock<[Finder<'static>; N]>;

/// The most frequent first. A space after the colon is legal too; such lines are parsed.
static TEXT: Needles<3> = LazyLock::new(|| {
    [r#""content":""#, r#""text":""#, r#""reasoning_content":""#].map(Finder::new)
});

/// What makes a chunk with text more than that.
static SPECIAL: Needles<3> =
    LazyLock::new(|| [r#""finish_reason":""#, r#""usage":{"#, r#""error":"#].map(Finder::new));

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    usage: Option<Usage>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reasoning_content: Option<Cow<'a, str>>,
}

impl From<Wire<'_>> for Told {
    fn from(wire: Wire) -> Self {
        let choices = wire.choices.unwrap_or_default();
        let filled = |text: &Option<Cow<str>>| text.as_ref().is_some_and(|text| !text.is_empty());
        Self {
            has_choice: !choices.is_empty(),
            has_text: choices.iter().any(|choice| {
                filled(&choice.text)
                    || choice.delta.as_ref().is_some_and(|delta| {
                        filled(&delta.content) || filled(&delta.reasoning_content)
                    })
            }),
            is_finish: choices.iter().any(|choice| filled(&choice.finish_reason)),
            usage: wire.usage,
            error: wire.error.map(|error| ErrorBody::find(&error)),
        }
    }
}

/// A server's words, cut to what fits a line or two and cleared of what would move a terminal's cursor.
pub(super) fn short(text: &str) -> String {
    let clean = |char: char| if char.is_control() { ' ' } else { char };
    let mut short: String = text.chars().take(MAX_WORDS).map(clean).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

const MAX_WORDS: usize = 240;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Told {
        match hear(line.as_bytes()) {
            Heard::Told(told) => told,
            other => panic!("{other:?} for {line}"),
        }
    }

    #[test]
    fn lines_with_text_alone_are_known_without_parsing() {
        for line in [
            r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":"Sow"},"finish_reason":null}],"usage":null}"#,
            r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"Sow"}}]}"#,
            r#"data:{"choices":[{"text":"Sow","index":0}]}"#,
            r#"data: {"choices":[{"delta":{"content":null,"reasoning_content":"Hm"}}]}"#,
            // The text spells what would be special outside of it.
            r#"data: {"choices":[{"delta":{"content":"\"finish_reason\":\"stop\",\"usage\":{\"error\":"}}]}"#,
        ] {
            assert_eq!(hear(line.as_bytes()), Heard::Text, "{line}");
        }
    }

    #[test]
    fn what_is_not_plain_text_is_parsed() {
        let role = told(r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#);
        assert!(role.has_choice && !role.has_text && !role.is_finish);
        let spaced = told(r#"data: {"choices": [{"delta": {"content": "Sow"}}]}"#);
        assert!(spaced.has_text);
        let last =
            told(r#"data: {"choices":[{"delta":{"content":"."},"finish_reason":"length"}]}"#);
        assert!(last.has_text && last.is_finish);
        // A text that only looks like text with something in it.
        let sly = told(r#"data: {"choices":[{"delta":{"role":"\"content\":\"x"}}]}"#);
        assert!(sly.has_choice && !sly.has_text);
    }

    #[test]
    fn usage_is_read_with_and_without_cached_tokens() {
        let line = r#"data: {"choices":[],"usage":{"prompt_tokens":23,"completion_tokens":41}}"#;
        let usage = told(line).usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (23, 41));
        assert_eq!(usage.cached_tokens(), None);
        let line = r#"data: {"choices":[],"usage":{"prompt_tokens":23,"completion_tokens":41,"prompt_tokens_details":{"cached_tokens":16}}}"#;
        assert_eq!(told(line).usage.unwrap().cached_tokens(), Some(16));
    }

    #[test]
    fn failures_in_the_stream_are_heard_in_every_shape() {
        let line = r#"data: {"error":{"message":"the engine failed","type":"server_error","code":"engine_dead"}}"#;
        let error = told(line).error.unwrap();
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("engine_dead", "the engine failed")
        );
        let error = told(r#"data: {"error":{"message":"m","code":500}}"#).error;
        assert_eq!(error.unwrap().code, "500");
        let error = told(r#"data: {"error":"flat"}"#).error;
        assert_eq!(error.unwrap().message, "flat");
        // An engine that quotes the request must not pass for one that answers it.
        let error = told(r#"data: {"error":{"message":"m","content":"x"}}"#).error;
        assert!(error.is_some());
    }

    #[test]
    fn comments_other_fields_and_blank_lines_say_nothing() {
        for line in ["", ": ping", "event: message", "id: 7", "retry: 10"] {
            assert_eq!(hear(line.as_bytes()), Heard::Nothing, "{line}");
        }
        assert_eq!(hear(b"data: [DONE]"), Heard::Done);
        assert_eq!(hear(b"data: half {"), Heard::Garbled);
    }

    #[test]
    fn the_text_of_a_line_is_unescaped() {
        let line = r#"data: {"choices":[{"delta":{"content":"a\n\u00e9"}}]}"#;
        assert_eq!(text_of(line.as_bytes()).as_deref(), Some("a\né"));
        assert_eq!(text_of(b"data: [DONE]"), None);
    }

    #[test]
    fn the_words_of_a_server_cannot_fill_or_steer_a_terminal() {
        assert_eq!(short("a\u{1b}[2Jb\n"), "a [2Jb ");
        assert_eq!(short(&"x".repeat(1000)).chars().count(), MAX_WORDS + 1);
    }
}
