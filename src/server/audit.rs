//! One structured line for each decision about a request, on the log target `mixgate::audit`.
//!
//! It says who asked for what from where and why it was let in or not: never a credential, a query, a body. Of a token
//! whose signature is not good it says only at which step it failed. Denials that anybody can cause are written so many
//! in a second; the rest are counted.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::Method;
use axum::response::Response;

use crate::auth::{Denied, Identity, Reason, Rights};
use crate::clock::Uptime;

use super::app::Shared;
use super::request_id::Arrival;

/// How logs name a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SubjectNames {
    /// By a hash of issuer and subject: the same for each request of one subject, of no use elsewhere.
    #[default]
    Hash,
    /// As the token has it.
    Clear,
}

impl SubjectNames {
    /// The subject of `identity`, for a log line.
    pub(super) fn of(self, identity: &Identity) -> String {
        match self {
            Self::Hash => format!("{:?}", identity.subject_key()),
            Self::Clear => escaped(identity.subject()).into_owned(),
        }
    }
}

/// What is known of a request so far. The line is written when this is dropped, so that a client that leaves before it
/// has an answer leaves a line too.
pub(super) struct Entry<'a> {
    shared: &'a Shared,
    request_id: Arc<str>,
    method: &'static str,
    route: &'static str,
    address: IpAddr,
    caller: Option<(Arc<Identity>, Arc<Rights>)>,
    denied: Option<Arc<Denied>>,
}

impl<'a> Entry<'a> {
    /// A request for the row `route` of the route table.
    pub(super) fn new(
        shared: &'a Shared,
        arrival: &Arrival,
        method: &'static str,
        route: &'static str,
        address: IpAddr,
    ) -> Self {
        Self {
            shared,
            request_id: arrival.id.clone(),
            method,
            route,
            address,
            caller: None,
            denied: None,
        }
    }

    /// The gate knows who asks.
    pub(super) fn known(&mut self, identity: &Arc<Identity>, rights: &Arc<Rights>) {
        self.caller = Some((identity.clone(), rights.clone()));
    }

    /// What came of it.
    pub(super) fn answered(&mut self, response: &Response) {
        self.denied = response.extensions().get::<Arc<Denied>>().cloned();
    }

    /// Whether somebody was refused, so that this line is the only one about the request.
    pub(super) fn is_denial(&self) -> bool {
        self.denied.is_some()
    }

    fn write(&self) {
        let shared = self.shared;
        let identity = self.caller.as_ref().map(|(identity, _)| &**identity);
        // Nobody was judged: a public row.
        if identity.is_none() && self.denied.is_none() {
            return shared.throttles.report();
        }
        let throttle = match identity {
            Some(_) => &shared.throttles.known,
            None => &shared.throttles.unknown,
        };
        if let Some(denied) = &self.denied {
            let many = matches!(denied.reason(), Reason::TooManyFailures { .. });
            if !throttle.takes(!many) {
                return;
            }
        }
        shared.throttles.report();

        let subject = identity.map(|identity| shared.config.audit_subjects.of(identity));
        let issuer = identity.map(|identity| escaped(identity.issuer()));
        let key_id = identity.and_then(Identity::key_id).map(escaped);
        let credential = identity.map(|identity| identity.credential().word());
        let rule = self.caller.as_ref().and_then(|(_, rights)| rules(rights));
        let (subject, issuer) = (subject.as_deref(), issuer.as_deref());
        let (key_id, rule) = (key_id.as_deref(), rule.as_deref().map(escaped));
        let (rule, request_id) = (rule.as_deref(), &*self.request_id);
        let (method, route, address) = (self.method, self.route, self.address);
        match &self.denied {
            None => tracing::info!(
                target: "mixgate::audit",
                decision = "allow",
                request_id,
                method,
                route,
                %address,
                issuer,
                subject,
                credential,
                key_id,
                rule,
                "allowed"
            ),
            Some(denied) => tracing::info!(
                target: "mixgate::audit",
                decision = "deny",
                reason = denied.code(),
                step = denied.step(),
                detail = detail(denied).as_deref(),
                request_id,
                method,
                route,
                %address,
                issuer,
                subject,
                credential,
                key_id,
                rule,
                "denied"
            ),
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.write();
    }
}

/// The rules of the policy that matched, from top to bottom. Their names are plain.
fn rules(rights: &Rights) -> Option<String> {
    (!rights.rules.is_empty()).then(|| rights.rules.join(", "))
}

/// What really happened, unless it could quote a credential that nobody has vouched for.
fn detail(denied: &Denied) -> Option<String> {
    match denied.reason() {
        Reason::InvalidToken | Reason::InvalidApiKey | Reason::TooManyFailures { .. } => None,
        _ => Some(
            escaped(denied.detail())
                .chars()
                .take(DETAIL_CHARS)
                .collect(),
        ),
    }
}

/// Without control characters: none can end a line or begin another.
fn escaped(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.escape_debug().to_string().into()
    } else {
        text.into()
    }
}

