//! `POST /v1/chat/completions`: wire types → prompt → engine → one JSON body or a stream of chunks.

mod completion;
mod fields;
mod record;
mod request;
mod respond;
mod value;
mod wire;

use std::future::Future;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::Response;

use crate::auth::{Identity, Permit};
use crate::engine::{Event, Generation, TokenId};
use crate::text::{RawMessage, normalise};

use super::app::Shared;
use super::body::JsonBody;
use super::request_id::{Arrival, random_id};
use super::{ApiError, refused, stream};

pub(super) use completion::{Answer, Change, Decoder, Finish};
pub use fields::{Handling, MESSAGE_FIELDS, REQUEST_FIELDS, WireField};
pub(super) use record::Record;
pub(super) use respond::{Envelope, WireUsage};
pub(super) use wire::StreamOptions;

use wire::ChatRequest;

/// The handler. Its arguments run in order: the permit is taken before a byte of the body is read.
pub(super) async fn complete(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    Admitted(permit): Admitted,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let app = &shared.app;
    let mut chat = ChatRequest::parse(&body, &app.model)?;
    drop(body);
    let identity = permit.identity().clone();
    // Before the prompt is made: what waits is bounded, and so is the work done for nothing.
    let place = app.engine.reserve(permit, chat.n, 0)?;
    let prompt = prompt(&shared, std::mem::take(&mut chat.messages)).await?;

    let asked = Asked {
        stream: chat.stream.then_some(chat.stream_options),
        stops: std::mem::take(&mut chat.stop),
        prompt_tokens: prompt.len(),
        n: chat.n,
    };
    let request = request::engine_request(chat, prompt, &app.model)?;
    // Counted before the engine has it: shutdown must not find a moment between.
    let in_flight = shared.in_flight.enter();
    let generation = place.submit(request)?;

    let decoders = (0..asked.n).map(|_| app.text.detokenizer());
    let answer = Answer::new(decoders, &asked.stops, asked.prompt_tokens);
    let record = Record::begin(&shared, in_flight, &arrival, &identity, &asked);
    let envelope = Envelope {
        id: random_id("chatcmpl-"),
        created: app.clock.unix_seconds(),
        model: app.model.id.clone(),
    };
    match asked.stream {
        Some(options) => {
            let chunks = stream::Chunks::new(generation, answer, envelope, options, record);
            chunks.into_response(shared.config.ping_interval).await
        }
        None => respond::whole(generation, answer, envelope, record).await,
    }
}

/// What is still needed of the request once the engine has it.
struct Asked {
    stream: Option<StreamOptions>,
    stops: Vec<String>,
    prompt_tokens: usize,
    n: u32,
}

/// A permit, taken from the caller's identity.
pub(super) struct Admitted(Permit);

impl FromRequestParts<Arc<Shared>> for Admitted {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let identity = parts
            .extensions
            .get::<Arc<Identity>>()
            .cloned()
            .ok_or_else(ApiError::internal)?;
        shared
            .app
            .gate
            .admit(identity)
            .map(Admitted)
            .map_err(|denied| refused(shared, denied))
    }
}

/// Renders and tokenises, off the threads that serve connections and only so many at a time. What cannot fit is
/// refused by its size alone.
async fn prompt(shared: &Shared, messages: Vec<RawMessage>) -> Result<Vec<TokenId>, ApiError> {
    let (text, model) = (&shared.app.text, &shared.app.model);
    let contents = messages
        .iter()
        .filter_map(|message| message.content.as_ref());
    let least = text.least_tokens(contents.map(String::len).sum());
    if least >= model.max_model_len {
        return Err(ApiError::context_length_at_least(
            model.max_model_len,
            least,
        ));
    }
    // The semaphore is never closed. The permit goes along, so that a client who leaves does not make room for a
    // second one while the work still runs.
    let turn = shared.tokenising.clone().acquire_owned().await;
    let text = text.clone();
    let work = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        text.chat_prompt(&normalise(&messages)?)
    });
    match work.await {
        Ok(prompt) => Ok(prompt?),
        Err(_panicked) => Err(ApiError::internal()),
    }
}

/// Where events come from: the engine, or a script in tests.
pub(super) trait Events: Send + 'static {
    /// As [`Generation::next`]: dropping the future loses no event.
    fn next(&mut self) -> impl Future<Output = Option<Event>> + Send;

    /// As [`Generation::finish`].
    fn finish(&self, index: u32);
}

impl Events for Generation {
    fn next(&mut self) -> impl Future<Output = Option<Event>> + Send {
        Generation::next(self)
    }

    fn finish(&self, index: u32) {
        Generation::finish(self, index);
    }
}
