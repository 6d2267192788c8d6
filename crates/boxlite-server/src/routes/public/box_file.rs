//! Whole boxes as single files, in the public API.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use boxlite::{BoxExportOptions, BoxImportOptions};
use serde::Deserialize;
use tokio_util::io::ReaderStream;

use super::bodies::PublicBox;
use crate::app::App;
use crate::body::{OptionalJsonBody, PathParams, QueryParams};
use crate::caller::Caller;
use crate::failure::HttpFailure;
use crate::routes::transfer::{self, CHUNK_BYTES};

pub(super) async fn export(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    OptionalJsonBody(options): OptionalJsonBody<BoxExportOptions>,
) -> Result<impl IntoResponse, HttpFailure> {
    let archive = app.runtime.export_box(&id, options).await.map_err(HttpFailure::of_archive)?;
    let body = Body::from_stream(ReaderStream::with_capacity(archive, CHUNK_BYTES));
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body))
}

#[derive(Debug, Deserialize)]
pub(super) struct ImportBoxQuery {
    name: Option<String>,
}

pub(super) async fn import(
    State(app): State<Arc<App>>,
    caller: Caller,
    QueryParams(query): QueryParams<ImportBoxQuery>,
    request: Request,
) -> Result<impl IntoResponse, HttpFailure> {
    caller.refuse_named("import boxes", "a file does not say beforehand what its box takes")?;
    let options = BoxImportOptions { name: query.name, ..BoxImportOptions::default() };
    let (archive, passing) = transfer::upload(request.into_body());
    let (imported, ()) = tokio::join!(app.runtime.import_box(archive, options), passing);
    let info = imported.map_err(HttpFailure::of_archive)?.info;
    let location = format!("/v1/boxes/{}", info.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(PublicBox::from(info))))
}
