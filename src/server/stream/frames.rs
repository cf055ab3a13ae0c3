//! Server-sent events as bytes. Most chunks are one token's text, and differ from each other in that text alone: what is
//! the same is written once.

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use crate::server::chat::{Envelope, Finish, StreamOptions, WireUsage};

/// Events made and not yet sent.
pub(super) struct Frames {
    envelope: Envelope,
    options: StreamOptions,
    bytes: BytesMut,
    /// A content chunk up to its choice's index, and from the end of its delta on.
    opening: Vec<u8>,
    closing: &'static [u8],
}

impl Frames {
    pub(super) fn new(envelope: Envelope, options: StreamOptions) -> Self {
        let mut frames = Self {
            envelope,
            options,
            bytes: BytesMut::new(),
            opening: Vec::new(),
            closing: match options.include_usage {
                true => br#"},"logprobs":null,"finish_reason":null}],"usage":null}"#,
                false => br#"},"logprobs":null,"finish_reason":null}]}"#,
            },
        };
        let like = Choice::new(0, Delta::default(), None);
        frames.write_chunk(&[like], None);
        let whole = frames.bytes.split();
        let choices = whole
            .windows(CHOICES.len())
            .position(|window| window == CHOICES)
            .expect("a chunk has choices, and no string before them holds quotes. This is a bug.");
        frames.opening = whole[..choices + CHOICES.len()].to_vec();
        frames
    }

    /// A completion's next text; with the role if it is its first.
    pub(super) fn content(
        &mut self,
        index: u32,
        first: bool,
        text: &str,
        usage: impl FnOnce() -> WireUsage,
    ) {
        let role = first.then_some("assistant");
        if role.is_some() || self.options.continuous_usage_stats {
            let delta = Delta {
                role,
                content: Some(text),
            };
            return self.chunk(&[Choice::new(index, delta, None)], usage);
        }
        self.bytes.extend_from_slice(&self.opening);
        self.json(&index);
        self.bytes.extend_from_slice(br#","delta":{"content":"#);
        self.json(text);
        self.bytes.extend_from_slice(self.closing);
        self.bytes.extend_from_slice(END);
    }

    /// A completion's end.
    pub(super) fn finish(&mut self, index: u32, finish: Finish, usage: impl FnOnce() -> WireUsage) {
        let choice = Choice::new(index, Delta::default(), Some(finish));
        self.chunk(&[choice], usage);
    }

    /// The last chunk, which has the usage and no choices.
    pub(super) fn usage(&mut self, usage: WireUsage) {
        self.write_chunk(&[], Some(Some(usage)));
    }

    /// One event that is not a chunk.
    pub(super) fn event(&mut self, value: &impl Serialize) {
        self.bytes.extend_from_slice(DATA);
        self.json(value);
        self.bytes.extend_from_slice(END);
    }

    /// Bytes that are an event already.
    pub(super) fn raw(&mut self, event: &[u8]) {
        self.bytes.extend_from_slice(event);
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn take(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }

    fn chunk(&mut self, choices: &[Choice<'_>], usage: impl FnOnce() -> WireUsage) {
        let options = self.options;
        let usage = match (options.continuous_usage_stats, options.include_usage) {
            (true, _) => Some(Some(usage())),
            (false, true) => Some(None),
            (false, false) => None,
        };
        self.write_chunk(choices, usage);
    }

    fn write_chunk(&mut self, choices: &[Choice<'_>], usage: Option<Option<WireUsage>>) {
        let chunk = Chunk {
            id: &self.envelope.id,
            object: "chat.completion.chunk",
            created: self.envelope.created,
            model: &self.envelope.model,
            choices,
            usage,
        };
        self.bytes.extend_from_slice(DATA);
        write_json(&mut self.bytes, &chunk);
        self.bytes.extend_from_slice(END);
    }

    fn json(&mut self, value: &(impl Serialize + ?Sized)) {
        write_json(&mut self.bytes, value);
    }
}

/// JSON has no raw line breaks, so one `data:` line holds it.
fn write_json(bytes: &mut BytesMut, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(bytes::BufMut::writer(bytes), value)
        .expect("these types have string keys and finite numbers. This is a bug.");
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    /// Absent, `null` or counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<WireUsage>>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

impl<'a> Choice<'a> {
    fn new(index: u32, delta: Delta<'a>, finish: Option<Finish>) -> Self {
        Self {
            index,
            delta,
            logprobs: None,
            finish_reason: finish.map(Finish::word),
        }
    }
}

#[derive(Serialize, Default)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

const DATA: &[u8] = b"data: ";
const END: &[u8] = b"\n\n";
const CHOICES: &[u8] = br#""choices":[{"index":"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Usage;

    fn frames(options: StreamOptions) -> Frames {
        let envelope = Envelope {
            id: "chatcmpl-\"choices\":[{\"index\":".to_owned(),
            created: 7,
            model: "m\\\"é".to_owned(),
        };
        Frames::new(envelope, options)
    }

    #[test]
    fn a_chunk_written_fast_is_the_chunk_written_slowly() {
        for include_usage in [false, true] {
            let options = StreamOptions {
                include_usage,
                ..StreamOptions::default()
            };
            for text in ["", "a", "\"quoted\"\\\n\t\u{1}", "häßlich 🌱", "</s>"] {
                let usage = || WireUsage::from(Usage::default());
                let mut frames = frames(options);
                frames.content(3, false, text, usage);
                let fast = frames.take();
                let delta = Delta {
                    role: None,
                    content: Some(text),
                };
                frames.chunk(&[Choice::new(3, delta, None)], usage);
                assert_eq!(fast, frames.take());
            }
        }
    }
}
