//! Boxes.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use boxlite::wire::{KillRequest, RemoveQuery};
use boxlite::{BoxInfo, BoxOptions, CloneOptions, Consumption, ListOptions, RemoveOptions, StopOptions};

use super::streams::OptionsQuery;
use crate::App;
use crate::body::{Json, Optional, Path, Query};
use crate::failure::Failure;
use crate::progress;

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<OptionsQuery>,
) -> Result<Answer<Vec<BoxInfo>>, Failure> {
    Ok(Answer(app.runtime.list(query.options::<ListOptions>()?).await?))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Json(options): Json<BoxOptions>,
) -> Result<Response, Failure> {
    let options = app.with_access(move |access| access.check(options)).await?;
    let create =
        |progress| async move { app.runtime.create(options, progress).await.map_err(Failure::of_create) };
    Ok(progress::events(create).await)
}

pub(super) async fn clone(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Json(options): Json<CloneOptions>,
) -> Result<Response, Failure> {
    Ok(progress::events(|_| async move { Ok(app.runtime.clone_box(&id, options).await?) }).await)
}

pub(super) async fn inspect(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Answer<BoxInfo>, Failure> {
    Ok(Answer(app.runtime.inspect(&id).await?))
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, Failure> {
    // A damaged record is no reason not to remove its box.
    let known = app.runtime.inspect(&id).await.map(|info| info.id);
    app.runtime.remove(&id, RemoveOptions { force: query.force }).await?;
    app.executions.forget_box(known.as_deref().unwrap_or(&id));
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn start(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Failure> {
    let start = |progress| async move {
        let info = app.runtime.inspect(&id).await?;
        Ok(app.start(info, progress).await?)
    };
    Ok(progress::events(start).await)
}

pub(super) async fn stop(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Optional(options): Optional<StopOptions>,
) -> Result<Response, Failure> {
    Ok(progress::events(|_| async move { Ok(app.runtime.stop(&id, options).await?) }).await)
}

pub(super) async fn kill(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Json(request): Json<KillRequest>,
) -> Result<StatusCode, Failure> {
    let signal = boxlite::parse_signal(&request.signal.to_string())?;
    app.runtime.kill(&id, signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn wait(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Failure> {
    Ok(progress::events(|_| async move { Ok(app.runtime.wait(&id).await?) }).await)
}

pub(super) async fn consumption(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Answer<Consumption>, Failure> {
    Ok(Answer(app.runtime.consumption(&id).await?))
}
