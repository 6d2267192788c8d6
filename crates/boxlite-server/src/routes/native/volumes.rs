//! Named volumes in the library's dialect.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use boxlite::{ErrorKind, VolumeInfo, VolumeOptions, VolumePrune};

use crate::app::App;
use crate::body::{JsonBody, PathParams};
use crate::caller::Caller;
use crate::failure::HttpFailure;

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<Vec<VolumeInfo>>, HttpFailure> {
    let mut volumes = app.runtime.volumes().await?;
    volumes.retain(|volume| caller.sees_volume(volume));
    Ok(Json(volumes))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(options): JsonBody<VolumeOptions>,
) -> Result<Json<VolumeInfo>, HttpFailure> {
    Ok(Json(app.create_volume(&caller, options).await?))
}

pub(super) async fn inspect(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathParams(name): PathParams<String>,
) -> Result<Json<VolumeInfo>, HttpFailure> {
    Ok(Json(app.volume(&caller, &name).await?))
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathParams(name): PathParams<String>,
) -> Result<Json<u64>, HttpFailure> {
    if caller.is_named() {
        app.volume(&caller, &name).await?;
    }
    Ok(Json(app.runtime.remove_volume(&name).await?))
}

/// Removes what no box mounts; of the holder of a key of several, only what is its own.
pub(super) async fn prune(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<VolumePrune>, HttpFailure> {
    if !caller.is_named() {
        return Ok(Json(app.runtime.prune_volumes().await?));
    }
    let mut pruned = VolumePrune::default();
    for volume in app.runtime.volumes().await? {
        if !caller.sees_volume(&volume) || !volume.boxes.is_empty() {
            continue;
        }
        match app.runtime.remove_volume(&volume.name).await {
            Ok(freed) => {
                pruned.reclaimed += freed;
                pruned.removed.push(volume.name);
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
            Err(error) => pruned.failures.push(error.chain().to_string()),
        }
    }
    Ok(Json(pruned))
}
