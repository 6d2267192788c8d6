//! The consumer's side of the stream.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::chunk::Chunk;
use super::{LayerPiece, StreamFailure};

/// The consumer's end: one layer's uncompressed bytes at a time.
pub(crate) struct LayerBytes<'a> {
    pieces: &'a Receiver<LayerPiece>,
    chunk: Option<Arc<Chunk>>,
    used: usize,
    ended: bool,
    /// Bytes handed out so far.
    pub(crate) read: u64,
    /// Cause of a failed stream; the `io::Error` seen by the tar reader is only a signal.
    pub(crate) failure: Option<StreamFailure>,
}

impl<'a> LayerBytes<'a> {
    pub(crate) fn new(pieces: &'a Receiver<LayerPiece>) -> Self {
        Self { pieces, chunk: None, used: 0, ended: false, read: 0, failure: None }
    }

    /// Reads what follows the archive, to its end: it is part of the digest.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        loop {
            let count = self.fill_buf()?.len();
            if count == 0 {
                return Ok(());
            }
            self.consume(count);
        }
    }
}

impl Read for LayerBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for LayerBytes<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let spent = self.chunk.as_ref().is_none_or(|chunk| self.used == chunk.len());
        if spent && !self.ended {
            self.used = 0;
            self.chunk = None;
            match self.pieces.recv() {
                Ok(LayerPiece::Data(chunk)) => self.chunk = Some(chunk),
                Ok(LayerPiece::End) => self.ended = true,
                Ok(LayerPiece::Failed(failure)) => {
                    self.ended = true;
                    self.failure = Some(failure);
                    return Err(io::Error::other("the layer's stream failed"));
                }
                Err(_) => {
                    self.ended = true;
                    self.failure =
                        Some(StreamFailure::Read(io::Error::other("the reading thread ended early")));
                    return Err(io::Error::other("the layer's stream failed"));
                }
            }
        }
        Ok(self.chunk.as_ref().map_or(&[], |chunk| &chunk.bytes()[self.used..]))
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
        self.read += count as u64;
    }
}
