//! Boxes.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use boxlite::wire::RemoveQuery;
use boxlite::{
    BoxFilter, BoxInfo, BoxState, CloneOptions, ErrorKind, ListOptions, PullOptions, RemoveOptions, Result,
    StopOptions,
};
use serde::{Deserialize, Serialize};

use super::bodies::{self, Box, CreateBox};
use super::page::PageQuery;
use crate::App;
use crate::body::{Json, Optional, Path, Query};
use crate::failure::Failure;

#[derive(Debug, Serialize)]
pub(super) struct Boxes {
    boxes: Vec<Box>,
    next_page_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StopBox {
    timeout_seconds: Option<f64>,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Json(request): Json<CreateBox>,
) -> Result<impl IntoResponse, Failure> {
    let options = request.into_options()?;
    let options = app.with_access(move |access| access.check(options)).await?;
    // Fetched first, so that a failure of the registry can be told from a failure of this server.
    match app.runtime.image(&options.image).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) => {
            let pulled = app.runtime.pull(&options.image, PullOptions::default(), Arc::new(())).await;
            pulled.map_err(Failure::of_pull)?;
        }
        found => drop(found?),
    }
    let info = app.runtime.create(options, Arc::new(())).await.map_err(Failure::of_create)?;
    let location = format!("/v1/boxes/{}", info.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Answer(Box::from(info))))
}

/// A clone of a box, under the public API's body, which is the library's as well.
pub(super) async fn clone(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Optional(options): Optional<CloneOptions>,
) -> Result<impl IntoResponse, Failure> {
    let taken = match &options.name {
        Some(name) => app.runtime.inspect(name).await.is_ok(),
        None => false,
    };
    let cloned = app.runtime.clone_box(&id, options).await;
    let info = cloned.map_err(|error| if taken { Failure::of_create(error) } else { error.into() })?;
    let location = format!("/v1/boxes/{}", info.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Answer(Box::from(info))))
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Boxes>, Failure> {
    let mut options = ListOptions { all: true, filters: Vec::new() };
    let mut boxes = Vec::new();
    let state = query.status.as_deref().map(bodies::state).transpose()?;
    if state != Some(None) {
        options.filters.extend(state.flatten().map(BoxFilter::State));
        boxes = app.runtime.list(options).await?;
    }
    let (page, next_page_token) =
        query.of(boxes, |info| (info.created_at.as_millisecond(), info.id.clone()))?;
    Ok(Answer(Boxes { boxes: page.into_iter().map(Box::from).collect(), next_page_token }))
}

pub(super) async fn inspect(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Answer<Box>, Failure> {
    Ok(Answer(app.runtime.inspect(&id).await?.into()))
}

pub(super) async fn exists(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    app.runtime.inspect(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, Failure> {
    let id = app.runtime.inspect(&id).await?.id;
    app.runtime.remove(&id, RemoveOptions { force: query.force }).await?;
    app.executions.forget_box(&id);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn start(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Answer<Box>, Failure> {
    let info = app.runtime.inspect(&id).await?;
    Ok(Answer(run(&app, info).await?.into()))
}

/// The box, running: started unless it runs already.
pub(super) async fn run(app: &Arc<App>, info: BoxInfo) -> Result<BoxInfo> {
    if info.state == BoxState::Running {
        return Ok(info);
    }
    app.start(info, Arc::new(())).await
}

pub(super) async fn stop(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Optional(request): Optional<StopBox>,
) -> Result<Answer<Box>, Failure> {
    let timeout = request.timeout_seconds.map(whole_seconds).transpose()?;
    let info = app.runtime.inspect(&id).await?;
    let auto_remove = info.options.auto_remove;
    let stopped = match app.runtime.stop(&info.id, StopOptions { timeout }).await {
        // A box that removes itself may be gone before it can be looked at once more.
        Err(error) if auto_remove && error.kind() == ErrorKind::NotFound => {
            BoxInfo { state: BoxState::Stopped, ..info }
        }
        stopped => stopped?,
    };
    Ok(Answer(stopped.into()))
}

/// Seconds for a stop, rounded up: it is never less patient than it was asked to be.
fn whole_seconds(value: f64) -> Result<u32, Failure> {
    if (0.0..=f64::from(u32::MAX)).contains(&value) {
        return Ok(value.ceil() as u32);
    }
    Err(boxlite::Error::invalid(format!("{value} is no number of seconds to wait")).into())
}
