//! The host and its images.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::Response;
use boxlite::wire::{ImageQuery, PullRequest};
use boxlite::{Activity, HostInfo, Image, Removal, Usage};

use crate::App;
use crate::body::{Json, Query};
use crate::failure::Failure;
use crate::progress;

pub(super) async fn info(State(app): State<Arc<App>>) -> Result<Answer<HostInfo>, Failure> {
    Ok(Answer(app.runtime.info().await?))
}

pub(super) async fn usage(State(app): State<Arc<App>>) -> Result<Answer<Usage>, Failure> {
    Ok(Answer(app.runtime.disk_usage().await?))
}

pub(super) async fn activity(State(app): State<Arc<App>>) -> Result<Answer<Activity>, Failure> {
    Ok(Answer(app.runtime.activity().await?))
}

pub(super) async fn images(State(app): State<Arc<App>>) -> Result<Answer<Vec<Image>>, Failure> {
    Ok(Answer(app.runtime.images().await?))
}

pub(super) async fn image(
    State(app): State<Arc<App>>,
    Query(query): Query<ImageQuery>,
) -> Result<Answer<Image>, Failure> {
    Ok(Answer(app.runtime.image(&query.wanted).await?))
}

pub(super) async fn remove_image(
    State(app): State<Arc<App>>,
    Query(query): Query<ImageQuery>,
) -> Result<Answer<Vec<Removal>>, Failure> {
    Ok(Answer(app.runtime.remove_image(&query.wanted, query.force).await?))
}

pub(super) async fn pull(
    State(app): State<Arc<App>>,
    Json(request): Json<PullRequest>,
) -> Result<Response, Failure> {
    let PullRequest { reference, options } = request;
    let reference = app.with_access(move |access| access.image(&reference)).await?;
    let pull = |progress| async move {
        app.runtime.pull(&reference, options, progress).await.map_err(Failure::of_pull)
    };
    Ok(progress::events(pull).await)
}
