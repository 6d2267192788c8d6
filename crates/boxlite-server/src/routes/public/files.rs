//! Tar archives to and from boxes, streamed both ways.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use boxlite::{CopyOptions, Error, Result};
use serde::Deserialize;
use tokio_util::io::ReaderStream;

use crate::app::App;
use crate::body::{PathParams, QueryParams};
use crate::failure::HttpFailure;
use crate::routes::transfer::{self, CHUNK_BYTES, TAR};

/// The path in the box, and options of the public API.
#[derive(Debug, Deserialize)]
pub(super) struct FilesQuery {
    path: String,
    #[serde(default)]
    follow_symlinks: Option<bool>,
    /// Keep owners; not part of the public API.
    #[serde(default)]
    archive: bool,
    /// Refuse instead of waiting for a paused box; not part of the public API.
    #[serde(default)]
    unless_paused: bool,
    #[serde(default)]
    overwrite: Option<bool>,
}

impl FilesQuery {
    /// Returns the path in the box and how it is copied.
    fn checked(self) -> Result<(String, CopyOptions)> {
        if self.overwrite == Some(false) {
            return Err(Error::unsupported("this server does not copy without overwriting"));
        }
        if !self.path.starts_with('/') || self.path.contains('\0') {
            return Err(Error::invalid(format!("{:?} is not an absolute path in the box", self.path)));
        }
        let follow_link = self.follow_symlinks == Some(true);
        let options = CopyOptions { archive: self.archive, follow_link, unless_paused: self.unless_paused };
        Ok((self.path, options))
    }
}

pub(super) async fn upload(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<FilesQuery>,
    request: Request,
) -> Result<StatusCode, HttpFailure> {
    let (path, options) = query.checked()?;
    let (archive, passing) = transfer::upload(request.into_body());
    let copying = app.runtime.copy_in(&id, &path, options, archive);
    let (copied, ()) = tokio::join!(copying, passing);
    copied.map_err(HttpFailure::of_archive)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn download(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<FilesQuery>,
) -> Result<impl IntoResponse, HttpFailure> {
    let (path, options) = query.checked()?;
    let archive = app.runtime.copy_out(&id, &path, options).await.map_err(HttpFailure::of_running)?;
    // An error in the middle aborts the connection, so that a client never takes half an archive for a whole one.
    let body = Body::from_stream(ReaderStream::with_capacity(archive, CHUNK_BYTES));
    Ok(([(header::CONTENT_TYPE, TAR)], body))
}
