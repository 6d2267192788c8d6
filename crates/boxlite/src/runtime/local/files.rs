//! Copying archives into and out of a box.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use boxlite_home::admission::SpaceGuard;
use boxlite_types::{CopyOptions, Error, ErrorKind, Result};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::io::{ReaderStream, StreamReader};

use super::Local;
use super::maintenance::FileSession;
use crate::runtime::operations::{BoxFiles, TarStream};

/// Bytes of an archive that are passed on at once.
const PIECE_SIZE: usize = 64 << 10;
/// Pieces that may wait for their reader.
const MAX_PIECES: usize = 4;

impl BoxFiles for Local {
    async fn copy_in(&self, id: &str, path: &str, options: CopyOptions, tar: TarStream) -> Result<()> {
        // The copy lands in the box's overlay, so it asks for space like everything that takes some.
        let guard = self.in_context(|context| {
            let guard = SpaceGuard::new(&context.home, &context.settings)?;
            // The box's disk pins what it stands on.
            let guard = guard.collecting(Arc::new(context.collector()), Vec::new());
            guard.check_before(0)?;
            Ok(guard)
        });
        let guard = guard.await?;
        self.check_pause(id, options).await?;
        let session = self.open_files(id, false).await?;
        let tar = SpaceGuardedReader { tar, guard, read: 0 };
        let copied = session.client.copy_in(path, options.archive, tar).await;
        let closed = session.close().await;
        copied.and(closed)
    }

    async fn copy_out(&self, id: &str, path: &str, options: CopyOptions) -> Result<TarStream> {
        self.check_pause(id, options).await?;
        let session = self.open_files(id, true).await?;
        match session.client.copy_out(path, options.follow_link).await {
            Ok(tar) => Ok(Box::new(closing_with(session, tar))),
            Err(error) => {
                let _ = session.close().await;
                Err(error)
            }
        }
    }
}

impl Local {
    /// Refuses a copy that must not wait for a paused box, or would wait for its user.
    async fn check_pause(&self, id: &str, options: CopyOptions) -> Result<()> {
        let record = self.find(id).await?;
        if self.is_running(&record).await? {
            self.refuse_paused(&record, options.unless_paused).await
        } else {
            Ok(())
        }
    }
}

/// Passes an archive on and closes its session at the archive's end, or when its reader is dropped.
///
/// A task of its own does this, so a stalled reader cannot keep others from ending the guest.
pub(super) fn closing_with(
    session: FileSession,
    tar: impl AsyncRead + Send + Unpin + 'static,
) -> impl AsyncRead + Send + Unpin {
    let (pieces, received) = mpsc::channel(MAX_PIECES);
    let (closed, when_closed) = oneshot::channel();
    tokio::spawn(async move {
        let passed = tokio::select! {
            passed = pass_on(tar, pieces) => passed,
            () = session.guest_gone() => Err(broken_off()),
        };
        let session_closed = session.close().await.map_err(io::Error::from);
        let _ = closed.send(passed.and(session_closed));
    });
    let pieces = stream::unfold(received, async |mut received: mpsc::Receiver<Bytes>| {
        received.recv().await.map(|piece| (Ok(piece), received))
    });
    // An archive is whole only once its session was closed in order.
    let end = stream::once(when_closed).filter_map(async |told| match told {
        Ok(closed) => closed.err().map(Err),
        Err(_) => Some(Err(broken_off())),
    });
    StreamReader::new(Box::pin(pieces.chain(end)))
}

async fn pass_on(tar: impl AsyncRead + Unpin, pieces: mpsc::Sender<Bytes>) -> io::Result<()> {
    let mut tar = ReaderStream::with_capacity(tar, PIECE_SIZE);
    loop {
        let piece = tokio::select! {
            piece = tar.next() => piece,
            // The reader is gone, and the next piece may never come.
            () = pieces.closed() => return Ok(()),
        };
        let Some(piece) = piece else { return Ok(()) };
        if pieces.send(piece?).await.is_err() {
            return Ok(());
        }
    }
}

fn broken_off() -> io::Error {
    Error::new(ErrorKind::Cancelled, "the copy was broken off with its guest").into()
}

/// Reads an archive on its way into a box, and fails once the host's disk runs short.
struct SpaceGuardedReader {
    tar: TarStream,
    guard: SpaceGuard,
    read: u64,
}

impl AsyncRead for SpaceGuardedReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.tar).poll_read(context, buffer))?;
        self.read += (buffer.filled().len() - before) as u64;
        Poll::Ready(self.guard.check_streaming(self.read).map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_archive_without_a_reader_is_given_up_although_nothing_comes() {
        let (silent, _kept) = tokio::io::duplex(1);
        let (pieces, received) = mpsc::channel(MAX_PIECES);
        drop(received);
        let limit = std::time::Duration::from_secs(20);
        tokio::time::timeout(limit, pass_on(silent, pieces)).await.unwrap().unwrap();
    }
}
