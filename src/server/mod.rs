//! HTTP and wire formats. Knows no tensors and no keys.
//!
//! Read in this order: the table below, [`front`] (what every request passes before any handler sees it),
//! [`body`], [`chat`] (wire → prompt → engine), [`stream`] (events → bytes). [`listener`] accepts connections
//! and ends them.

mod admin;
mod app;
mod body;
mod chat;
mod error;
mod front;
mod health;
mod in_flight;
mod listener;
mod metrics;
mod models;
mod peer;
mod request_id;
mod stream;
#[cfg(test)]
mod tests;
mod usage;
mod value;

use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};

use crate::auth::{Access, Denied, Identity};

pub use app::{App, ModelCard, SamplingDefaults, ServerConfig};
pub use chat::{Handling, MESSAGE_FIELDS, REQUEST_FIELDS, WireField};
pub use error::ApiError;
pub use listener::{Server, ServerError};

use app::Shared;

/// One row of the route table: what is served, and what it asks of its caller.
#[derive(Clone, Copy)]
pub struct Route {
    /// `GET` (which answers HEAD too), `POST` or `DELETE`.
    pub method: &'static str,
    /// Path as axum writes it; `{*id}` is the rest of the path, slashes included.
    pub path: &'static str,
    /// Checked before the handler runs and before a byte of the body is read.
    pub access: Access,
    handler: fn() -> MethodRouter<Arc<Shared>>,
}

/// The route table: all that this server answers. Whatever is not in it asks for a verified identity, then says 404
/// or 405.
pub fn routes() -> &'static [Route] {
    &ROUTES
}

static ROUTES: [Route; 15] = [
    Route {
        method: "GET",
        path: "/livez",
        access: Access::Public,
        handler: || get(health::live),
    },
    Route {
        method: "GET",
        path: "/readyz",
        access: Access::Public,
        handler: || get(health::ready),
    },
    Route {
        method: "GET",
        path: "/health",
        access: Access::Public,
        handler: || get(health::ready),
    },
    Route {
        method: "POST",
        path: "/v1/chat/completions",
        access: Access::Scope("chat"),
        handler: || post(chat::complete),
    },
    Route {
        method: "GET",
        path: "/v1/models",
        access: Access::Scope("models"),
        handler: || get(models::list),
    },
    // A catch-all, because names such as `org/model` reach us both with a raw and with an encoded slash.
    Route {
        method: "GET",
        path: "/v1/models/{*id}",
        access: Access::Scope("models"),
        handler: || get(models::one),
    },
    Route {
        method: "GET",
        path: "/v1/organization/usage/completions",
        access: Access::Scope("usage"),
        handler: || get(usage::completions),
    },
    Route {
        method: "GET",
        path: "/version",
        access: Access::Verified,
        handler: || get(health::version),
    },
    Route {
        method: "GET",
        path: "/metrics",
        access: Access::Scope("metrics"),
        handler: || get(metrics::expose),
    },
    Route {
        method: "GET",
        path: "/admin/revocations",
        access: ADMIN,
        handler: || get(admin::revocations::list),
    },
    Route {
        method: "POST",
        path: "/admin/revocations",
        access: ADMIN,
        handler: || post(admin::revocations::create),
    },
    Route {
        method: "DELETE",
        path: "/admin/revocations/{id}",
        access: ADMIN,
        handler: || delete(admin::revocations::delete),
    },
    Route {
        method: "GET",
        path: "/admin/keys",
        access: ADMIN,
        handler: || get(admin::keys::list),
    },
    Route {
        method: "POST",
        path: "/admin/keys",
        access: ADMIN,
        handler: || post(admin::keys::create),
    },
    Route {
        method: "DELETE",
        path: "/admin/keys/{id}",
        access: ADMIN,
        handler: || delete(admin::keys::revoke),
    },
];

/// What only those may do who take rights from others, and give them.
const ADMIN: Access = Access::Scope("admin");

/// Whether a request may pass without an identity. Compared byte for byte: what is not literally in the table is
/// protected.
fn is_public(method: &Method, path: &str) -> bool {
    ROUTES.iter().any(|row| {
        row.access == Access::Public
            && row.path == path
            && (method.as_str() == row.method || (row.method == "GET" && method == Method::HEAD))
    })
}

/// The table as an axum router. [`front::answer`] stands before it and has verified the caller by then.
fn router(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new();
    for row in &ROUTES {
        let guarded = (row.handler)().route_layer(from_fn_with_state((shared.clone(), row), guard));
        router = router.route(row.path, guarded);
    }
    router
        .fallback(unknown_url)
        .method_not_allowed_fallback(wrong_method)
        .with_state(shared.clone())
}

/// Counts what the gate refused; the operator's log has the true reason, the caller's answer has not.
fn refused(shared: &Shared, denied: Denied) -> ApiError {
    shared.metrics.denied(denied.code());
    tracing::debug!(
        code = denied.code(),
        detail = denied.detail(),
        "the gate refused a request"
    );
    denied.into()
}

/// Names the row in the response, for metrics and logs. Absent where no row answered.
#[derive(Clone, Copy)]
struct Answered(&'static str);

/// Asks the gate whether the caller may use this row.
async fn guard(
    State((shared, row)): State<(Arc<Shared>, &'static Route)>,
    request: Request,
    next: Next,
) -> Response {
    let allowed = match (row.access, request.extensions().get::<Arc<Identity>>()) {
        (Access::Public, _) => Ok(()),
        (access, Some(identity)) => shared
            .app
            .gate
            .authorise(identity, access)
            .map_err(|denied| refused(&shared, denied)),
        // The front lets nobody without an identity through to a protected row; refuse all the same.
        (_, None) => Err(ApiError::internal()),
    };
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    response.extensions_mut().insert(Answered(row.path));
    response
}

async fn unknown_url(method: Method, OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::unknown_url(&method, uri.path())
}

/// axum adds the `Allow` header.
async fn wrong_method(method: Method, OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::wrong_method(&method, uri.path())
}
