//! One request and its answer, chunk by chunk, with the times.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Response};
use tokio::time::timeout;

use super::chunk::{self, ErrorBody, Heard, Told, Usage};
use super::connection::{Pool, broken};
use super::lines::Lines;
use super::{RequestFailure, Target};

/// What came of a request.
#[derive(Debug)]
pub(super) struct Answer {
    /// Before the connection was made.
    pub(super) start: Instant,
    /// The first chunk with text; the first chunk at all if none has text.
    pub(super) first: Option<Instant>,
    /// The last chunk of the answer, be it the one that says why it ended.
    pub(super) last: Option<Instant>,
    /// Seconds between chunks with text.
    pub(super) gaps: Vec<f64>,
    /// Tokens as the server counts them, if it does.
    pub(super) usage: Option<Usage>,
    /// What was said, if it was to be kept.
    pub(super) text: String,
    /// Why it is no good answer.
    pub(super) failure: Option<RequestFailure>,
}

/// Posts `body` and reads the stream that answers it. `on_text` is called for each chunk with text.
pub(super) async fn ask(
    target: &Target,
    pool: &Pool,
    body: Bytes,
    keep_text: bool,
    on_text: impl FnMut(),
) -> Answer {
    let mut listener = Listener::new(keep_text, on_text);
    let failure = converse(target, pool, body, &mut listener).await.err();
    listener.answer(failure)
}

/// [`ask`], given up after `limit`.
pub(super) async fn ask_within(
    limit: Duration,
    target: &Target,
    pool: &Pool,
    body: Bytes,
    keep_text: bool,
    on_text: impl FnMut(),
) -> Answer {
    let mut listener = Listener::new(keep_text, on_text);
    let failure = match timeout(limit, converse(target, pool, body, &mut listener)).await {
        Ok(conversed) => conversed.err(),
        Err(_elapsed) => Some(RequestFailure::TimedOut),
    };
    listener.answer(failure)
}

/// Asks for a short JSON document.
///
/// # Errors
/// If there is no answer, or none that is 200 and JSON.
pub(super) async fn fetch_json(
    target: &Target,
    pool: &Pool,
) -> Result<serde_json::Value, RequestFailure> {
    let mut connection = pool.take(target).await?;
    let response = connection.send(target, Method::GET, Bytes::new()).await?;
    connection
        .drive(async {
            let status = response.status().as_u16();
            let bytes = short_body(response).await;
            let value = serde_json::from_slice(&bytes);
            if status != 200 {
                let body = value.as_ref().map(ErrorBody::find).unwrap_or_default();
                return Err(RequestFailure::status(status, body));
            }
            value.map_err(|_| RequestFailure::Garbled)
        })
        .await
}

async fn converse<F: FnMut()>(
    target: &Target,
    pool: &Pool,
    body: Bytes,
    listener: &mut Listener<F>,
) -> Result<(), RequestFailure> {
    let mut connection = pool.take(target).await?;
    let response = connection.send(target, Method::POST, body).await?;
    let is_at_end = connection.drive(listener.listen(response)).await?;
    if is_at_end {
        pool.give_back(connection);
    }
    Ok(())
}

/// Hears a stream and notes the times.
struct Listener<F> {
    answer: Answer,
    /// The first chunk without text.
    first_empty: Option<Instant>,
    /// The last chunk with text.
    last_text: Option<Instant>,
    has_finish: bool,
    is_done: bool,
    keep_text: bool,
    on_text: F,
}

impl<F: FnMut()> Listener<F> {
    fn new(keep_text: bool, on_text: F) -> Self {
        Self {
            answer: Answer {
                start: Instant::now(),
                first: None,
                last: None,
                gaps: Vec::new(),
                usage: None,
                text: String::new(),
                failure: None,
            },
            first_empty: None,
            last_text: None,
            has_finish: false,
            is_done: false,
            keep_text,
            on_text,
        }
    }

    fn answer(self, failure: Option<RequestFailure>) -> Answer {
        let first = self.answer.first.or(self.first_empty);
        let failure = failure.or(match first {
            None => Some(RequestFailure::Empty),
            Some(_) => None,
        });
        Answer {
            first,
            failure,
            ..self.answer
        }
    }

    /// Reads an answer to its end. Whether the connection can be used again.
    async fn listen(&mut self, response: Response<Incoming>) -> Result<bool, RequestFailure> {
        let status = response.status().as_u16();
        if status != 200 {
            let bytes = short_body(response).await;
            let value = serde_json::from_slice(&bytes);
            let body = value.as_ref().map(ErrorBody::find).unwrap_or_default();
            return Err(RequestFailure::status(status, body));
        }
        let mut body = response.into_body();
        let mut lines = Lines::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let Some(piece) = frame.data_ref() else {
                continue;
            };
            let now = Instant::now();
            let fed = lines.feed(piece, |line| self.hear(line, now));
            if let Some(failure) = self.answer.failure.take() {
                return Err(failure);
            }
            fed.map_err(|_too_long| RequestFailure::Garbled)?;
            if self.is_done {
                // The end of the body follows at once, or the connection is not worth keeping.
                let end = timeout(PATIENCE, body.frame()).await;
                return Ok(matches!(end, Ok(None)));
            }
        }
        // A last line without its end.
        self.hear(lines.rest(), Instant::now());
        match self.answer.failure.take() {
            Some(failure) => Err(failure),
            None if self.is_done || self.has_finish => Ok(true),
            None => Err(RequestFailure::Unfinished),
        }
    }

    fn hear(&mut self, line: &[u8], now: Instant) {
        match chunk::hear(line) {
            Heard::Nothing => return,
            Heard::Done => self.is_done = true,
            Heard::Garbled => self.answer.failure = Some(RequestFailure::Garbled),
            Heard::Text => self.hear_text(now),
            Heard::Told(told) => self.hear_told(told, now),
        }
        if self.keep_text
            && let Some(text) = chunk::text_of(line)
        {
            self.answer.text.push_str(&text);
        }
    }

    fn hear_text(&mut self, now: Instant) {
        match self.last_text {
            Some(last) => self.answer.gaps.push(seconds(now - last)),
            None => self.answer.first = Some(now),
        }
        self.last_text = Some(now);
        self.answer.last = Some(now);
        (self.on_text)();
    }

    fn hear_told(&mut self, told: Told, now: Instant) {
        if told.has_text {
            self.hear_text(now);
        } else if told.has_choice {
            self.first_empty.get_or_insert(now);
            self.answer.last = Some(now);
        }
        self.has_finish |= told.is_finish;
        self.answer.usage = told.usage.or(self.answer.usage);
        self.answer.failure = told.error.map(RequestFailure::in_stream);
    }
}

/// The beginning of a body that should be short; empty if it cannot be read.
async fn short_body(response: Response<Incoming>) -> Bytes {
    let body = Limited::new(response.into_body(), SHORT).collect();
    match timeout(PATIENCE, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    }
}

/// Exact to the nanosecond, and no longer in JSON than that.
pub(super) fn seconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e9
}

/// How long an end that is due may take.
const PATIENCE: Duration = Duration::from_secs(1);
const SHORT: usize = 1 << 20;
