//! Archives to and from the guest, and conversations with it.

use std::io;

use boxlite_types::{Error, Result};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio_util::io::StreamReader;

use super::session::{Control, Output, Session, StreamEnd};
use super::stdin::StdinSink;

pub(super) async fn send_archive(session: Session, mut archive: impl AsyncRead + Unpin) -> Result<u64> {
    let Session { output, mut stdin, control } = session;
    let mut archive = tokio::io::BufReader::with_capacity(64 * 1024, &mut archive);
    let sent = tokio::select! {
        sent = tokio::io::copy_buf(&mut archive, &mut stdin) => sent,
        // The guest has gone, or wants no more, while the archive's writer pauses.
        _ = control.ended() => Err(io::ErrorKind::BrokenPipe.into()),
    };
    match sent {
        Ok(_) => {
            let _ = stdin.shutdown().await;
        }
        // The guest wants no more: its own word says why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        // Without its end the guest sees that the archive is incomplete.
        Err(error) => return Err(read_failure(error)),
    }
    let ended = control.ended().await;
    drop(output);
    match ended {
        StreamEnd::Copied(bytes) => Ok(bytes),
        StreamEnd::Failed(error) => Err(error),
        StreamEnd::Process(_) => Err(Error::bug("a copy ended like a process")),
    }
}

/// Why an archive could not be read to its end: an error of this library that came through a reader is itself again.
fn read_failure(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => Error::io("reading", "the archive", error),
    }
}

/// Waits for the first bytes or the failure, so that a missing path is an error and not an empty archive.
pub(super) async fn receive_archive(session: Session) -> Result<impl AsyncRead + Send + Unpin> {
    let Session { mut output, stdin, control } = session;
    let first = if let Some(chunk) = output.next().await {
        Some(chunk?.bytes)
    } else {
        failure_of(&control).await?;
        None
    };
    let first = futures::stream::iter(first.map(Ok));
    let rest = rest_of(output, control, Some(stdin));
    Ok(StreamReader::new(Box::pin(first.chain(rest))))
}

/// Splits the session into the guest's bytes and the way of the answers.
pub(super) fn converse(session: Session) -> (impl AsyncRead + Send + Unpin, StdinSink) {
    let Session { output, stdin, control } = session;
    (StreamReader::new(Box::pin(rest_of(output, control, None))), stdin)
}

/// The rest of an archive; it ends in an error when the guest's copy did.
fn rest_of(
    output: Output,
    control: Control,
    stdin: Option<StdinSink>,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    futures::stream::unfold(Some((output, control, stdin)), |state| async move {
        let (mut output, control, stdin) = state?;
        match output.next().await {
            Some(Ok(chunk)) => Some((Ok(chunk.bytes), Some((output, control, stdin)))),
            Some(Err(error)) => Some((Err(io::Error::from(error)), None)),
            None => match failure_of(&control).await {
                Ok(()) => None,
                Err(error) => Some((Err(io::Error::from(error)), None)),
            },
        }
    })
}

async fn failure_of(control: &Control) -> Result<()> {
    match control.ended().await {
        // The end of a connection is all that a dial's process has to say.
        StreamEnd::Copied(_) | StreamEnd::Process(_) => Ok(()),
        StreamEnd::Failed(error) => Err(error),
    }
}
