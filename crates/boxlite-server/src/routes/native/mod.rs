//! The library's own dialect, `/v1/runtime/…`: one route per method of [`boxlite::Runtime`], with its types as bodies; and
//! the past of the disk, which the server alone remembers.

mod box_file;
mod boxes;
mod disk;
mod host;
mod images;
mod networks;
mod snapshots;
mod streams;
mod volumes;

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post, put};

use crate::app::App;

/// Returns the routes of this dialect.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/runtime/info", get(host::info))
        .route("/v1/runtime/usage", get(host::usage))
        .route("/v1/runtime/tree", get(disk::tree))
        .route("/v1/runtime/history", get(disk::history))
        .route("/v1/runtime/gc", post(disk::collect))
        .route("/v1/runtime/events", get(host::events))
        .route("/v1/runtime/activity", get(host::activity))
        .route("/v1/runtime/images", get(images::images).post(images::pull))
        .route("/v1/runtime/image", get(images::image).delete(images::remove_image))
        .route("/v1/runtime/image/history", get(images::history))
        .route("/v1/runtime/image/tags", post(images::tag))
        .route("/v1/runtime/image/push", post(images::push))
        .route("/v1/runtime/archive", get(images::save).put(images::load))
        .route("/v1/runtime/import", put(images::import))
        .route("/v1/runtime/boxes/{id}/changes", get(images::changes))
        .route("/v1/runtime/boxes/{id}/commit", post(images::commit))
        .route("/v1/runtime/boxes/{id}/export", get(images::export))
        .route("/v1/runtime/boxes/{id}/file", get(box_file::export))
        .route("/v1/runtime/box-file", put(box_file::import))
        .route("/v1/runtime/volumes", get(volumes::list).post(volumes::create))
        .route("/v1/runtime/volumes/{name}", get(volumes::inspect).delete(volumes::remove))
        .route("/v1/runtime/volumes-prune", post(volumes::prune))
        .route("/v1/runtime/networks", get(networks::list).post(networks::create))
        .route("/v1/runtime/networks/{name}", get(networks::inspect).delete(networks::remove))
        .route("/v1/runtime/networks-prune", post(networks::prune))
        .route("/v1/runtime/boxes", get(boxes::list).post(boxes::create))
        .route("/v1/runtime/boxes/{id}", get(boxes::inspect).patch(boxes::update).delete(boxes::remove))
        .route("/v1/runtime/boxes/{id}/start", post(boxes::start))
        .route("/v1/runtime/boxes/{id}/stop", post(boxes::stop))
        .route("/v1/runtime/boxes/{id}/clone", post(boxes::clone))
        .route("/v1/runtime/boxes/{id}/snapshots", get(snapshots::list).post(snapshots::create))
        .route("/v1/runtime/boxes/{id}/snapshots/{name}", delete(snapshots::remove))
        .route("/v1/runtime/boxes/{id}/snapshots/{name}/restore", post(snapshots::restore))
        .route("/v1/runtime/boxes/{id}/pause", post(boxes::pause))
        .route("/v1/runtime/boxes/{id}/unpause", post(boxes::unpause))
        .route("/v1/runtime/boxes/{id}/kill", post(boxes::kill))
        .route("/v1/runtime/boxes/{id}/wait", post(boxes::wait))
        .route("/v1/runtime/boxes/{id}/consumption", get(boxes::consumption))
        .route("/v1/runtime/boxes/{id}/processes", get(boxes::processes))
        .route("/v1/runtime/boxes/{id}/logs", get(streams::logs))
        .route("/v1/runtime/boxes/{id}/exec", post(streams::exec))
        .route("/v1/runtime/boxes/{id}/attach", post(streams::attach))
}
