//! The caller's end of a running request.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use tokio::sync::mpsc::UnboundedReceiver;

use super::request::Event;
use super::sequence::SequenceId;
use super::shared::{Message, Shared};

/// The events of one request. Dropping it cancels whatever still runs, within one step.
pub struct Generation {
    number: u64,
    /// Sequences that have not said their last.
    open: u32,
    events: UnboundedReceiver<Event>,
    inbox: Sender<Message>,
    shared: Arc<Shared>,
}

impl Generation {
    pub(super) fn new(
        number: u64,
        n: u32,
        events: UnboundedReceiver<Event>,
        inbox: Sender<Message>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            number,
            open: n,
            events,
            inbox,
            shared,
        }
    }

    /// The next event; `None` after the last sequence has finished or the request has failed. Safe to abandon: an event
    /// that was not returned comes next time.
    pub async fn next(&mut self) -> Option<Event> {
        if self.open == 0 {
            return None;
        }
        // A stream that breaks off without its last event was caught between a submission and the engine's end.
        let event = self
            .events
            .recv()
            .await
            .unwrap_or_else(|| Event::Failed(self.shared.engine_error()));
        match event {
            Event::Token { .. } => {}
            Event::Finished { .. } => self.open -= 1,
            Event::Failed(_) => self.open = 0,
        }
        Some(event)
    }

    /// Ends one sequence early (a stop string was found); its [`Event::Finished`] says
    /// [`FinishReason::Stop`](super::FinishReason::Stop). Tokens announced in the meantime may still arrive before it.
    pub fn finish(&self, index: u32) {
        // Without an engine thread there is nothing left to end.
        let _ = self.inbox.send(Message::Finish(SequenceId {
            request: self.number,
            index,
        }));
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.open > 0 {
            // Without an engine thread there is nothing left to cancel.
            let _ = self.inbox.send(Message::Cancel(self.number));
        }
    }
}
