//! The public API's dialect: its routes, its bodies, and their translation to and from the library's types.

mod bodies;
mod box_file;
mod boxes;
mod config;
mod exec;
mod files;
mod images;
mod metrics;
mod page;
mod snapshots;
mod tunnel;
mod unsupported;

use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Router, middleware};

use super::executions;
use crate::app::App;
use crate::idempotency;

/// Returns the routes of this dialect, except those of executions, which both dialects share.
pub(super) fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    // Requests that a client may repeat after a broken connection without having them carried out twice.
    let once = Router::new()
        .route("/v1/boxes", post(boxes::create))
        .route("/v1/boxes/{id}/clone", post(boxes::clone))
        .route("/v1/boxes/{id}/snapshots", post(snapshots::create))
        .route("/v1/boxes/{id}/exec", post(exec::exec))
        .route("/v1/images/pull", post(images::pull))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app.kept_answers), idempotency::once));
    Router::new()
        .merge(once)
        .route("/v1/config", get(config::config))
        .route("/v1/me", get(config::me))
        .route("/openapi.yaml", get(config::description))
        .route("/v1/boxes", get(boxes::list))
        .route("/v1/boxes/{id}", get(boxes::inspect).head(boxes::exists).delete(boxes::remove))
        .route("/v1/boxes/import", post(box_file::import))
        .route("/v1/boxes/{id}/export", post(box_file::export))
        .route("/v1/boxes/{id}/start", post(boxes::start))
        .route("/v1/boxes/{id}/stop", post(boxes::stop))
        .route("/v1/boxes/{id}/snapshots", get(snapshots::list))
        .route("/v1/boxes/{id}/snapshots/{name}", get(snapshots::inspect).delete(snapshots::remove))
        .route("/v1/boxes/{id}/snapshots/{name}/restore", post(snapshots::restore))
        .route("/v1/boxes/{id}/attach", get(executions::attach_main))
        .route("/v1/boxes/{id}/files", get(files::download).put(files::upload))
        .route("/v1/boxes/{id}/metrics", get(metrics::of_box))
        .route("/v1/metrics", get(metrics::of_runtime))
        .route("/v1/images", get(images::list))
        .route("/v1/images/usage", get(images::usage))
        .route("/v1/images/{id}", get(images::inspect).head(images::exists).delete(images::remove))
        .merge(tunnel::routes())
        .merge(unsupported::routes())
}
