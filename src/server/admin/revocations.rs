//! `/admin/revocations`: rights that were taken away.

use std::fmt::Write;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::{LASTS, answer, lasts, members, text, with_ledger};
use crate::auth::{
    Identity, IdentityKey, REVOCABLE, RevocationError, revocation, revoked_name, revoked_words,
};
use crate::ledger::{RevocationRecord, RevokedName};
use crate::server::ApiError;
use crate::server::app::Shared;
use crate::server::body::JsonBody;

/// `GET /admin/revocations`
pub(in crate::server) async fn list(
    State(shared): State<Arc<Shared>>,
) -> Result<Response, ApiError> {
    let now = shared.app.clock.unix_seconds();
    let records = with_ledger(&shared, false, move |ledger| ledger.revocations(now)).await?;
    let data: Vec<Value> = records.iter().map(describe).collect();
    Ok(answer(json!({"object": "list", "data": data})))
}

/// `POST /admin/revocations`
pub(in crate::server) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Arc<Identity>>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let members = members(&body, &["what", "value", "issuer", LASTS])?;
    let what = text(members, "what")?.ok_or_else(|| ApiError::missing("what"))?;
    if !REVOCABLE.contains(&what) {
        return Err(wrong(&RevocationError::Kind));
    }
    let name = revoked_name(what, text(members, "value")?).map_err(|error| wrong(&error))?;
    let issuer = match text(members, "issuer")? {
        Some(issuer) => issuer.to_owned(),
        None => only_issuer(&shared)?,
    };
    let now = shared.app.clock.unix_seconds();
    let record = revocation(name, &issuer, lasts(members)?, now).map_err(|error| wrong(&error))?;
    let described = describe(&record);
    let (what, id) = (what.to_owned(), id_of(&record.what, &record.issuer));
    with_ledger(&shared, true, move |ledger| ledger.revoke(&record)).await?;
    let by = shared.config.audit_subjects.of(&caller);
    // By its id, under which the list has it: its value may be somebody's name.
    tracing::info!(by, what, id, issuer, "a right is taken away");
    Ok(answer(described))
}

/// `DELETE /admin/revocations/{id}`
pub(in crate::server) async fn delete(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Arc<Identity>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let id = id.map(|Path(id)| id).unwrap_or_default();
    let wanted = id.clone();
    let now = shared.app.clock.unix_seconds();
    let undone = with_ledger(&shared, true, move |ledger| {
        let mut records = ledger.revocations(now)?.into_iter();
        let record = records.find(|record| id_of(&record.what, &record.issuer) == wanted);
        record
            .map(|record| ledger.unrevoke(&record.what, &record.issuer))
            .transpose()
    });
    if undone.await?.is_none() {
        return Err(ApiError::no_such("revocation", &id));
    }
    let by = shared.config.audit_subjects.of(&caller);
    tracing::info!(by, id, "a right is given back");
    Ok(answer(
        json!({"object": "revocation.deleted", "id": id, "deleted": true}),
    ))
}

/// Whom names are meant by if nobody says so, where there is only one possibility.
fn only_issuer(shared: &Shared) -> Result<String, ApiError> {
    match &shared.app.gate.issuers()[..] {
        [only] => Ok(only.issuer.clone()),
        _ => Err(ApiError::missing("issuer")),
    }
}

fn wrong(error: &RevocationError) -> ApiError {
    match error {
        RevocationError::Kind => {
            ApiError::invalid_value("what", "must be token, subject, client, key or issuer")
        }
        RevocationError::NoValue => ApiError::missing("value"),
        RevocationError::ValueOfIssuer => {
            ApiError::invalid_value("value", "must be left out: 'issuer' says which issuer")
        }
        RevocationError::NotPlain { field } => ApiError::invalid_value(field, NOT_PLAIN),
        RevocationError::TooShort => ApiError::invalid_value(LASTS, "must be at least 1"),
    }
}

fn describe(record: &RevocationRecord) -> Value {
    let (what, value) = revoked_words(&record.what);
    json!({
        "object": "revocation",
        "id": id_of(&record.what, &record.issuer),
        "what": what,
        "value": value,
        "issuer": record.issuer,
        "at": record.at,
        "until": record.until,
    })
}

/// Names a revocation in a path, which the name itself, with slashes and all, could not.
fn id_of(what: &RevokedName, issuer: &str) -> String {
    let (kind, value) = revoked_words(what);
    let key = IdentityKey::of(&["revocation", issuer, kind, value.unwrap_or_default()]);
    key.as_bytes()[..16]
        .iter()
        .fold(String::new(), |mut id, byte| {
            let _ = write!(id, "{byte:02x}");
            id
        })
}

const NOT_PLAIN: &str = "must have 1 to 256 bytes and no control characters";