/// Which denials are written.
pub(super) struct Throttles {
    /// Of callers that anybody can be.
    unknown: Throttle,
    /// Of callers that the gate knows: a flood of the others must not drown them.
    known: Throttle,
}

impl Throttles {
    pub(super) fn new(per_second: u32, uptime: &Uptime) -> Self {
        let throttle = || Throttle::new(per_second, uptime.clone());
        Self {
            unknown: throttle(),
            known: throttle(),
        }
    }

    /// Says how many lines were left out, once their second is over.
    fn report(&self) {
        for throttle in [&self.unknown, &self.known] {
            let suppressed = throttle.left_out();
            if suppressed > 0 {
                tracing::info!(
                    target: "mixgate::audit",
                    decision = "deny",
                    suppressed,
                    "more were denied than lines are written"
                );
            }
        }
    }
}

impl Drop for Throttles {
    fn drop(&mut self) {
        for throttle in [&self.unknown, &self.known] {
            throttle.end();
        }
        self.report();
    }
}

/// So many lines in each second.
struct Throttle {
    per_second: u32,
    uptime: Uptime,
    window: Mutex<Window>,
}

/// The second in which the last line was asked for.
#[derive(Default)]
struct Window {
    second: u64,
    written: u32,
    /// Left out in this second.
    suppressed: u64,
    /// Left out before, and not yet reported.
    over: u64,
}

impl Throttle {
    fn new(per_second: u32, uptime: Uptime) -> Self {
        Self {
            per_second,
            uptime,
            window: Mutex::default(),
        }
    }

    /// Whether a line may be written now; one that is not `wanted` is only counted.
    fn takes(&self, wanted: bool) -> bool {
        let mut window = self.window();
        if wanted && window.written < self.per_second {
            window.written += 1;
            true
        } else {
            window.suppressed += 1;
            false
        }
    }

    /// Lines left out in seconds that are over; counts them as reported.
    fn left_out(&self) -> u64 {
        std::mem::take(&mut self.window().over)
    }

    fn end(&self) {
        let mut window = self.window();
        window.over += std::mem::take(&mut window.suppressed);
    }

    /// The present second's.
    fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        let second = self.uptime.now().as_secs();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.second != second {
            *window = Window {
                second,
                over: window.over + window.suppressed,
                ..Window::default()
            };
        }
        window
    }
}

/// Enough for names of audiences and scopes.
const DETAIL_CHARS: usize = 400;

/// Callers invent methods; labels must stay few.
pub(super) fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn so_many_lines_in_a_second_and_the_rest_is_counted() {
        let (uptime, hand) = Uptime::manual();
        let throttle = Throttle::new(2, uptime);
        let taken: Vec<bool> = (0..5).map(|_| throttle.takes(true)).collect();
        assert_eq!(taken, [true, true, false, false, false]);
        assert_eq!(throttle.left_out(), 0, "its second is not over");
        hand.advance(Duration::from_secs(1));
        assert_eq!(throttle.left_out(), 3);
        assert_eq!(throttle.left_out(), 0, "told once");
        assert!(throttle.takes(true));
        assert!(!throttle.takes(false), "one that nobody wants is counted");
        throttle.end();
        assert_eq!(throttle.left_out(), 1);
    }

    #[test]
    fn a_subject_is_a_hash_unless_asked_for() {
        let ann = Identity::for_tests("ann@example.com");
        let name = SubjectNames::Hash.of(&ann);
        assert!(
            name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{name}"
        );
        assert_eq!(
            name,
            SubjectNames::Hash.of(&Identity::for_tests("ann@example.com"))
        );
        assert_ne!(
            name,
            SubjectNames::Hash.of(&Identity::for_tests("bob@example.com"))
        );
        assert_eq!(SubjectNames::Clear.of(&ann), "ann@example.com");
    }

    #[test]
    fn nothing_can_begin_a_second_line() {
        assert_eq!(escaped("plain ü"), "plain ü");
        assert_eq!(escaped("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
    }
}
