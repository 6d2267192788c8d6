//! The host in the library's dialect.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use boxlite::{Activity, HostInfo, Usage};

use crate::app::App;
use crate::failure::HttpFailure;

pub(super) async fn info(State(app): State<Arc<App>>) -> Result<Json<HostInfo>, HttpFailure> {
    Ok(Json(app.runtime.info().await?))
}

pub(super) async fn usage(State(app): State<Arc<App>>) -> Result<Json<Usage>, HttpFailure> {
    Ok(Json(app.runtime.disk_usage().await?))
}

pub(super) async fn activity(State(app): State<Arc<App>>) -> Result<Json<Activity>, HttpFailure> {
    Ok(Json(app.runtime.activity().await?))
}
