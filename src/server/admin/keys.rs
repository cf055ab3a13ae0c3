//! `/admin/keys`: API keys, made and revoked. A key itself is told once, when it is made.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::{LASTS, answer, lasts, members, text, with_ledger};
use crate::auth::{ApiKeyError, Identity, NewApiKey, api_key_state, is_api_key_id};
use crate::ledger::ApiKeyRecord;
use crate::server::ApiError;
use crate::server::app::Shared;
use crate::server::body::JsonBody;

/// `GET /admin/keys`
pub(in crate::server) async fn list(
    State(shared): State<Arc<Shared>>,
) -> Result<Response, ApiError> {
    let now = shared.app.clock.unix_seconds();
    let records = with_ledger(&shared, false, |ledger| ledger.api_keys()).await?;
    let data: Vec<Value> = records.iter().map(|key| describe(key, now)).collect();
    Ok(answer(json!({"object": "list", "data": data})))
}

/// `POST /admin/keys`
pub(in crate::server) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Arc<Identity>>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let members = members(&body, &["sub", "tenant", "scope", "note", LASTS])?;
    let owned = |name| Ok::<_, ApiError>(text(members, name)?.map(str::to_owned));
    let now = shared.app.clock.unix_seconds();
    let new = NewApiKey {
        subject: owned("sub")?.ok_or_else(|| ApiError::missing("sub"))?,
        tenant: owned("tenant")?,
        scopes: owned("scope")?.unwrap_or_default(),
        expires: lasts(members)?.map(|lasts| now + lasts.as_secs()),
        note: owned("note")?,
    };
    let (key, record) = new.make(now).map_err(|error| wrong(&error))?;
    let mut described = describe(&record, now);
    let stored = record.clone();
    with_ledger(&shared, true, move |ledger| ledger.put_api_key(&stored)).await?;
    tracing::info!(
        by = shared.config.audit_subjects.of(&caller),
        id = record.id,
        scopes = record.scopes,
        "an API key is made"
    );
    described["key"] = key.expose().as_str().into();
    Ok(answer(described))
}

/// `DELETE /admin/keys/{id}`
pub(in crate::server) async fn revoke(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Arc<Identity>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let id = id.map(|Path(id)| id).unwrap_or_default();
    let wanted = id.clone();
    let now = shared.app.clock.unix_seconds();
    let revoked = with_ledger(&shared, true, move |ledger| {
        let known = ledger.api_keys()?.into_iter().find(|key| key.id == wanted);
        let Some(mut key) = known else {
            return Ok(None);
        };
        // The first time is when it happened.
        if key.revoked.is_none() {
            key.revoked = Some(now);
            ledger.put_api_key(&key)?;
        }
        Ok(Some(key))
    });
    let Some(key) = revoked.await? else {
        // Who sends a whole key by mistake shall not find it in an answer.
        let shown = if is_api_key_id(&id) { &id } else { "…" };
        return Err(ApiError::no_such("API key", shown));
    };
    let by = shared.config.audit_subjects.of(&caller);
    tracing::info!(by, id, "an API key is revoked");
    Ok(answer(describe(&key, now)))
}

fn wrong(error: &ApiKeyError) -> ApiError {
    const NOT_PLAIN: &str = "must have 1 to 256 bytes and no control characters";
    match error {
        ApiKeyError::NotPlain { field: "subject" } => ApiError::invalid_value("sub", NOT_PLAIN),
        ApiKeyError::NotPlain { field } => ApiError::invalid_value(field, NOT_PLAIN),
        ApiKeyError::Scopes { limit } => ApiError::invalid_value(
            "scope",
            format!("must be at most {limit} scopes of 1 to 256 bytes, separated by spaces"),
        ),
        ApiKeyError::Expired { .. } => ApiError::invalid_value(LASTS, "must be at least 1"),
        ApiKeyError::NoRandomness => ApiError::internal(),
    }
}

/// Everything but the hash, which is nobody's business.
fn describe(key: &ApiKeyRecord, now: u64) -> Value {
    json!({
        "object": "api_key",
        "id": key.id,
        "sub": key.subject,
        "tenant": key.tenant,
        "scope": key.scopes,
        "note": key.note,
        "created": key.created,
        "expires": key.expires,
        "revoked": key.revoked,
        "last_used": key.last_used,
        "state": api_key_state(key, now),
    })
}
