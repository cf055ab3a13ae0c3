//! A place in the queue for a request that is still being made.

use tokio::sync::mpsc::unbounded_channel;

use super::Engine;
use super::generation::Generation;
use super::request::{Request, SubmitError};
use super::sequence::{Arrival, Standing};
use super::shared::{Message, Place, Submission};
use crate::auth::Permit;

/// A place in the queue. Dropping it gives the place back.
pub struct Reservation {
    engine: Engine,
    permit: Permit,
    place: Place,
    n: u32,
}

impl Reservation {
    pub(super) fn new(engine: Engine, permit: Permit, place: Place, n: u32) -> Self {
        Self {
            engine,
            permit,
            place,
            n,
        }
    }

    /// Who reserved it.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Hands the request to the engine thread. It is not refused for being larger than was reserved.
    ///
    /// # Errors
    /// [`SubmitError::TooLong`], or that the engine has stopped meanwhile.
    ///
    /// # Panics
    /// If the prompt is empty or `n` is 0 or not what was reserved, which the contract rules out.
    pub fn submit(mut self, request: Request) -> Result<Generation, SubmitError> {
        assert!(
            !request.prompt.is_empty() && request.n > 0 && request.n == self.n,
            "a request has a prompt, n ≥ 1 and the n that was reserved. This is a bug."
        );
        let engine = &self.engine;
        engine.accepts()?;
        let completion = request.until.max_tokens.max(1);
        let needed = request.prompt.len().saturating_add(completion);
        let limit = engine.max_model_len;
        if needed > limit {
            return Err(SubmitError::TooLong { needed, limit });
        }
        self.place.correct(request.most_tokens());
        let (number, n) = (engine.shared.next_request(), self.n);
        let (identity, share) = (self.permit.identity(), self.permit.share());
        let standing = Standing {
            subject: identity.subject_key(),
            tenant: identity.tenant_key(),
            weight: share.weight,
            priority: share.priority,
            arrived: self.place.arrived(),
        };
        // Keyed by the operating system's randomness, so unseeded requests get streams that nobody can foresee.
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), number);
        let public: &[_] = match self.permit.rights().public_prefixes {
            true => &engine.public_prefixes,
            false => &[],
        };
        let arrival = Arrival::new(number, request, standing, engine.block_size, public, seed);
        let (sender, events) = unbounded_channel();
        let submission = Submission {
            permit: self.permit,
            arrival,
            place: self.place,
            events: sender,
        };
        engine.shared.arriving(n as usize);
        if let Err(unsent) = engine.inbox.send(Message::Submit(Box::new(submission))) {
            drop(unsent);
            engine.shared.arrived(n as usize);
            // The thread has stopped since the question above, so its answer is another one by now.
            engine.accepts()?;
            return Err(SubmitError::Failed);
        }
        Ok(Generation::new(
            number,
            n,
            events,
            engine.inbox.clone(),
            engine.shared.clone(),
        ))
    }
}
