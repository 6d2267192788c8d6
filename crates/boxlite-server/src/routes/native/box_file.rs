//! Whole boxes as single files, in the library's dialect.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::IntoResponse;
use boxlite::{BoxExportOptions, BoxImportOptions, ImportedBox};
use tokio_util::io::ReaderStream;

use super::streams::OptionsQuery;
use crate::app::App;
use crate::body::{PathParams, QueryParams};
use crate::caller::Caller;
use crate::failure::HttpFailure;
use crate::routes::transfer::{self, CHUNK_BYTES, TAR};

pub(super) async fn export(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<OptionsQuery>,
) -> Result<impl IntoResponse, HttpFailure> {
    let exported = app.runtime.export_box(&id, query.options::<BoxExportOptions>()?).await;
    let archive = exported.map_err(HttpFailure::of_archive)?;
    Ok(([(header::CONTENT_TYPE, TAR)], Body::from_stream(ReaderStream::with_capacity(archive, CHUNK_BYTES))))
}

/// For the operator alone: what a file says of its box is not known to be within a key's limits before it has been read.
pub(super) async fn import(
    State(app): State<Arc<App>>,
    caller: Caller,
    QueryParams(query): QueryParams<OptionsQuery>,
    request: Request,
) -> Result<Json<ImportedBox>, HttpFailure> {
    caller.refuse_named("import boxes", "a file does not say beforehand what its box takes")?;
    let mut options = query.options::<BoxImportOptions>()?;
    let volumes = std::mem::take(&mut options.volumes);
    options.volumes = app.with_allowed(move |allowed| allowed.volumes(&volumes)).await?;
    let (archive, passing) = transfer::upload(request.into_body());
    let (imported, ()) = tokio::join!(app.runtime.import_box(archive, options), passing);
    Ok(Json(imported.map_err(HttpFailure::of_archive)?))
}
