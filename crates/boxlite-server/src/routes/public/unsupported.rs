//! The parts of the public API that this server lacks. Their routes say so, instead of looking like wrong paths.

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get};

use crate::app::App;
use crate::failure::HttpFailure;

/// Returns a route for each of them.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/volumes", get(volumes).post(volumes))
        .route("/v1/volumes/{name}", get(volumes).delete(volumes))
        .route("/v1/api-keys", get(keys).post(keys))
        .route("/v1/api-keys/{name}", delete(keys))
}

async fn volumes() -> HttpFailure {
    HttpFailure::unsupported(
        "the volumes of the public API; `boxlite --url` and /v1/runtime/volumes make and remove them",
    )
}

async fn keys() -> HttpFailure {
    HttpFailure::unsupported("issuing API keys; the operator of this server does that on its host")
}
