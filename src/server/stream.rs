//! The answer as server-sent events: one JSON document per `data:` line, `data: [DONE]` at the end.
//!
//! The role comes with the first text, so that the first chunk a client sees is a real token. What fails before the
//! first event is a plain HTTP error; what fails later is an event with `error` in it, and then no `[DONE]`. A budget that
//! runs out is such a failure: the texts have their ends by then, and the usage is told before it, asked for or not.
//! Dropping the response drops the engine's events, which ends the work.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::engine::Event;

use super::ApiError;
use super::chat::{Answer, Change, Decoder, Envelope, Events, Record, StreamOptions};
use frames::Frames;

mod frames;

/// A stream of chunks in the making.
pub(super) struct Chunks<E, D> {
    events: E,
    answer: Answer<D>,
    options: StreamOptions,
    record: Record,
    /// Which completions have sent their role.
    spoken: Vec<bool>,
    frames: Frames,
    /// No event will be read any more.
    over: bool,
    /// When the last event came, and the timer that looks how long ago that is. One timer for the whole stream, which
    /// looks once per interval: setting one per token would cost more than the token.
    heard: Instant,
    timer: Option<Pin<Box<Sleep>>>,
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
            options,
            record,
            spoken,
            frames: Frames::new(envelope, options),
            over: false,
            heard: Instant::now(),
            timer: None,
        }
    }

    /// Waits for the first event, so that an early failure keeps its status; but no longer than `ping`, so that a
    /// request in a long queue is kept open.
    ///
    /// # Errors
    /// The failure, if it is the first thing that happens.
    pub(super) async fn into_response(mut self, ping: Duration) -> Result<Response, ApiError> {
        match self.next_event(ping).await {
            None => self.frames.raw(PING),
            Some(first) => self.absorb(first)?,
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

    /// The next bytes to send, of all events that are there; `None` at the end.
    async fn next_frame(&mut self, ping: Duration) -> Option<Bytes> {
        while self.frames.len() == 0 {
            if self.over {
                return None;
            }
            match self.next_event(ping).await {
                None => self.frames.raw(PING),
                Some(event) => self.take(event),
            }
            // A stream that falls behind catches up in larger pieces.
            while !self.over && self.frames.len() < LARGE {
                let Some(event) = self.events.next().now_or_never() else {
                    break;
                };
                self.take(event);
            }
        }
        Some(self.frames.take())
    }

    /// The next event; `None` after a silence of `ping`.
    async fn next_event(&mut self, ping: Duration) -> Option<Option<Event>> {
        let heard = &mut self.heard;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(*heard + ping)));
        let mut event = pin!(self.events.next());
        loop {
            tokio::select! {
                biased;
                event = &mut event => {
                    *heard = Instant::now();
                    return Some(event);
                }
                () = &mut *timer => {
                    let now = Instant::now();
                    let silent = now - *heard >= ping;
                    if silent {
                        *heard = now;
                    }
                    timer.as_mut().reset(*heard + ping);
                    if silent {
                        return None;
                    }
                }
            }
        }
    }

    /// As [`Self::absorb`]; a failure becomes an event of its own.
    fn take(&mut self, event: Option<Event>) {
        if let Err(error) = self.absorb(event) {
            self.frames.event(&error.body());
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
                let usage = || self.answer.usage().into();
                self.frames.finish(index, finish, usage);
            }
            Change::Failed(error) => {
                self.over = true;
                self.record.failed(&error);
                return Err(error);
            }
        }
        if self.answer.is_over() {
            self.over = true;
            let shortfall = self.answer.shortfall();
            if self.options.include_usage || shortfall.is_some() {
                self.frames.usage(self.answer.usage().into());
            }
            self.record
                .done(self.answer.usage(), self.answer.first_finish());
            match shortfall {
                None => self.frames.raw(DONE),
                Some(error) => {
                    self.frames.event(&error.body());
                    self.record.failed(&error);
                }
            }
        }
        Ok(())
    }

    fn content(&mut self, index: u32, text: &str) {
        let first = !std::mem::replace(&mut self.spoken[index as usize], true);
        let usage = || self.answer.usage().into();
        self.frames.content(index, first, text, usage);
    }
}

const DONE: &[u8] = b"data: [DONE]\n\n";
const PING: &[u8] = b": ping\n\n";
/// 16 KiB, hyper's own idea of a large piece.
const LARGE: usize = 16 << 10;

#[cfg(test)]
mod tests;
