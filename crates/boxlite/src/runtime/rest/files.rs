//! Archives to and from a box.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use boxlite_types::wire::PathQuery;
use boxlite_types::{Error, Result};
use futures::{Stream, StreamExt};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Method};
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

use super::{Client, failure};

const TAR: &str = "application/x-tar";
const CHUNK: usize = 64 * 1024;

type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// Streams `tar` to the directory `path` of the box.
///
/// When reading it fails, the transfer is cut off so that the server sees that it is incomplete.
pub(super) async fn copy_in(client: &Client, id: &str, path: &str, tar: Reader) -> Result<()> {
    let trouble = Arc::new(Mutex::new(None));
    let body = Body::wrap_stream(noting(ReaderStream::with_capacity(tar, CHUNK), Arc::clone(&trouble)));
    let request = client
        .request(Method::PUT, &["boxes", id, "files"])
        .query(&PathQuery { path: path.to_owned() })
        .header(CONTENT_TYPE, TAR)
        .body(body);
    let sent = client.send(request).await;
    match trouble.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(error),
        None => sent.map(drop),
    }
}

/// Passes chunks on, and keeps the error that ends them for whoever asks why the transfer failed.
fn noting(
    chunks: impl Stream<Item = io::Result<bytes::Bytes>> + Send + 'static,
    trouble: Arc<Mutex<Option<Error>>>,
) -> impl Stream<Item = io::Result<bytes::Bytes>> + Send + 'static {
    chunks.map(move |chunk| {
        chunk.map_err(|error| {
            let kind = error.kind();
            let own = match error.downcast::<Error>() {
                Ok(own) => own,
                Err(error) => Error::io("reading", "the archive", error),
            };
            *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(own);
            io::Error::from(kind)
        })
    })
}

/// Streams `path` of the box as a tar; a transfer that breaks off ends in an error and not like a short archive.
pub(super) async fn copy_out(client: &Client, id: &str, path: &str) -> Result<Reader> {
    let request = client.get(&["boxes", id, "files"]).query(&PathQuery { path: path.to_owned() });
    let response = client.send(request).await?;
    let server = client.server().to_owned();
    let chunks = response
        .bytes_stream()
        .map(move |chunk| chunk.map_err(|error| io::Error::from(failure::broken_off(&server, Some(&error)))));
    let chunks: Pin<Box<dyn Stream<Item = _> + Send>> = Box::pin(chunks);
    Ok(Box::new(StreamReader::new(chunks)))
}
