//! HTTP and wire formats. Knows no tensors and no keys.
//!
//! Read in this order: the table below, [`front`] (what every request passes before any handler sees it),
//! [`body`], [`chat`] (wire → prompt → engine), [`stream`] (events → bytes). [`listener`] accepts connections
//! and ends them.

mod admin;
mod app;
mod audit;
mod body;
mod chat;
mod cors;
mod error;
mod failures;
mod front;
mod health;
mod identity_headers;
mod in_flight;
mod listener;
mod metadata;
mod metrics;
mod models;
mod open;
mod peer;
mod proxies;
mod rate_limits;
mod request_id;
mod stream;
#[cfg(test)]
mod tests;
mod usage;
mod value;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};

use crate::auth::{Access, Denied, Identity, Rights, Vocabulary};

pub use app::{App, ModelCard, SamplingDefaults, ServerConfig};
pub use audit::SubjectNames;
#[doc(hidden)]
pub use chat::fuzz_chat_request;
pub use chat::{Handling, MESSAGE_FIELDS, REQUEST_FIELDS, WireField};
pub use cors::WebOrigin;
pub use error::ApiError;
pub use listener::{
    CertificateSource, Certificates, ClientCertificates, Server, ServerError, TlsConfig, TlsError,
};
pub use metadata::PublicUrl;
pub use open::{OpenError, OpenRoutes};
#[doc(hidden)]
pub use proxies::fuzz_caller;

use app::Shared;
use peer::Door;

/// One row of the route table: what is served, and what it asks of its caller.
#[derive(Clone, Copy)]
pub struct Route {
    /// `GET` (which answers HEAD too), `POST` or `DELETE`.
    pub method: &'static str,
    /// Path as axum writes it; `{*id}` is the rest of the path, slashes included.
    pub path: &'static str,
    /// Checked before the handler runs and before a byte of the body is read.
    pub access: Access,
    /// At which door it is found.
    pub doors: Doors,
    handler: fn() -> MethodRouter<Arc<Shared>>,
}

/// At which of the two doors a row is found, and what that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doors {
    /// At the public one alone.
    Public,
    /// At both. At the internal one it is open, and so at the public one to the addresses that `[public.open]` lists.
    OpenInside,
    /// At the internal one, and at the public one if `admin_on_public` is set. It asks for the same at both.
    Admin,
}

impl Doors {
    fn has(self, door: Door, admin_on_public: bool) -> bool {
        match (self, door) {
            (Self::Public | Self::OpenInside, Door::Public) => true,
            (Self::OpenInside | Self::Admin, Door::Internal) => true,
            (Self::Public, Door::Internal) => false,
            (Self::Admin, Door::Public) => admin_on_public,
        }
    }
}

impl Route {
    /// What a policy calls it: `chat` for `/v1/chat/completions`.
    pub fn name(&self) -> &'static str {
        let path = self.path.trim_start_matches('/');
        let path = path.strip_prefix("v1/").unwrap_or(path);
        path.split('/').next().unwrap_or(path)
    }
}

/// The names that a policy may use, but for the issuers: those are the gate's.
pub fn vocabulary() -> Vocabulary {
    let rows = ROUTES.iter().filter(|row| row.access != Access::Public);
    let routes: BTreeSet<&str> = rows.map(Route::name).collect();
    Vocabulary {
        issuers: Vec::new(),
        routes: routes.into_iter().map(str::to_owned).collect(),
        fields: REQUEST_FIELDS
            .iter()
            .map(|field| field.name.to_owned())
            .collect(),
    }
}

/// The route table: all that this server answers. Whatever is not in it asks for a verified identity, then says 404
/// or 405.
pub fn routes() -> &'static [Route] {
    ROUTES
}

static ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/livez",
        access: Access::Public,
        doors: Doors::OpenInside,
        handler: || get(health::live),
    },
    Route {
        method: "GET",
        path: "/readyz",
        access: Access::Public,
        doors: Doors::OpenInside,
        handler: || get(health::ready),
    },
    Route {
        method: "GET",
        path: "/health",
        access: Access::Public,
        doors: Doors::OpenInside,
        handler: || get(health::ready),
    },
    Route {
        method: "GET",
        path: metadata::RESOURCE_PATH,
        access: Access::Public,
        doors: Doors::Public,
        handler: || get(metadata::protected_resource),
    },
    Route {
        method: "GET",
        path: metadata::JWKS_PATH,
        access: Access::Public,
        doors: Doors::Public,
        handler: || get(metadata::jwks),
    },
    Route {
        method: "POST",
        path: CHAT,
        access: Access::Scope("chat"),
        doors: Doors::Public,
        handler: || post(chat::complete),
    },
    Route {
        method: "GET",
        path: "/v1/models",
        access: Access::Scope("models"),
        doors: Doors::OpenInside,
        handler: || get(models::list),
    },
    // A catch-all, because names such as `org/model` reach us both with a raw and with an encoded slash.
    Route {
        method: "GET",
        path: "/v1/models/{*id}",
        access: Access::Scope("models"),
        doors: Doors::Public,
        handler: || get(models::one),
    },
    Route {
        method: "GET",
        path: "/v1/organization/usage/completions",
        access: Access::Scope("usage"),
        doors: Doors::Public,
        handler: || get(usage::completions),
    },
    Route {
        method: "GET",
        path: "/version",
        access: Access::Verified,
        doors: Doors::OpenInside,
        handler: || get(health::version),
    },
    Route {
        method: "GET",
        path: "/metrics",
        access: Access::Scope("metrics"),
        doors: Doors::OpenInside,
        handler: || get(metrics::expose),
    },
    Route {
        method: "GET",
        path: "/admin/revocations",
        access: ADMIN,
        doors: Doors::Admin,
        handler: || get(admin::revocations::list),
    },
    Route {
        method: "POST",
        path: "/admin/revocations",
        access: ADMIN,
        doors: Doors::Admin,
        handler: || post(admin::revocations::create),
    },
    Route {
        method: "DELETE",
        path: "/admin/revocations/{id}",
        access: ADMIN,
        doors: Doors::Admin,
        handler: || delete(admin::revocations::delete),
    },
    Route {
        method: "GET",
        path: "/admin/keys",
        access: ADMIN,
        doors: Doors::Admin,
        handler: || get(admin::keys::list),
    },
    Route {
        method: "POST",
        path: "/admin/keys",
        access: ADMIN,
        doors: Doors::Admin,
        handler: || post(admin::keys::create),
    },
    Route {
        method: "DELETE",
        path: "/admin/keys/{id}",
        access: ADMIN,
        doors: Doors::Admin,
        handler: || delete(admin::keys::revoke),
    },
];

/// What only those may do who take rights from others, and give them.
const ADMIN: Access = Access::Scope("admin");

const CHAT: &str = "/v1/chat/completions";

/// The row whose path this is, by whatever method; `none` for no row.
fn row_of(path: &str) -> &'static str {
    let fits = |row: &&Route| match row.path.split_once('{') {
        None => row.path == path,
        Some((start, _)) => path.len() > start.len() && path.starts_with(start),
    };
    ROUTES.iter().find(fits).map_or("none", |row| row.path)
}

/// The row with exactly this path, if the method is its own. Compared byte for byte: what is not literally in the
/// table is protected.
fn literal_row(method: &Method, path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|row| {
        row.path == path
            && (method.as_str() == row.method || (row.method == "GET" && method == Method::HEAD))
    })
}

/// The rows of one door as an axum router. [`front::answer`] stands before it and has verified the caller by then.
fn router(shared: &Arc<Shared>, door: Door) -> Router {
    let mut router = Router::new();
    let admin_on_public = shared.config.admin_on_public;
    for row in ROUTES
        .iter()
        .filter(|row| row.doors.has(door, admin_on_public))
    {
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

/// In the extensions of a request that was let in without an identity: the one row that it may have.
#[derive(Clone, Copy)]
struct Opened(&'static Route);

/// Asks the gate whether the caller may use this row.
async fn guard(
    State((shared, row)): State<(Arc<Shared>, &'static Route)>,
    request: Request,
    next: Next,
) -> Response {
    let caller = rate_limits::caller(&request);
    let opened = request.extensions().get::<Opened>();
    let is_open = opened.is_some_and(|opened| opened.0.path == row.path);
    let identity = request.extensions().get::<Arc<Identity>>();
    let known = identity.zip(request.extensions().get::<Arc<Rights>>());
    let allowed = match (row.access, known) {
        (Access::Public, _) => Ok(()),
        (_, None) if is_open => Ok(()),
        (access, Some((identity, rights))) => shared
            .app
            .gate
            .authorise(identity, rights, access, row.name())
            .map_err(|denied| refused(&shared, denied)),
        // The front lets nobody without an identity through to a protected row; refuse all the same.
        (_, None) => Err(ApiError::internal()),
    };
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    if let (CHAT, Some((identity, rights))) = (row.path, caller) {
        let standing = shared.app.gate.standing(&identity, &rights);
        rate_limits::write(standing, response.headers_mut());
    }
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
