//! The requests that have unfinished sequences: their permits, and where their events go.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::request::{EngineError, Event, FinishReason, TokenId, Usage};
use super::sequence::SequenceId;
use super::shared::Place;
use crate::auth::{Charge, Permit, TokensUsed};

/// A request that has unfinished sequences.
pub(super) struct Live {
    permit: Permit,
    events: UnboundedSender<Event>,
    /// Since the engine's start.
    deadline: Option<Duration>,
    /// Until its first step.
    place: Option<Place>,
    n: u32,
    open: u32,
}

impl Live {
    pub(super) fn new(
        permit: Permit,
        place: Place,
        events: UnboundedSender<Event>,
        n: u32,
    ) -> Self {
        let longest = permit.share().deadline;
        Self {
            deadline: longest.map(|longest| place.arrived() + longest),
            permit,
            events,
            place: Some(place),
            n,
            open: n,
        }
    }
}

/// All of them, by number.
#[derive(Default)]
pub(super) struct Requests(HashMap<u64, Live, BuildHasherDefault<Spread>>);

impl Requests {
    pub(super) fn insert(&mut self, number: u64, live: Live) {
        self.0.insert(number, live);
    }

    /// Gives back the places of requests that are in a step for the first time.
    pub(super) fn start(&mut self, admitted: &[SequenceId]) {
        for id in admitted {
            if let Some(live) = self.0.get_mut(&id.request) {
                live.place = None;
            }
        }
    }

    /// Requests that must end now, and why.
    pub(super) fn overdue(&self, now: Duration) -> Vec<(u64, FinishReason)> {
        let reason = |live: &Live| {
            if live.permit.is_revoked() {
                return Some(FinishReason::Revoked);
            }
            let over = live.deadline.is_some_and(|deadline| deadline <= now);
            over.then_some(FinishReason::DeadlineExceeded)
        };
        let overdue = |(&number, live)| reason(live).map(|reason| (number, reason));
        self.0.iter().filter_map(overdue).collect()
    }

    /// The sequences that the request began with.
    pub(super) fn sequences_of(&self, request: u64) -> impl Iterator<Item = SequenceId> + use<> {
        let n = self.0.get(&request).map_or(0, |live| live.n);
        (0..n).map(move |index| SequenceId { request, index })
    }

    /// Charges a token, and tells it if it is to be shown. Says whether the sequence may have another.
    pub(super) fn token(&self, id: SequenceId, token: TokenId, announced: bool) -> Charge {
        let live = self.0.get(&id.request).expect(OUTLIVED);
        let charge = live.permit.charge();
        if announced {
            // A failed send means that the receiver is gone and has told us so.
            let _ = live.events.send(Event::Token {
                index: id.index,
                id: token,
            });
        }
        charge
    }

    /// Announces the end of a sequence. The permit goes back before the request's last event, so that a caller who
    /// hears the end can start anew at once.
    pub(super) fn finish(&mut self, id: SequenceId, reason: FinishReason, usage: Usage) {
        self.settle(id, usage);
        let event = Event::Finished {
            index: id.index,
            reason,
            usage,
        };
        let live = self.0.get_mut(&id.request).expect(OUTLIVED);
        live.open -= 1;
        if live.open > 0 {
            let _ = live.events.send(event);
        } else if let Some(Live {
            permit,
            events,
            place,
            ..
        }) = self.0.remove(&id.request)
        {
            drop((permit, place));
            let _ = events.send(event);
        }
    }

    /// Tells the permit what a sequence has used.
    pub(super) fn settle(&self, id: SequenceId, usage: Usage) {
        let live = self.0.get(&id.request).expect(OUTLIVED);
        live.permit.settle(TokensUsed {
            prompt: usage.prompt_tokens,
            cached: usage.cached_tokens,
            completion: usage.completion_tokens,
        });
    }

    /// Fails all that are left.
    pub(super) fn fail(&mut self, error: &EngineError) {
        for (
            _,
            Live {
                permit,
                events,
                place,
                ..
            },
        ) in self.0.drain()
        {
            drop((permit, place));
            let _ = events.send(Event::Failed(error.clone()));
        }
    }
}

/// Spreads consecutive numbers: a multiplication, since nobody chooses request numbers.
#[derive(Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

const OUTLIVED: &str = "a sequence's request outlives it. This is a bug.";
