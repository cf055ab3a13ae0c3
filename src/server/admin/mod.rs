//! What an operator may do from afar: take rights away and give them back, make API keys. All of it needs the scope
//! `admin`, is written to the ledger and is in force when the answer goes out.

pub(super) mod keys;
pub(super) mod revocations;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::ApiError;
use super::app::Shared;
use super::value::{Field, Object, kind_of};
use crate::ledger::{Ledger, LedgerError};

/// Does something with the ledger, off the threads that serve connections, since it waits for the disk. `changes`: what
/// the ledger says then is put in force before this returns.
async fn with_ledger<T: Send + 'static>(
    shared: &Arc<Shared>,
    changes: bool,
    work: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, ApiError> {
    let shared = shared.clone();
    let done = tokio::task::spawn_blocking(move || {
        let app = &shared.app;
        let done = work(&app.ledger)?;
        if changes {
            app.gate.reload(&app.ledger)?;
        }
        Ok(done)
    });
    match done.await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            let error: LedgerError = error;
            tracing::error!(%error, "the ledger failed an administrator");
            Err(ApiError::ledger_failed())
        }
        Err(_panicked) => Err(ApiError::internal()),
    }
}

/// The members of a body that may have these and no others.
fn members<'a>(body: &'a Value, known: &[&str]) -> Result<&'a Object, ApiError> {
    let Value::Object(members) = body else {
        return Err(ApiError::not_an_object(kind_of(body)));
    };
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(ApiError::unknown_field(unknown, nearest(unknown, known))),
        None => Ok(members),
    }
}

fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // Comparing costs time that grows with the length.
    let short = known.iter().filter(|_| name.len() <= 64);
    let distance = |known: &&'a str| (strsim::damerau_levenshtein(name, known), *known);
    let (distance, known) = short.map(distance).min()?;
    (distance <= 2).then_some(known)
}

fn text<'a>(members: &'a Object, name: &str) -> Result<Option<&'a str>, ApiError> {
    Field::of(members, "", name)
        .map(|field| field.text())
        .transpose()
}

/// How long something is to last. At most a century: nobody plans further.
fn lasts(members: &Object) -> Result<Option<Duration>, ApiError> {
    let Some(field) = Field::of(members, "", LASTS) else {
        return Ok(None);
    };
    let seconds = field.whole(1..=100 * 366 * 24 * 3600)?;
    Ok(Some(Duration::from_secs(seconds.unsigned_abs())))
}

/// What no cache may keep.
fn answer(value: Value) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(value)).into_response()
}

const LASTS: &str = "expires_in_seconds";
