//! Snapshots in the public API.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use boxlite::{Error, RestoreOptions, Snapshot, SnapshotOptions};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::body::{JsonBody, PathParams};
use crate::failure::HttpFailure;

/// A snapshot as published clients know it.
#[derive(Debug, Serialize)]
pub(super) struct PublicSnapshot {
    /// Its name: a name is unique among the snapshots of its box.
    id: String,
    box_id: String,
    name: String,
    /// In seconds since 1970.
    created_at: i64,
    container_disk_bytes: u64,
    size_bytes: u64,
}

impl From<Snapshot> for PublicSnapshot {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            id: snapshot.name.clone(),
            box_id: snapshot.box_id,
            name: snapshot.name,
            created_at: snapshot.created_at.as_second(),
            container_disk_bytes: snapshot.virtual_size,
            size_bytes: snapshot.bytes.unwrap_or(0),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct SnapshotList {
    snapshots: Vec<PublicSnapshot>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateSnapshotRequest {
    name: Option<String>,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    JsonBody(request): JsonBody<CreateSnapshotRequest>,
) -> Result<(StatusCode, Json<PublicSnapshot>), HttpFailure> {
    let snapshot = app.runtime.create_snapshot(&id, SnapshotOptions { name: request.name }).await?;
    Ok((StatusCode::CREATED, Json(snapshot.into())))
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<Json<SnapshotList>, HttpFailure> {
    let snapshots = app.runtime.snapshots(&id).await?;
    Ok(Json(SnapshotList { snapshots: snapshots.into_iter().map(PublicSnapshot::from).collect() }))
}

pub(super) async fn inspect(
    State(app): State<Arc<App>>,
    PathParams((id, name)): PathParams<(String, String)>,
) -> Result<Json<PublicSnapshot>, HttpFailure> {
    let found = app.runtime.snapshots(&id).await?.into_iter().find(|snapshot| snapshot.name == name);
    let missing = || Error::not_found(format!("box {id} has no snapshot '{name}'"));
    Ok(Json(found.ok_or_else(missing)?.into()))
}

pub(super) async fn restore(
    State(app): State<Arc<App>>,
    PathParams((id, name)): PathParams<(String, String)>,
) -> Result<StatusCode, HttpFailure> {
    app.runtime.restore_snapshot(&id, &name, RestoreOptions::default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    PathParams((id, name)): PathParams<(String, String)>,
) -> Result<StatusCode, HttpFailure> {
    app.runtime.remove_snapshot(&id, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
