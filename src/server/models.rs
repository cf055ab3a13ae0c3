//! `/v1/models`: the one model that is served, to those who may name it.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::app::{ModelCard, Shared};
use super::{ApiError, chat, refused};
use crate::auth::Rights;

/// `GET /v1/models`
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    rights: Option<Extension<Arc<Rights>>>,
) -> Json<Value> {
    // Where the row is open, nobody has rights, and no policy keeps anything from anybody.
    let rights = rights.map(|Extension(rights)| rights).unwrap_or_default();
    let model = &shared.app.model;
    let allowed = rights.allows_model(&model.id);
    let data: Vec<Value> = allowed
        .then(|| describe(model, &rights))
        .into_iter()
        .collect();
    Json(json!({"object": "list", "data": data}))
}

/// `GET /v1/models/{id}`
pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    Extension(rights): Extension<Arc<Rights>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    // A path that does not decode to text names no model.
    let id = id.map(|Path(id)| id).unwrap_or_default();
    let model = &shared.app.model;
    rights
        .check_model(&id)
        .map_err(|denied| refused(&shared, denied))?;
    if id == model.id {
        Ok(Json(describe(model, &rights)))
    } else {
        Err(ApiError::model_not_found(&id))
    }
}

/// OpenAI's four keys, and the three that benchmark clients read from other servers.
fn describe(model: &ModelCard, rights: &Rights) -> Value {
    json!({
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "root": model.id,
        "parent": null,
        "max_model_len": chat::context(model, rights),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::SamplingDefaults;

    #[test]
    fn a_model_has_the_keys_that_clients_index() {
        let card = ModelCard {
            id: "seedling".to_owned(),
            created: 7,
            owned_by: "mixgate".to_owned(),
            max_model_len: 512,
            vocab_size: 100,
            sampling: SamplingDefaults::default(),
        };
        let keys: Vec<String> = describe(&card, &Rights::default())
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(
            keys,
            [
                "id",
                "object",
                "created",
                "owned_by",
                "root",
                "parent",
                "max_model_len"
            ]
        );
        assert_eq!(describe(&card, &Rights::default())["root"], "seedling");
    }
}
