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

use crate::auth::{Identity, Permit, Rights};
use crate::engine::{Engine, Event, Generation, Status, SubmitError, TokenId};
use crate::text::{RawMessage, normalise};

use super::app::{App, ModelCard, SamplingDefaults, Shared};
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
    let turned_away = |error: SubmitError| {
        shared.metrics.refused(&error);
        ApiError::from(error)
    };
    accepts(&app.engine).map_err(turned_away)?;
    let mut chat = ChatRequest::parse(&body, &app.model)?;
    drop(body);
    let size = Size::of(&chat, app)?;
    let (identity, sheet) = (permit.identity().clone(), permit.sheet().clone());
    let longest = permit.share().deadline;
    // Before the prompt is made: what waits is bounded, and so is the work done for nothing.
    let place = match app.engine.reserve(permit, chat.n, size.tokens) {
        Ok(place) => place,
        // It must not come back for a place that it could never use.
        Err(_) if !size.may_fit => return Err(size.context_length(&app.model)),
        Err(error) => return Err(turned_away(error)),
    };
    let prompt = prompt(&shared, std::mem::take(&mut chat.messages)).await?;

    let (stream, stops) = (chat.stream, std::mem::take(&mut chat.stop));
    let (options, n, prompt_tokens) = (chat.stream_options, chat.n, prompt.len());
    let explicit = chat.max_tokens.is_some();
    let request = request::engine_request(chat, prompt, &app.model)?;
    place
        .permit()
        .reserve(prompt_tokens, n, request.until.max_tokens, explicit)
        .map_err(|denied| refused(&shared, denied))?;
    let asked = Asked {
        prompt_tokens,
        n,
        max_tokens: request.until.max_tokens,
    };
    // Counted before the engine has it: shutdown must not find a moment between.
    let in_flight = shared.in_flight.enter();
    let generation = place.submit(request).map_err(turned_away)?;

    let decoders = (0..n).map(|_| app.text.detokenizer());
    let answer = Answer::new(decoders, &stops, prompt_tokens).within(longest);
    let record = Record::begin(&shared, in_flight, &arrival, &identity, &asked, sheet);
    let envelope = Envelope {
        id: random_id("chatcmpl-"),
        created: app.clock.unix_seconds(),
        model: app.model.id.clone(),
    };
    if stream {
        let chunks = stream::Chunks::new(generation, answer, envelope, options, record);
        chunks.into_response(shared.config.ping_interval).await
    } else {
        respond::whole(generation, answer, envelope, record).await
    }
}

/// What was asked for, in numbers: what is written down of a request.
struct Asked {
    prompt_tokens: usize,
    n: u32,
    /// As the engine has it, the rest of the context if the caller named none.
    max_tokens: usize,
}

/// Whether requests are taken at all, before anything is done about one.
fn accepts(engine: &Engine) -> Result<(), SubmitError> {
    match engine.status() {
        Status::Ready => Ok(()),
        Status::Draining => Err(SubmitError::ShuttingDown),
        Status::Failed => Err(SubmitError::Failed),
    }
}

/// What can be said of a request's tokens without looking at its text.
struct Size {
    /// Least tokens of the prompt.
    prompt: usize,
    /// Least tokens of one completion, as asked for.
    completion: usize,
    /// Least tokens that it will reserve.
    tokens: usize,
    /// Whether prompt and completion may fit the context.
    may_fit: bool,
}

impl Size {
    /// # Errors
    /// 400 if the prompt cannot fit the context, by its size alone.
    fn of(chat: &ChatRequest, app: &App) -> Result<Self, ApiError> {
        let limit = app.model.max_model_len;
        let contents = chat.messages.iter().filter_map(|it| it.content.as_ref());
        let prompt = app.text.least_tokens(contents.map(String::len).sum());
        let completion = chat.max_tokens.unwrap_or(chat.min_tokens.max(1));
        let completions = completion.min(limit).saturating_mul(chat.n as usize);
        let size = Self {
            prompt,
            completion,
            tokens: prompt.saturating_add(completions),
            may_fit: prompt.saturating_add(completion) <= limit,
        };
        if prompt >= limit {
            return Err(size.context_length(&app.model));
        }
        Ok(size)
    }

    fn context_length(&self, model: &ModelCard) -> ApiError {
        ApiError::context_length_at_least(model.max_model_len, self.prompt, self.completion)
    }
}

/// A permit, taken from the caller's identity.
pub(super) struct Admitted(Permit);

impl FromRequestParts<Arc<Shared>> for Admitted {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let extensions = &parts.extensions;
        let identity = extensions.get::<Arc<Identity>>().cloned();
        let rights = extensions.get::<Arc<Rights>>().cloned();
        let (identity, rights) = identity.zip(rights).ok_or_else(ApiError::internal)?;
        shared
            .app
            .gate
            .admit(identity, rights)
            .map(Admitted)
            .map_err(|denied| refused(shared, denied))
    }
}

/// Renders and tokenises, off the threads that serve connections and only so many at a time.
async fn prompt(shared: &Shared, messages: Vec<RawMessage>) -> Result<Vec<TokenId>, ApiError> {
    // The semaphore is never closed. The permit goes along, so that a client who leaves does not make room for a
    // second one while the work still runs.
    let turn = shared.tokenising.clone().acquire_owned().await;
    let text = shared.app.text.clone();
    let work = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        text.chat_prompt(&normalise(&messages)?)
    });
    match work.await {
        Ok(prompt) => Ok(prompt?),
        Err(_panicked) => Err(ApiError::internal()),
    }
}

/// Whether `bytes` are a chat request, for the fuzz targets.
#[doc(hidden)]
pub fn fuzz_chat_request(bytes: &[u8]) -> bool {
    let model = ModelCard {
        id: "m".to_owned(),
        created: 0,
        owned_by: String::new(),
        max_model_len: 32_768,
        vocab_size: 32_000,
        sampling: SamplingDefaults::default(),
    };
    let chat = super::body::parse(bytes).and_then(|body| ChatRequest::parse(&body, &model));
    // An error is shown to its caller: writing it down must work too.
    match chat {
        Ok(chat) => normalise(&chat.messages).is_ok(),
        Err(error) => {
            drop(error.body().to_string());
            false
        }
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
