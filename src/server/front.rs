//! What every request passes before the router sees it: a name, its address, the gate, and at the end a count and a
//! log line.
//!
//! This wraps the finished router, not its routes, so that unknown paths and wrong methods ask for a token too.
//! Nothing here looks at the body.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tower::ServiceExt;

use crate::auth::{Access, Caller, Identity, Rights};

use super::app::Shared;
use super::audit::method_label;
use super::cors::Cors;
use super::peer::{Door, Peer};
use super::request_id::{Arrival, X_REQUEST_ID};
use super::{
    Answered, ApiError, Opened, Route, audit, body, identity_headers, literal_row, metadata,
    refused, row_of,
};

/// Answers one request, come what may.
pub(super) async fn answer(
    shared: &Shared,
    router: Router,
    peer: Peer,
    request: Request<Body>,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let arrival = Arrival::new(&parts.headers);
    let method = method_label(&parts.method);
    let row = row_of(parts.uri.path());
    parts.extensions.insert(arrival.clone());
    let peer = peer.of_request(&parts.headers, &shared.config.trusted_proxies);
    let mut audit = audit::Entry::new(shared, &arrival, method, row, peer.address);
    parts.extensions.insert(peer.clone());
    identity_headers::strip(&mut parts.headers);
    let cors = match peer.door {
        Door::Public => Cors::of(&parts.headers, &shared.config.cors_origins),
        // Its port is for programs.
        Door::Internal => Cors::of(&parts.headers, &[]),
    };

    let (subject, mut response) = match identify(shared, cors, &peer, &parts).await {
        Err(refusal) => {
            body::throw_away(shared, &parts.headers, body);
            (None, refusal)
        }
        Ok(entrant) => {
            let identity = match entrant {
                Entrant::Known(identity, rights) => {
                    audit.known(&identity, &rights);
                    parts.extensions.insert(identity.clone());
                    parts.extensions.insert(rights);
                    Some(identity)
                }
                Entrant::Anybody(row) => {
                    parts.extensions.insert(Opened(row));
                    None
                }
            };
            let request = Request::from_parts(parts, body);
            (identity, route(router, request).await)
        }
    };
    audit.answered(&response);

    metadata::point_to(shared, response.headers_mut());
    cors.mark(response.headers_mut());
    if let Ok(id) = HeaderValue::from_str(&arrival.id) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    let handler = response
        .extensions()
        .get::<Answered>()
        .map_or("none", |answered| answered.0);
    shared
        .metrics
        .answered(handler, method, response.status().as_u16());
    if !arrival.log_line_taken() && !audit.is_denial() {
        let subject = subject.map(|identity| shared.config.audit_subjects.of(&identity));
        log(&arrival, handler, method, subject.as_deref(), &response);
    }
    response
}

/// Who was let in.
enum Entrant {
    /// Somebody with a good credential, and what they may do.
    Known(Arc<Identity>, Arc<Rights>),
    /// Whoever asks for this row.
    Anybody(&'static Route),
}

/// Who asks, and what they may do; or the answer to somebody who comes no further.
async fn identify(
    shared: &Shared,
    cors: Cors<'_>,
    peer: &Peer,
    request: &Parts,
) -> Result<Entrant, Response> {
    if let Some(answer) = cors.preflight(request) {
        return Err(answer);
    }
    let config = &shared.config;
    if let Some(row) = config.open.row(peer, request, &config.trusted_proxies)
        && metadata::applies(shared, request)
    {
        return Ok(Entrant::Anybody(row));
    }
    let gate = &shared.app.gate;
    let caller = Caller {
        headers: &request.headers,
        address: peer.address,
        certificate: peer.certificate.as_deref(),
    };
    let known = match gate.authenticate(caller).await {
        Ok(identity) => gate
            .rights(&identity, caller.address)
            .map(|rights| Entrant::Known(identity, rights)),
        Err(denied) => Err(shared.failures.judge(peer.address, denied)),
    };
    known.map_err(|denied| refused(shared, denied).into_response())
}

/// A panic in a handler is a bug; its caller still gets an answer and the others do not notice.
async fn route(router: Router, request: Request<Body>) -> Response {
    match AssertUnwindSafe(router.oneshot(request))
        .catch_unwind()
        .await
    {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_panic) => {
            tracing::error!("a request handler panicked; the message is above");
            ApiError::internal().into_response()
        }
    }
}

fn log(arrival: &Arrival, handler: &str, method: &str, subject: Option<&str>, response: &Response) {
    let (request_id, status) = (&*arrival.id, response.status().as_u16());
    let total_ms = arrival.at.elapsed().as_millis() as u64;
    // Probes come every few seconds and say nothing new.
    if literal_row(&Method::GET, handler).is_some_and(|row| row.access == Access::Public) {
        tracing::debug!(
            request_id,
            method,
            handler,
            status,
            total_ms,
            "probe answered"
        );
    } else {
        tracing::info!(
            request_id,
            subject,
            method,
            handler,
            status,
            total_ms,
            "request answered"
        );
    }
}
