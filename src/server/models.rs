//! `/v1/models`: the one model that is served.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::ApiError;
use super::app::{ModelCard, Shared};

/// `GET /v1/models`
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [describe(&shared.app.model)]}))
}

/// `GET /v1/models/{id}`
pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    // A path that does not decode to text names no model.
    let id = id.map(|Path(id)| id).unwrap_or_default();
    let model = &shared.app.model;
    if id == model.id {
        Ok(Json(describe(model)))
    } else {
        Err(ApiError::model_not_found(&id))
    }
}

/// OpenAI's four keys, and the three that benchmark clients read from other servers.
fn describe(model: &ModelCard) -> Value {
    json!({
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "root": model.id,
        "parent": null,
        "max_model_len": model.max_model_len,
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
        let keys: Vec<String> = describe(&card)
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
        assert_eq!(describe(&card)["root"], "seedling");
    }
}
