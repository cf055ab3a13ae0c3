//! Probes: is the process alive, does it take requests; and which version it is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::engine::Status;

use super::app::Shared;

/// `/livez`: whoever can answer is alive.
pub(super) async fn live() -> Response {
    probe(StatusCode::OK, "alive")
}

/// `/readyz`, and `/health` for clients that know it from other servers: whether a request would be taken now.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match shared.app.engine.status() {
        // Nobody could come in. Who the issuers are is for the log, not for whoever asks.
        Status::Ready if !shared.app.gate.unready().is_empty() => {
            probe(StatusCode::SERVICE_UNAVAILABLE, "no issuer keys yet")
        }
        Status::Ready => probe(StatusCode::OK, "ready"),
        Status::Draining => probe(StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Status::Failed => probe(StatusCode::SERVICE_UNAVAILABLE, "failed"),
    }
}

/// `/version`.
pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

fn probe(status: StatusCode, word: &str) -> Response {
    (
        status,
        [(CACHE_CONTROL, "no-store")],
        Json(json!({"status": word})),
    )
        .into_response()
}
