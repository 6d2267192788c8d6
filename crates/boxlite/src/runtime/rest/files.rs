//! Copying archives into and out of a box.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use boxlite_types::wire::PathQuery;
use boxlite_types::{CopyOptions, Error, Result};
use futures::{Stream, StreamExt};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Method, RequestBuilder, Response};
use tokio_util::io::{ReaderStream, StreamReader};

use super::http::HttpClient;
use super::{Remote, check_id, failure};
use crate::runtime::operations::{BoxFiles, TarStream};

const TAR: &str = "application/x-tar";
const CHUNK_SIZE: usize = 64 * 1024;

impl BoxFiles for Remote {
    async fn copy_in(&self, id: &str, path: &str, options: CopyOptions, tar: TarStream) -> Result<()> {
        check_id(id)?;
        let request = self.client.request(Method::PUT, &["boxes", id, "files"]).query(&query(path, options));
        send_tar(&self.client, request, tar).await.map(drop)
    }

    /// A transfer that breaks off ends in an error, unlike a short archive.
    async fn copy_out(&self, id: &str, path: &str, options: CopyOptions) -> Result<TarStream> {
        check_id(id)?;
        let client = &self.client;
        let request = client.get(&["boxes", id, "files"]).query(&query(path, options));
        Ok(tar_in(client.send(request).await?, client.server()))
    }
}

/// Sends an archive. When reading it fails, the transfer is cut off, so that the server sees that it is incomplete.
pub(super) async fn send_tar(
    client: &HttpClient,
    request: RequestBuilder,
    tar: TarStream,
) -> Result<Response> {
    let read_error = Arc::new(Mutex::new(None));
    let body = Body::wrap_stream(keeping_error(
        ReaderStream::with_capacity(tar, CHUNK_SIZE),
        Arc::clone(&read_error),
    ));
    let sent = client.send(request.header(CONTENT_TYPE, TAR).body(body)).await;
    match read_error.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(error),
        None => sent,
    }
}

/// The archive that a server answers with; one that breaks off ends in an error.
pub(super) fn tar_in(response: Response, server: &str) -> TarStream {
    let server = server.to_owned();
    let chunks = response
        .bytes_stream()
        .map(move |chunk| chunk.map_err(|error| io::Error::from(failure::broken_off(&server, Some(&error)))));
    let chunks: Pin<Box<dyn Stream<Item = _> + Send>> = Box::pin(chunks);
    Box::new(StreamReader::new(chunks))
}

/// Passes chunks on, and keeps the error that ends them, which tells why the transfer failed.
fn keeping_error(
    chunks: impl Stream<Item = io::Result<bytes::Bytes>> + Send + 'static,
    read_error: Arc<Mutex<Option<Error>>>,
) -> impl Stream<Item = io::Result<bytes::Bytes>> + Send + 'static {
    chunks.map(move |chunk| {
        chunk.map_err(|error| {
            let kind = error.kind();
            let own = match error.downcast::<Error>() {
                Ok(own) => own,
                Err(error) => Error::io("reading", "the archive", error),
            };
            *read_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(own);
            io::Error::from(kind)
        })
    })
}

fn query(path: &str, options: CopyOptions) -> PathQuery {
    PathQuery {
        path: path.to_owned(),
        archive: options.archive,
        follow_symlinks: options.follow_link,
        unless_paused: options.unless_paused,
    }
}
