//! Archives between blocking code, which makes and reads them, and asynchronous streams.
//!
//! # Limits
//! An archive takes one of the runtime's blocking threads for as long as its other end takes, and everything that asks the home or
//! the database needs one of them for a moment. So at most [`MAX_ARCHIVES`] are on their way at once.

use std::io::{self, Read, Write};

use boxlite_types::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio_util::io::{ReaderStream, StreamReader};

use crate::runtime::operations::TarStream;

/// Bytes of an archive that are passed on at once.
const PIECE_SIZE: usize = 256 << 10;
/// Pieces that may wait for their reader.
const MAX_PIECES: usize = 4;
/// Archives that this process makes and reads at once, of the 512 blocking threads that a runtime has.
const MAX_ARCHIVES: usize = 64;

static PLACES: Semaphore = Semaphore::const_new(MAX_ARCHIVES);

/// Takes a place among the archives that are on their way.
fn take(places: &'static Semaphore) -> Result<SemaphorePermit<'static>> {
    places.try_acquire().map_err(|_| {
        let message = format!("{MAX_ARCHIVES} archives are on their way already, and no more fit; try again");
        Error::new(ErrorKind::Busy, message)
    })
}

/// The archive that `write` writes. One that it gives up on ends in its error, and never looks whole.
///
/// # Errors
/// `Busy` when too many are on their way.
pub(super) fn written(
    write: impl FnOnce(&mut dyn Write) -> Result<()> + Send + 'static,
) -> Result<TarStream> {
    written_in(&PLACES, write)
}

fn written_in(
    places: &'static Semaphore,
    write: impl FnOnce(&mut dyn Write) -> Result<()> + Send + 'static,
) -> Result<TarStream> {
    let place = take(places)?;
    let (pieces, received) = mpsc::channel(MAX_PIECES);
    let (ended, when_ended) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(PIECE_SIZE, PieceWriter(pieces));
        let written = write(&mut out).map_err(io::Error::from).and_then(|()| out.flush());
        // The rest of the buffer is of no use after a failure.
        drop(out.into_parts());
        drop(place);
        let _ = ended.send(written);
    });
    let pieces = stream::unfold(received, async |mut received: mpsc::Receiver<Bytes>| {
        received.recv().await.map(|piece| (Ok(piece), received))
    });
    let end = stream::once(when_ended).filter_map(async |told| match told {
        Ok(ended) => ended.err().map(Err),
        Err(_) => Some(Err(Error::new(ErrorKind::Cancelled, "the archive was given up").into())),
    });
    Ok(Box::new(StreamReader::new(Box::pin(pieces.chain(end)))))
}

struct PieceWriter(mpsc::Sender<Bytes>);

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader of `tar` for blocking code, and what must be awaited beside it. Once that is dropped, the reader fails.
///
/// # Errors
/// `Busy` when too many are on their way.
pub(super) fn read(tar: TarStream) -> Result<(impl Future<Output = ()> + Send, impl Read + Send + 'static)> {
    let place = take(&PLACES)?;
    let (pieces, received) = mpsc::channel(MAX_PIECES);
    let pump = async move {
        let mut tar = ReaderStream::with_capacity(tar, PIECE_SIZE);
        while let Some(piece) = tar.next().await {
            let piece = piece.map(Some);
            let is_last = piece.is_err();
            if pieces.send(piece).await.is_err() || is_last {
                return;
            }
        }
        let _ = pieces.send(Ok(None)).await;
    };
    Ok((pump, PieceReader { received, piece: Bytes::new(), ended: false, _place: place }))
}

struct PieceReader {
    received: mpsc::Receiver<io::Result<Option<Bytes>>>,
    piece: Bytes,
    ended: bool,
    _place: SemaphorePermit<'static>,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.received.blocking_recv() {
                Some(Ok(Some(piece))) => self.piece = piece,
                Some(Ok(None)) => self.ended = true,
                Some(Err(error)) => return Err(error),
                None => return Err(Error::new(ErrorKind::Cancelled, "the archive was given up").into()),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Mutation tried: without `end`, an archive whose writer fails looks whole.
    #[tokio::test]
    async fn an_archive_that_is_given_up_never_looks_whole() {
        let mut whole = Vec::new();
        written(|out| out.write_all(&vec![7; 1 << 20]).map_err(|error| Error::io("writing", "x", error)))
            .unwrap()
            .read_to_end(&mut whole)
            .await
            .unwrap();
        assert_eq!(whole, vec![7; 1 << 20]);
        let mut broken = written(|out| {
            out.write_all(b"half").map_err(|error| Error::io("writing", "x", error))?;
            Err(Error::corrupt("damaged"))
        })
        .unwrap();
        let error = broken.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
        let mut panicking = written(|_| panic!("a defect")).unwrap();
        assert!(panicking.read_to_end(&mut Vec::new()).await.is_err());
    }

    #[tokio::test]
    async fn what_is_read_is_what_came_and_a_dropped_stream_is_an_error() {
        let bytes: Vec<u8> = (0..1 << 20).map(|at: u32| at as u8).collect();
        let (pump, mut reader) = read(Box::new(std::io::Cursor::new(bytes.clone()))).unwrap();
        let reading = tokio::task::spawn_blocking(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).map(|_| read)
        });
        let (read_all, ()) = tokio::join!(reading, pump);
        assert!(read_all.unwrap().unwrap() == bytes);
        let (pump, mut reader) = read(Box::new(tokio::io::empty())).unwrap();
        drop(pump);
        let error = tokio::task::spawn_blocking(move || reader.read(&mut [0])).await.unwrap();
        assert!(error.is_err());
    }

    /// Before: 512 clients that took their archives slowly kept the server from everything else.
    ///
    /// Mutation tried: without the places, the question behind the archives waits for all of them.
    #[test]
    fn archives_that_nobody_takes_leave_threads_for_everybody_else() {
        static PLACES: Semaphore = Semaphore::const_new(2);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(3).enable_all().build().unwrap();
        runtime.block_on(async {
            let endless = || {
                written_in(&PLACES, |out| {
                    loop {
                        out.write_all(&vec![0; 1 << 16]).map_err(|error| Error::io("writing", "x", error))?;
                    }
                })
            };
            let archives: Vec<_> = std::iter::from_fn(|| endless().ok()).take(4).collect();
            assert_eq!(archives.len(), 2);
            assert_eq!(endless().err().expect("a refusal").kind(), ErrorKind::Busy);
            let asked = tokio::task::spawn_blocking(|| 7);
            let answer = tokio::time::timeout(std::time::Duration::from_secs(60), asked).await;
            assert_eq!(answer.expect("a thread").unwrap(), 7);
        });
    }
}
