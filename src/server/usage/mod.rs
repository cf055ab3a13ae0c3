//! `GET /v1/organization/usage/completions`: sums of the ledger in OpenAI's shape. A subject sees its own, the scope
//! `admin` all. A tenant is what OpenAI calls a project, a subject what it calls a user.

mod page;
mod params;

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use serde_json::Value;

use crate::auth::{Identity, Rights};
use crate::ledger::{Ledger, UsageQuery, UsageRow};

use super::ApiError;
use super::app::Shared;
use params::Params;

/// The handler.
pub(super) async fn completions(
    State(shared): State<Arc<Shared>>,
    Extension(identity): Extension<Arc<Identity>>,
    Extension(rights): Extension<Arc<Rights>>,
    given: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(given) =
        given.map_err(|_| ApiError::invalid_value("query", "must be URL-encoded UTF-8"))?;
    let params = Params::parse(&given, shared.app.clock.unix_seconds())?;
    let mut query = params.query();
    query.most = Some(MOST_ROWS + 1);
    if !rights.has_scope(&identity, ADMIN) {
        query.whose = Some((identity.issuer().to_owned(), identity.subject().to_owned()));
    }
    // No request is a batch's: there is nothing to look for.
    let rows = match params.batch {
        Some(true) => Vec::new(),
        Some(false) | None => add_up(&shared, query).await?,
    };
    if rows.len() > MOST_ROWS {
        let must = format!("must be smaller here: a page has at most {MOST_ROWS} results");
        return Err(ApiError::invalid_value("limit", must));
    }
    Ok(Json(page::page(&params, &rows)))
}

/// Reads off the threads that serve connections, and only so many at a time.
async fn add_up(shared: &Shared, query: UsageQuery) -> Result<Vec<UsageRow>, ApiError> {
    // The semaphore is never closed. The permit goes along, so that a client who leaves does not make room for a
    // second one while the work still runs.
    let turn = shared.adding_up.clone().acquire_owned().await;
    let ledger: Ledger = shared.app.ledger.clone();
    let work = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        ledger.usage(&query)
    });
    match work.await {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) => {
            tracing::error!(%error, "usage cannot be read");
            Err(ApiError::ledger_unavailable())
        }
        Err(_panicked) => Err(ApiError::internal()),
    }
}

/// Who has it sees everybody's usage.
const ADMIN: &str = "admin";
/// Results of one page: some 20 MB of JSON.
const MOST_ROWS: usize = 50_000;

#[cfg(test)]
mod tests;
