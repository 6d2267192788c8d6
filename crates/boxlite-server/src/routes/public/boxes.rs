//! Boxes in the public API.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use boxlite::wire::RemoveQuery;
use boxlite::{
    BoxFilter, BoxInfo, BoxState, CloneOptions, CreationKey, Error, ErrorKind, ListOptions, PullOptions,
    RemoveOptions, Result, StopOptions,
};
use serde::{Deserialize, Serialize};

use super::bodies::{self, CreateBoxRequest, PublicBox};
use super::page::PageQuery;
use crate::allowances::default_disk;
use crate::app::App;
use crate::body::{JsonBody, OptionalJsonBody, PathParams, QueryParams};
use crate::caller::Caller;
use crate::failure::HttpFailure;
use crate::idempotency::{self, RequestIdentity};

#[derive(Debug, Serialize)]
pub(super) struct PublicBoxPage {
    boxes: Vec<PublicBox>,
    next_page_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StopBoxRequest {
    timeout_seconds: Option<f64>,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    identity: Option<Extension<RequestIdentity>>,
    JsonBody(request): JsonBody<CreateBoxRequest>,
) -> Result<Response, HttpFailure> {
    let key = identity.map(|Extension(identity)| identity.creation_key());
    if let Some(info) = idempotency::made_before(&app.runtime, key.as_ref()).await? {
        return Ok(created(info, true));
    }
    let mut options = caller.owned(request.into_options()?)?;
    if let Some(wanted) = options.disk_size {
        // The public API has sizes from 1 GB on, and more room than was asked for takes up nothing until it is used.
        let smallest = default_disk(&*app.observations.host().await?)?;
        options.disk_size = Some(wanted).filter(|wanted| *wanted > smallest);
    }
    options.creation_key.clone_from(&key);
    let options = app.with_allowed(move |allowed| allowed.check(options)).await?;
    let _pending = app.allowances.reserve(&app.runtime, &caller, &options).await?;
    app.own_volumes(&caller, &options.volumes).await?;
    // Pulling first tells a failure of the registry from a failure of this server.
    match app.runtime.image(&options.image).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) => {
            let pull = PullOptions { keep_given_names: caller.is_named(), ..PullOptions::default() };
            let pulled = app.runtime.pull(&options.image, pull, Arc::new(())).await;
            pulled.map_err(HttpFailure::of_pull)?;
        }
        found => drop(found?),
    }
    match app.runtime.create(options, Arc::new(())).await {
        Ok(info) => Ok(created(info, false)),
        Err(error) => match made_meanwhile(&app, key.as_ref(), &error).await? {
            Some(info) => Ok(created(info, true)),
            None => Err(HttpFailure::of_create(error)),
        },
    }
}

/// The answer with a new box, or with one that an earlier request under the same key has made.
fn created(info: BoxInfo, replayed: bool) -> Response {
    let location = format!("/v1/boxes/{}", info.id);
    let answer = (StatusCode::CREATED, [(header::LOCATION, location)], Json(PublicBox::from(info)));
    let mut response = answer.into_response();
    if replayed {
        response.headers_mut().insert(idempotency::REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// The box, where another server has carried out the same request meanwhile and ours conflicts with that.
async fn made_meanwhile(
    app: &App,
    key: Option<&CreationKey>,
    error: &Error,
) -> Result<Option<BoxInfo>, HttpFailure> {
    match error.kind() {
        ErrorKind::Conflict => idempotency::made_before(&app.runtime, key).await,
        _ => Ok(None),
    }
}

/// Clones a box; the public API's request body is the library's own.
pub(super) async fn clone(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathParams(id): PathParams<String>,
    identity: Option<Extension<RequestIdentity>>,
    OptionalJsonBody(options): OptionalJsonBody<CloneOptions>,
) -> Result<Response, HttpFailure> {
    let key = identity.map(|Extension(identity)| identity.creation_key());
    if let Some(info) = idempotency::made_before(&app.runtime, key.as_ref()).await? {
        return Ok(created(info, true));
    }
    let mut options = app.allowed_clone(options).await?;
    options.creation_key.clone_from(&key);
    let _pending = app.reserve_clone(&caller, &id, &options).await?;
    app.own_volumes(&caller, options.volumes.as_deref().unwrap_or_default()).await?;
    let taken = match &options.name {
        Some(name) => app.runtime.inspect(name).await.is_ok(),
        None => false,
    };
    match app.runtime.clone_box(&id, options).await {
        Ok(info) => Ok(created(info, false)),
        Err(error) => match made_meanwhile(&app, key.as_ref(), &error).await? {
            Some(info) => Ok(created(info, true)),
            None if taken => Err(HttpFailure::of_create(error)),
            None => Err(error.into()),
        },
    }
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Json<PublicBoxPage>, HttpFailure> {
    let mut options = ListOptions { all: true, filters: Vec::new() };
    let mut boxes = Vec::new();
    let state = query.status.as_deref().map(bodies::state).transpose()?;
    if state != Some(None) {
        options.filters.extend(state.flatten().map(BoxFilter::State));
        boxes = app.runtime.list(options).await?;
        boxes.retain(|info| caller.sees(info));
    }
    let (page, next_page_token) =
        query.of(boxes, |info| (info.created_at.as_millisecond(), info.id.clone()))?;
    Ok(Json(PublicBoxPage { boxes: page.into_iter().map(PublicBox::from).collect(), next_page_token }))
}

pub(super) async fn inspect(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<Json<PublicBox>, HttpFailure> {
    Ok(Json(app.runtime.inspect(&id).await?.into()))
}

pub(super) async fn exists(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<StatusCode, HttpFailure> {
    app.runtime.inspect(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<RemoveQuery>,
) -> Result<StatusCode, HttpFailure> {
    let id = app.runtime.inspect(&id).await?.id;
    app.runtime.remove(&id, RemoveOptions { force: query.force }).await?;
    app.executions.forget_box(&id);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn start(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<Json<PublicBox>, HttpFailure> {
    let info = app.runtime.inspect(&id).await?;
    Ok(Json(run(&app, info).await?.into()))
}

/// Returns the box once it runs, starting it where needed.
pub(super) async fn run(app: &Arc<App>, info: BoxInfo) -> Result<BoxInfo> {
    if info.state.is_up() {
        return Ok(info);
    }
    app.start(info, Arc::new(())).await
}

pub(super) async fn stop(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    OptionalJsonBody(request): OptionalJsonBody<StopBoxRequest>,
) -> Result<Json<PublicBox>, HttpFailure> {
    let timeout = request.timeout_seconds.map(whole_seconds).transpose()?;
    let info = app.runtime.inspect(&id).await?;
    let auto_remove = info.options.auto_remove;
    let stopped = match app.runtime.stop(&info.id, StopOptions { timeout }).await {
        // A box that removes itself may be gone before it can be inspected again.
        Err(error) if auto_remove && error.kind() == ErrorKind::NotFound => {
            BoxInfo { state: BoxState::Stopped, ..info }
        }
        stopped => stopped?,
    };
    Ok(Json(stopped.into()))
}

/// Rounds seconds up, so that a stop never waits for less than it was asked to.
fn whole_seconds(value: f64) -> Result<u32, HttpFailure> {
    if (0.0..=f64::from(u32::MAX)).contains(&value) {
        return Ok(value.ceil() as u32);
    }
    Err(boxlite::Error::invalid(format!("{value} is not a number of seconds to wait")).into())
}
