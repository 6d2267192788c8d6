//! Tar archives to and from boxes, streamed both ways.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use boxlite::{CopyOptions, Error, Result};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::app::App;
use crate::body::{PathParams, QueryParams};
use crate::failure::HttpFailure;

const TAR: &str = "application/x-tar";
/// Bytes read from an archive at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// How long an upload may stall.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the rest of a refused upload is still read.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

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
    let (pieces, arriving) = mpsc::channel(1);
    let arriving =
        stream::unfold(arriving, |mut arriving| async move { Some((arriving.recv().await?, arriving)) });
    let archive = StreamReader::new(Box::pin(arriving));
    let copying = app.runtime.copy_in(&id, &path, options, Box::new(archive));
    let body = moving(request.into_body().into_data_stream());
    let (copied, ()) = tokio::join!(copying, pass_on(Box::pin(body), pieces));
    copied.map_err(HttpFailure::of_archive)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Passes the upload on. A refused upload is still read for a while: closing a connection with unread data resets it, and
/// the client would not learn what was wrong.
async fn pass_on(
    mut body: impl Stream<Item = io::Result<axum::body::Bytes>> + Unpin,
    pieces: mpsc::Sender<io::Result<axum::body::Bytes>>,
) {
    while let Some(piece) = body.next().await {
        if pieces.send(piece).await.is_err() {
            let _ =
                tokio::time::timeout(LINGER_TIMEOUT, async { while body.next().await.is_some() {} }).await;
            return;
        }
    }
}

/// Returns the chunks of the upload, and an error when it stalls.
fn moving(
    body: impl Stream<Item = Result<axum::body::Bytes, axum::Error>> + Send + 'static,
) -> impl Stream<Item = io::Result<axum::body::Bytes>> + Send {
    stream::unfold(Some(Box::pin(body)), |body| async move {
        let mut body = body?;
        match tokio::time::timeout(STALL_TIMEOUT, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(body))),
            Ok(Some(Err(error))) => Some((Err(broken(format!("the upload broke off: {error}"))), None)),
            Err(_) => {
                Some((Err(broken(format!("the upload stalled for {} s", STALL_TIMEOUT.as_secs()))), None))
            }
        }
    })
}

/// An upload that its client ended or stalled.
fn broken(message: String) -> io::Error {
    io::Error::other(Error::invalid(message))
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
