//! What the public API has and this server does not: said clearly, and never taken for a wrong path.

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post};

use crate::App;
use crate::failure::Failure;

/// A route for each.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/boxes/import", post(import))
        .route("/v1/boxes/{id}/snapshots", get(snapshots).post(snapshots))
        .route("/v1/boxes/{id}/snapshots/{name}", get(snapshots).delete(snapshots))
        .route("/v1/boxes/{id}/snapshots/{name}/restore", post(snapshots))
        .route("/v1/boxes/{id}/export", post(export))
        .route("/v1/boxes/{id}/network/tunnel", post(tunnel))
        .route("/v1/volumes", get(volumes).post(volumes))
        .route("/v1/volumes/{name}", get(volumes).delete(volumes))
        .route("/v1/api-keys", get(keys).post(keys))
        .route("/v1/api-keys/{name}", delete(keys))
        .route("/v1/images/usage", get(quota))
}

async fn snapshots() -> Failure {
    Failure::unsupported("snapshots")
}

async fn export() -> Failure {
    Failure::unsupported("exporting boxes")
}

async fn import() -> Failure {
    Failure::unsupported("importing boxes")
}

async fn tunnel() -> Failure {
    Failure::unsupported("tunnels; publish ports when a box is created on its host")
}

async fn volumes() -> Failure {
    Failure::unsupported("managed volumes")
}

async fn keys() -> Failure {
    Failure::unsupported("issuing API keys; `--api-key-file` names the one there is")
}

async fn quota() -> Failure {
    Failure::unsupported("an allowance of images; `/metrics` and `/v1/runtime/usage` say what they take")
}
