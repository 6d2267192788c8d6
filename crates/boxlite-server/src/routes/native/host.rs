//! The host and its images in the library's dialect.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use boxlite::wire::{ImageQuery, PullRequest};
use boxlite::{Activity, HostInfo, Image, Removal, Usage};

use crate::app::App;
use crate::body::{JsonBody, QueryParams};
use crate::failure::HttpFailure;
use crate::progress;

pub(super) async fn info(State(app): State<Arc<App>>) -> Result<Json<HostInfo>, HttpFailure> {
    Ok(Json(app.runtime.info().await?))
}

pub(super) async fn usage(State(app): State<Arc<App>>) -> Result<Json<Usage>, HttpFailure> {
    Ok(Json(app.runtime.disk_usage().await?))
}

pub(super) async fn activity(State(app): State<Arc<App>>) -> Result<Json<Activity>, HttpFailure> {
    Ok(Json(app.runtime.activity().await?))
}

pub(super) async fn images(State(app): State<Arc<App>>) -> Result<Json<Vec<Image>>, HttpFailure> {
    Ok(Json(app.runtime.images().await?))
}

pub(super) async fn image(
    State(app): State<Arc<App>>,
    QueryParams(query): QueryParams<ImageQuery>,
) -> Result<Json<Image>, HttpFailure> {
    Ok(Json(app.runtime.image(&query.wanted).await?))
}

pub(super) async fn remove_image(
    State(app): State<Arc<App>>,
    QueryParams(query): QueryParams<ImageQuery>,
) -> Result<Json<Vec<Removal>>, HttpFailure> {
    Ok(Json(app.runtime.remove_image(&query.wanted, query.force).await?))
}

pub(super) async fn pull(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<PullRequest>,
) -> Result<Response, HttpFailure> {
    let PullRequest { reference, options } = request;
    let reference = app.with_allowed(move |allowed| allowed.image(&reference)).await?;
    let pull = |progress| async move {
        app.runtime.pull(&reference, options, progress).await.map_err(HttpFailure::of_pull)
    };
    Ok(progress::events(pull).await)
}
