//! The answer as server-sent events: one JSON document per `data:` line, `data: [DONE]` at the end.
//!
//! The role comes with the first text, so that the first chunk a client sees is a real token. What fails before the
//! first event is a plain HTTP error; what fails later is an event with `error` in it, and then no `[DONE]`.
//! Dropping the response drops the engine's events, which ends the work.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::time::timeout;

use crate::engine::Event;

use super::ApiError;
use super::chat::{
    Answer, Change, Decoder, Envelope, Events, Finish, Record, StreamOptions, WireUsage,
};

/// A stream of chunks in the making.
pub(super) struct Chunks<E, D> {
    events: E,
    answer: Answer<D>,
    envelope: Envelope,
    options: StreamOptions,
    record: Record,
    /// Which completions have sent their role.
    spoken: Vec<bool>,
    /// Made and not yet sent.
    frames: VecDeque<Bytes>,
    /// No event will be read any more.
    over: bool,
}

impl<E: Events, D: Decoder> Chunks<E, D> {
    pub(super) fn new(
        events: E,
        answer: Answer<D>,
        envelope: Envelope,
        options: StreamOptions,
        record: Record,
    ) -> Self {
        let spoken = vec![false; answer.len()];
        Self {
            events,
            answer,
            envelope,
            options,
            record,
            spoken,
            frames: VecDeque::new(),
            over: false,
        }
    }

    /// Waits for the first event, so that an early failure keeps its status; but no longer than `ping`, so that a
    /// request in a long queue is kept open.
    ///
    /// # Errors
    /// The failure, if it is the first thing that happens.
    pub(super) async fn into_response(mut self, ping: Duration) -> Result<Response, ApiError> {
        match timeout(ping, self.events.next()).await {
            Err(_elapsed) => self.frames.push_back(PING),
            Ok(first) => self.absorb(first)?,
        }
        let frames = stream::unfold(self, move |mut chunks| async move {
            let frame = chunks.next_frame(ping).await?;
            Some((Ok::<_, Infallible>(frame), chunks))
        });
        let headers = [
            (CONTENT_TYPE.as_str(), "text/event-stream; charset=utf-8"),
            (CACHE_CONTROL.as_str(), "no-cache"),
            // Tells nginx to pass each event on at once.
            ("x-accel-buffering", "no"),
        ];
        Ok((headers, Body::from_stream(frames)).into_response())
    }

    /// The next bytes to send; `None` at the end.
    async fn next_frame(&mut self, ping: Duration) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            if self.over {
                return None;
            }
            match timeout(ping, self.events.next()).await {
                Err(_elapsed) => return Some(PING),
                Ok(event) => {
                    if let Err(error) = self.absorb(event) {
                        self.frames.push_back(frame(&error.body()));
                    }
                }
            }
        }
    }

    /// Turns an event into frames.
    ///
    /// # Errors
    /// The request's failure; nothing follows it.
    fn absorb(&mut self, event: Option<Event>) -> Result<(), ApiError> {
        self.record.event(event.as_ref());
        match self.answer.absorb(event) {
            Change::Nothing => {}
            Change::Text { index, text } => self.content(index, &text),
            Change::Finished {
                index,
                text,
                finish,
                early,
            } => {
                if early {
                    self.events.finish(index);
                }
                // An empty completion still says who speaks.
                if !text.is_empty() || !self.spoken[index as usize] {
                    self.content(index, &text);
                }
                self.chunk(&[Choice::new(index, Delta::default(), Some(finish))]);
            }
            Change::Failed(error) => {
                self.over = true;
                self.record.failed(&error);
                return Err(error);
            }
        }
        if self.answer.is_over() {
            self.over = true;
            if self.options.include_usage {
                self.chunk(&[]);
            }
            self.frames.push_back(DONE);
            self.record
                .done(self.answer.usage(), self.answer.first_finish());
        }
        Ok(())
    }

    fn content(&mut self, index: u32, text: &str) {
        let first = !std::mem::replace(&mut self.spoken[index as usize], true);
        let delta = Delta {
            role: first.then_some("assistant"),
            content: Some(text),
        };
        self.chunk(&[Choice::new(index, delta, None)]);
    }

    /// Queues a chunk; without choices it is the one that carries the usage.
    fn chunk(&mut self, choices: &[Choice<'_>]) {
        let counted = self.options.continuous_usage_stats || choices.is_empty();
        let usage = match (counted, self.options.include_usage) {
            (true, _) => Some(Some(self.answer.usage().into())),
            (false, true) => Some(None),
            (false, false) => None,
        };
        let chunk = Chunk {
            id: &self.envelope.id,
            object: "chat.completion.chunk",
            created: self.envelope.created,
            model: &self.envelope.model,
            choices,
            usage,
        };
        let bytes = frame(&chunk);
        self.frames.push_back(bytes);
    }
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

/// One event. JSON has no raw line breaks, so one `data:` line holds it.
fn frame(value: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(value)
        .expect("these types have string keys and finite numbers. This is a bug.");
    Bytes::from(format!("data: {json}\n\n"))
}

const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");
const PING: Bytes = Bytes::from_static(b": ping\n\n");

#[cfg(test)]
mod tests;
