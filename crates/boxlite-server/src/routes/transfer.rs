//! Archives that clients send.

use std::io;
use std::time::Duration;

use axum::body::Body;
use boxlite::{Error, Result, TarStream};
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

pub(super) const TAR: &str = "application/x-tar";
/// Bytes read from an archive at a time.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// How long an upload may stall.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the rest of a refused upload is still read.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// The archive in a request's body, and what must be awaited beside it.
pub(super) fn upload(body: Body) -> (TarStream, impl Future<Output = ()> + Send) {
    let (pieces, arriving) = mpsc::channel(1);
    let arriving =
        stream::unfold(arriving, |mut arriving| async move { Some((arriving.recv().await?, arriving)) });
    let archive = StreamReader::new(Box::pin(arriving));
    (Box::new(archive), pass_on(Box::pin(moving(body.into_data_stream())), pieces))
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
