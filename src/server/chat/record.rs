//! What remains of a request when it is over: one log line, its latencies and its row in the ledger. Written on drop, so
//! that a client that vanishes leaves them too. Never text, never a token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::{Credential, Identity};
use crate::engine::{Event, Usage};
use crate::ledger::{OpenRequest, RequestEnd, RequestRecord, Sheet};
use crate::server::ApiError;
use crate::server::app::Shared;
use crate::server::in_flight::InFlightGuard;
use crate::server::request_id::Arrival;

use super::{Asked, Finish};

/// The record of one generation, from the engine's yes to the last byte.
pub(in crate::server) struct Record {
    shared: Option<Arc<Shared>>,
    request_id: Arc<str>,
    subject: String,
    arrived: Instant,
    time_to_first_token: Option<Duration>,
    /// When each sequence had its latest token.
    latest: Vec<Option<Instant>>,
    usage: Usage,
    /// Tokens that each completion could have had.
    max_tokens: usize,
    status: u16,
    finish: &'static str,
    row: Option<OpenRequest>,
    _in_flight: Option<InFlightGuard>,
}

impl Record {
    pub(super) fn begin(
        shared: &Arc<Shared>,
        in_flight: InFlightGuard,
        arrival: &Arrival,
        caller: &Identity,
        asked: &Asked,
        sheet: Arc<Sheet>,
    ) -> Self {
        arrival.take_log_line();
        let row = row(shared, arrival, caller, asked);
        Self {
            shared: Some(shared.clone()),
            request_id: arrival.id.clone(),
            subject: shared.config.audit_subjects.of(caller),
            arrived: arrival.at,
            time_to_first_token: None,
            latest: vec![None; asked.n as usize],
            usage: Usage {
                prompt_tokens: asked.prompt_tokens,
                ..Usage::default()
            },
            max_tokens: asked.max_tokens,
            // What stands here if nobody reports an end: the client has gone.
            status: CLIENT_GONE,
            finish: "client_gone",
            row: Some(shared.app.ledger.begin(row, sheet)),
            _in_flight: Some(in_flight),
        }
    }

    /// A record that nobody reads.
    #[cfg(test)]
    pub(in crate::server) fn for_tests(n: usize) -> Self {
        Self {
            shared: None,
            request_id: "test".into(),
            subject: String::new(),
            arrived: Instant::now(),
            time_to_first_token: None,
            latest: vec![None; n],
            usage: Usage::default(),
            max_tokens: 0,
            status: CLIENT_GONE,
            finish: "",
            row: None,
            _in_flight: None,
        }
    }

    /// Notes the time of a token, and what a sequence had from the cache.
    pub(in crate::server) fn event(&mut self, event: Option<&Event>) {
        let index = match event {
            Some(Event::Token { index, .. }) => index,
            Some(Event::Finished { usage, .. }) => {
                self.usage.cached_tokens += usage.cached_tokens;
                return;
            }
            Some(Event::Failed(_)) | None => return,
        };
        let Some(latest) = self.latest.get_mut(*index as usize) else {
            return;
        };
        let (now, previous) = (Instant::now(), *latest);
        *latest = Some(now);
        self.usage.completion_tokens += 1;
        let Some(shared) = &self.shared else { return };
        if self.time_to_first_token.is_none() {
            let after = now - self.arrived;
            self.time_to_first_token = Some(after);
            shared.metrics.first_token(after);
        }
        if let Some(previous) = previous {
            shared.metrics.next_token(now - previous);
        }
    }

    /// The answer is complete.
    pub(in crate::server) fn done(&mut self, usage: Usage, finish: Option<Finish>) {
        self.usage = usage;
        self.status = 200;
        self.finish = finish.map_or("none", Finish::word);
        if let Some(shared) = &self.shared {
            shared.metrics.finished(self.arrived.elapsed());
        }
    }

    /// The answer is an error.
    pub(in crate::server) fn failed(&mut self, error: &ApiError) {
        self.status = error.status().as_u16();
        self.finish = error.code();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else { return };
        let total_ms = self.arrived.elapsed().as_millis() as u64;
        let ttft_ms = self
            .time_to_first_token
            .map(|after| after.as_millis() as u64);
        if let Some(row) = self.row.take() {
            row.ended(RequestEnd {
                reason: self.finish,
                status: self.status,
                ttft_ms,
                total_ms,
            });
        }
        let n = self.latest.len();
        shared.metrics.request(self.usage, n, self.max_tokens);
        tracing::info!(
            request_id = &*self.request_id,
            subject = self.subject,
            model = shared.app.model.id,
            status = self.status,
            prompt_tokens = self.usage.prompt_tokens,
            cached_tokens = self.usage.cached_tokens,
            completion_tokens = self.usage.completion_tokens,
            ttft_ms,
            total_ms,
            finish = self.finish,
            "request finished"
        );
    }
}

/// What is known of the request now. Its tokens are counted by the engine, on the sheet.
fn row(shared: &Shared, arrival: &Arrival, caller: &Identity, asked: &Asked) -> RequestRecord {
    let started = shared
        .app
        .clock
        .since_epoch()
        .saturating_sub(arrival.at.elapsed());
    let api_key = match caller.credential() {
        Credential::ApiKey => caller.key_id().map(str::to_owned),
        Credential::Token | Credential::Certificate => None,
    };
    RequestRecord {
        id: arrival.id.to_string(),
        issuer: caller.issuer().to_owned(),
        subject: caller.subject().to_owned(),
        tenant: caller.tenant().map(str::to_owned),
        client: caller.client().map(str::to_owned),
        credential: caller.credential().word(),
        api_key,
        model: shared.app.model.id.clone(),
        prompt: asked.prompt_tokens as u64,
        started_ms: started.as_millis() as u64,
    }
}

/// nginx's word for a request whose client did not wait; never sent.
const CLIENT_GONE: u16 = 499;
