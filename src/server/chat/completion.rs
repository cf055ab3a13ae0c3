//! From a request's events to its text: detokenising, stop strings and counting, the same for streams and single
//! bodies, so that both say the same.

use std::time::Duration;

use crate::engine::{Event, FinishReason, TokenId, Usage};
use crate::server::ApiError;
use crate::text::{Detokenizer, StopStrings};

/// Turns one completion's ids into text; [`Detokenizer`], or a table in tests.
pub(in crate::server) trait Decoder: Send + 'static {
    fn push(&mut self, id: TokenId) -> String;
    fn finish(self) -> String;
}

impl Decoder for Detokenizer {
    fn push(&mut self, id: TokenId) -> String {
        Detokenizer::push(self, id)
    }

    fn finish(self) -> String {
        Detokenizer::finish(self)
    }
}

/// Why a completion ended, in OpenAI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Finish {
    Stop,
    Length,
}

impl Finish {
    pub(in crate::server) fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// What an event changed for the reader.
#[derive(Debug)]
pub(in crate::server) enum Change {
    /// Nothing to show: half a character, the start of what may be a stop string, a token after the end.
    Nothing,
    /// More text of one completion, never empty.
    Text { index: u32, text: String },
    /// One completion's end, with the last of its text. `early`: a stop string was found, and the engine does not
    /// know yet that the sequence should end.
    Finished {
        index: u32,
        text: String,
        finish: Finish,
        early: bool,
    },
    /// No more events; the request failed.
    Failed(ApiError),
}

/// The completions of one request, as far as they have come.
pub(in crate::server) struct Answer<D> {
    completions: Vec<Completion<D>>,
    prompt_tokens: usize,
    /// As far as told: the sequences' own numbers add up to it.
    cached_tokens: usize,
    /// Longest time that the request may take.
    longest: Option<Duration>,
    /// A completion was cut short because a budget was spent.
    budget_spent: bool,
}

impl<D: Decoder> Answer<D> {
    /// One completion per decoder; each ends at the first of `stops`.
    pub(in crate::server) fn new(
        decoders: impl Iterator<Item = D>,
        stops: &[String],
        prompt_tokens: usize,
    ) -> Self {
        let completion = |decoder| Completion {
            text: Some((decoder, StopStrings::new(stops.to_vec()))),
            tokens: 0,
            finish: None,
            ended: false,
        };
        Self {
            completions: decoders.map(completion).collect(),
            prompt_tokens,
            cached_tokens: 0,
            longest: None,
            budget_spent: false,
        }
    }

    /// The same, of a request that is ended after this time.
    pub(in crate::server) fn within(self, longest: Option<Duration>) -> Self {
        Self { longest, ..self }
    }

    /// Takes the next event, or the end of events, which before [`Self::is_over`] is a failure.
    pub(in crate::server) fn absorb(&mut self, event: Option<Event>) -> Change {
        match event {
            Some(Event::Token { index, id }) => match self.completions.get_mut(index as usize) {
                Some(completion) => completion.token(index, id),
                None => Change::Nothing,
            },
            Some(Event::Finished {
                index,
                reason,
                usage,
            }) => self.finished(index, reason, usage),
            Some(Event::Failed(error)) => Change::Failed(error.into()),
            None => Change::Failed(ApiError::engine_failed()),
        }
    }

    fn finished(&mut self, index: u32, reason: FinishReason, usage: Usage) -> Change {
        let Some(completion) = self.completions.get_mut(index as usize) else {
            return Change::Nothing;
        };
        let finish = match reason {
            // A stop string has ended it before: its reader has all of it, whatever the engine ended it for.
            _ if completion.text.is_none() => Finish::Stop,
            FinishReason::Stop => Finish::Stop,
            FinishReason::Length => Finish::Length,
            // What was paid for is delivered; the others go on. What the request hears of it comes at its end.
            FinishReason::BudgetSpent => {
                self.budget_spent = true;
                Finish::Length
            }
            // We are still listening, so it was not us who went away: the engine gave up on it.
            FinishReason::Cancelled | FinishReason::Aborted => {
                return Change::Failed(ApiError::engine_failed());
            }
            FinishReason::DeadlineExceeded => {
                return Change::Failed(ApiError::deadline_exceeded(self.longest));
            }
            FinishReason::Revoked => return Change::Failed(ApiError::access_revoked()),
        };
        self.cached_tokens += usage.cached_tokens;
        completion.end(index, finish, usage.completion_tokens)
    }

    /// What is to be said when all is delivered, if a budget that was spent has cut it short.
    pub(in crate::server) fn shortfall(&self) -> Option<ApiError> {
        self.budget_spent.then(ApiError::budget_spent)
    }

    /// Whether every completion has ended, for the engine too.
    pub(in crate::server) fn is_over(&self) -> bool {
        self.completions.iter().all(|completion| completion.ended)
    }

    /// Tokens used so far; the prompt counts once.
    pub(in crate::server) fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            completion_tokens: self
                .completions
                .iter()
                .map(|completion| completion.tokens)
                .sum(),
        }
    }

    /// How many completions there are.
    pub(in crate::server) fn len(&self) -> usize {
        self.completions.len()
    }

    /// How the first completion ended: what the log line says of the request.
    pub(in crate::server) fn first_finish(&self) -> Option<Finish> {
        self.completions
            .first()
            .and_then(|completion| completion.finish)
    }
}

struct Completion<D> {
    /// Gone once no more text can come.
    text: Option<(D, StopStrings)>,
    /// Tokens up to the end; those that the engine made before it heard of a stop string do not count.
    tokens: usize,
    finish: Option<Finish>,
    /// The engine has said its last word about the sequence.
    ended: bool,
}

impl<D: Decoder> Completion<D> {
    fn token(&mut self, index: u32, id: TokenId) -> Change {
        let Some((decoder, stops)) = &mut self.text else {
            return Change::Nothing;
        };
        self.tokens += 1;
        let released = stops.push(&decoder.push(id));
        if released.stopped {
            self.text = None;
            self.finish = Some(Finish::Stop);
            return Change::Finished {
                index,
                text: released.text,
                finish: Finish::Stop,
                early: true,
            };
        }
        if released.text.is_empty() {
            Change::Nothing
        } else {
            Change::Text {
                index,
                text: released.text,
            }
        }
    }

    fn end(&mut self, index: u32, finish: Finish, tokens: usize) -> Change {
        self.ended = true;
        let Some((decoder, mut stops)) = self.text.take() else {
            return Change::Nothing;
        };
        self.tokens = tokens;
        let mut released = stops.push(&decoder.finish());
        // The rest of the text may complete a stop string; that is then why it ended.
        let finish = if released.stopped {
            Finish::Stop
        } else {
            finish
        };
        if !released.stopped {
            released.text += &stops.finish();
        }
        self.finish = Some(finish);
        Change::Finished {
            index,
            text: released.text,
            finish,
            early: false,
        }
    }
}

#[cfg(test)]
mod tests;
