//! Snapshots in the library's dialect.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use boxlite::{RestoreOptions, Snapshot, SnapshotOptions};

use crate::app::App;
use crate::body::{OptionalJsonBody, PathParams};
use crate::failure::HttpFailure;
use crate::progress;

pub(super) async fn list(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<Json<Vec<Snapshot>>, HttpFailure> {
    Ok(Json(app.runtime.snapshots(&id).await?))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    OptionalJsonBody(options): OptionalJsonBody<SnapshotOptions>,
) -> Result<Response, HttpFailure> {
    let create = |_| async move { Ok(app.runtime.create_snapshot(&id, options).await?) };
    Ok(progress::events(create).await)
}

pub(super) async fn restore(
    State(app): State<Arc<App>>,
    PathParams((id, name)): PathParams<(String, String)>,
    OptionalJsonBody(options): OptionalJsonBody<RestoreOptions>,
) -> Result<Response, HttpFailure> {
    let restore = |_| async move { Ok(app.runtime.restore_snapshot(&id, &name, options).await?) };
    Ok(progress::events(restore).await)
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    PathParams((id, name)): PathParams<(String, String)>,
) -> Result<StatusCode, HttpFailure> {
    app.runtime.remove_snapshot(&id, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
