//! The answer as one JSON body.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{Answer, Change, Decoder, Events, Finish, Record};
use crate::engine::Usage;
use crate::server::ApiError;

/// What names an answer, the same on its body and on each of its chunks.
pub(in crate::server) struct Envelope {
    pub(in crate::server) id: String,
    pub(in crate::server) created: u64,
    pub(in crate::server) model: String,
}

/// `usage`
#[derive(Serialize)]
pub(in crate::server) struct WireUsage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: usize,
}

impl From<Usage> for WireUsage {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: PromptDetails {
                cached_tokens: usage.cached_tokens,
            },
        }
    }
}

#[derive(Serialize)]
struct Body {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<Choice>,
    usage: WireUsage,
}

#[derive(Serialize)]
struct Choice {
    index: usize,
    message: Message,
    logprobs: Option<()>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: String,
    refusal: Option<()>,
}

/// Waits for the whole answer. Dropping the future drops `events`, which ends the work.
pub(super) async fn whole<E: Events, D: Decoder>(
    mut events: E,
    mut answer: Answer<D>,
    envelope: Envelope,
    mut record: Record,
) -> Result<Response, ApiError> {
    let mut texts = vec![String::new(); answer.len()];
    let mut finishes = vec![Finish::Stop; answer.len()];
    while !answer.is_over() {
        let event = events.next().await;
        record.event(event.as_ref());
        match answer.absorb(event) {
            Change::Nothing => {}
            Change::Text { index, text } => texts[index as usize] += &text,
            Change::Finished {
                index,
                text,
                finish,
                early,
            } => {
                texts[index as usize] += &text;
                finishes[index as usize] = finish;
                if early {
                    events.finish(index);
                }
            }
            Change::Failed(error) => {
                record.failed(&error);
                return Err(error);
            }
        }
    }
    record.done(answer.usage(), answer.first_finish());
    let choice = |(index, (content, finish)): (usize, (String, Finish))| Choice {
        index,
        message: Message {
            role: "assistant",
            content,
            refusal: None,
        },
        logprobs: None,
        finish_reason: finish.word(),
    };
    let body = Body {
        id: envelope.id,
        object: "chat.completion",
        created: envelope.created,
        model: envelope.model,
        choices: texts
            .into_iter()
            .zip(finishes)
            .enumerate()
            .map(choice)
            .collect(),
        usage: answer.usage().into(),
    };
    Ok(Json(body).into_response())
}
