//! Images, and what becomes of boxes' files, in the library's dialect.
//!
//! Images are everybody's, so what names one, takes one in or sends one away with the operator's credentials is for the
//! operator alone: a holder of a named key could otherwise put an image of its own in another's place.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use boxlite::wire::{ImageQuery, PullRequest, PushRequest, SaveRequest, TagRequest};
use boxlite::{ArchiveInput, CommitOptions, Error, FileChange, HistoryEntry, Image, Removal};
use serde::Deserialize;
use tokio_util::io::ReaderStream;

use crate::app::App;
use crate::body::{JsonBody, PathParams, QueryParams};
use crate::caller::Caller;
use crate::failure::HttpFailure;
use crate::progress;
use crate::routes::transfer::{self, CHUNK_BYTES, TAR};

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
    caller: Caller,
    QueryParams(query): QueryParams<ImageQuery>,
) -> Result<Json<Vec<Removal>>, HttpFailure> {
    caller.refuse_named("remove images", "images are everybody's")?;
    Ok(Json(app.runtime.remove_image(&query.wanted, query.force).await?))
}

pub(super) async fn pull(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(request): JsonBody<PullRequest>,
) -> Result<Response, HttpFailure> {
    let PullRequest { reference, mut options } = request;
    options.keep_given_names = caller.is_named();
    let reference = app.with_allowed(move |allowed| allowed.image(&reference)).await?;
    let pull = |progress| async move {
        app.runtime.pull(&reference, options, progress).await.map_err(HttpFailure::of_pull)
    };
    Ok(progress::events(pull).await)
}

pub(super) async fn tag(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(request): JsonBody<TagRequest>,
) -> Result<Json<Image>, HttpFailure> {
    caller.refuse_named("name images", "images are everybody's")?;
    Ok(Json(app.runtime.tag(&request.wanted, &request.name).await?))
}

pub(super) async fn history(
    State(app): State<Arc<App>>,
    QueryParams(query): QueryParams<ImageQuery>,
) -> Result<Json<Vec<HistoryEntry>>, HttpFailure> {
    Ok(Json(app.runtime.history(&query.wanted).await?))
}

pub(super) async fn push(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(request): JsonBody<PushRequest>,
) -> Result<Response, HttpFailure> {
    caller.refuse_named("push images", "images are everybody's")?;
    let PushRequest { wanted, target, options } = request;
    let push = |progress| async move {
        app.runtime.push(&wanted, target.as_deref(), options, progress).await.map_err(HttpFailure::of_pull)
    };
    Ok(progress::events(push).await)
}

/// The query of a download.
#[derive(Debug, Deserialize)]
pub(super) struct ArchiveQuery {
    request: String,
}

pub(super) async fn save(
    State(app): State<Arc<App>>,
    QueryParams(query): QueryParams<ArchiveQuery>,
) -> Result<impl IntoResponse, HttpFailure> {
    let SaveRequest { images, format } = serde_json::from_str(&query.request)
        .map_err(|error| Error::invalid(format!("the parameter request is malformed: {error}")))?;
    let archive = app.runtime.save(&images, format).await.map_err(HttpFailure::of_archive)?;
    // An error in the middle aborts the connection, so that a client never takes half an archive for a whole one.
    let body = Body::from_stream(ReaderStream::with_capacity(archive, CHUNK_BYTES));
    Ok(([(header::CONTENT_TYPE, TAR)], body))
}

pub(super) async fn load(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<Json<Vec<Image>>, HttpFailure> {
    caller.refuse_named("load images", "images are everybody's")?;
    let (archive, passing) = transfer::upload(request.into_body());
    let load = app.runtime.load(ArchiveInput::Stream(archive), Arc::new(()));
    let (loaded, ()) = tokio::join!(load, passing);
    Ok(Json(loaded.map_err(HttpFailure::of_archive)?))
}

/// The query of an import, as JSON.
#[derive(Debug, Deserialize)]
pub(super) struct ImportQuery {
    options: Option<String>,
}

pub(super) async fn import(
    State(app): State<Arc<App>>,
    caller: Caller,
    QueryParams(query): QueryParams<ImportQuery>,
    request: Request,
) -> Result<Json<Image>, HttpFailure> {
    caller.refuse_named("import images", "images are everybody's")?;
    let options: CommitOptions = query
        .options
        .map_or(Ok(CommitOptions::default()), |text| serde_json::from_str(&text))
        .map_err(|error| Error::invalid(format!("the parameter options is malformed: {error}")))?;
    let (archive, passing) = transfer::upload(request.into_body());
    let import = app.runtime.import(ArchiveInput::Stream(archive), options);
    let (imported, ()) = tokio::join!(import, passing);
    Ok(Json(imported.map_err(HttpFailure::of_archive)?))
}

pub(super) async fn changes(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<Json<Vec<FileChange>>, HttpFailure> {
    Ok(Json(app.runtime.diff(&id).await?))
}

pub(super) async fn commit(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathParams(id): PathParams<String>,
    JsonBody(options): JsonBody<CommitOptions>,
) -> Result<Response, HttpFailure> {
    caller.refuse_named("make images", "images are everybody's")?;
    let commit = |_| async move { Ok(app.runtime.commit(&id, options).await?) };
    Ok(progress::events(commit).await)
}

pub(super) async fn export(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
) -> Result<impl IntoResponse, HttpFailure> {
    let archive = app.runtime.export(&id).await.map_err(HttpFailure::of_archive)?;
    Ok(([(header::CONTENT_TYPE, TAR)], Body::from_stream(ReaderStream::with_capacity(archive, CHUNK_BYTES))))
}
