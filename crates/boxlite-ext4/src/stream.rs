//! Layers as byte streams: decompressed in one thread, hashed in another, both ahead of the consumer by a
//! bounded number of chunks.
//!
//! The decompressor runs through all layers in order, so the next layer is already under way while the consumer
//! still works on the one before.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::Layer;

/// Bytes per chunk; a few chunks fit the second-level cache, so that the hasher finds them warm.
const CHUNK: usize = 128 * 1024;
/// Chunks that may wait in each channel.
pub(crate) const AHEAD: usize = 16;

type Pool = Arc<Mutex<Vec<Vec<u8>>>>;

/// Some bytes of a layer; the buffer goes back to the pool when the last reader lets go.
pub(crate) struct Chunk {
    buffer: Vec<u8>,
    length: usize,
    pool: Pool,
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// What the decompressor tells the consumer.
pub(crate) enum Piece {
    Data(Arc<Chunk>),
    End,
    Failed(StreamFailure),
}

/// Why a layer's stream ended early.
pub(crate) enum StreamFailure {
    Read(io::Error),
    Decompress(io::Error),
    TooLarge { need: u64, limit: u64 },
}

/// What the decompressor tells the hasher.
pub(crate) enum Hashed {
    Blob(Arc<Chunk>),
    Tar(Arc<Chunk>),
    End,
}

/// Digests of one layer as it was read.
pub(crate) struct Digests {
    pub(crate) blob: [u8; 32],
    pub(crate) tar: [u8; 32],
}

/// Hashes until its channel closes, one [`Digests`] per layer.
#[allow(clippy::needless_pass_by_value, reason = "runs as a thread that owns its ends")]
pub(crate) fn hash(input: Receiver<Hashed>, output: Sender<Digests>) {
    let (mut blob, mut tar) = (Sha256::new(), Sha256::new());
    for item in input {
        match item {
            Hashed::Blob(chunk) => blob.update(chunk.bytes()),
            Hashed::Tar(chunk) => tar.update(chunk.bytes()),
            Hashed::End => {
                let digests =
                    Digests { blob: blob.finalize_reset().into(), tar: tar.finalize_reset().into() };
                if output.send(digests).is_err() {
                    return;
                }
            }
        }
    }
}

/// Reads, decompresses and passes on every layer, lowest first; stops silently when nobody listens any more.
pub(crate) fn decompress(
    layers: Vec<Layer>,
    max_expanded: u64,
    output: &SyncSender<Piece>,
    hasher: &SyncSender<Hashed>,
) {
    let pool = Pool::default();
    let mut expanded = 0;
    for layer in layers {
        let hash_blob = layer.blob_digest.is_some();
        let blob = Blob {
            reader: layer.reader,
            hasher: hash_blob.then_some(hasher),
            chunk: empty_chunk(&pool),
            used: 0,
            failure: None,
        };
        let mut sink = Sink { output, hasher, pool: &pool, expanded: &mut expanded, max_expanded };
        match expand(blob, &mut sink) {
            Ok(()) => {
                if hasher.send(Hashed::End).is_err() || output.send(Piece::End).is_err() {
                    return;
                }
            }
            Err(Ended::Failed(failure)) => {
                let _ = output.send(Piece::Failed(failure));
                return;
            }
            Err(Ended::Unheard) => return,
        }
    }
}

enum Ended {
    Failed(StreamFailure),
    Unheard,
}

/// The compressed side: a `BufRead` over the layer's reader which shows the hasher what passes.
struct Blob<'a> {
    reader: Box<dyn Read + Send>,
    hasher: Option<&'a SyncSender<Hashed>>,
    chunk: Arc<Chunk>,
    used: usize,
    /// The reader's own failure, kept apart from what a decoder makes of it.
    failure: Option<io::Error>,
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Blob<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.chunk.length {
            let mut next = take_chunk(&self.chunk.pool);
            match fill(&mut self.reader, &mut next) {
                Ok(()) => {}
                Err(failure) => {
                    self.failure = Some(failure);
                    return Err(io::Error::other("the layer's reader failed"));
                }
            }
            self.chunk = Arc::new(next);
            self.used = 0;
            if let Some(hasher) = self.hasher
                && self.chunk.length > 0
            {
                // A hasher that has gone away ends the build through the other channel.
                let _ = hasher.send(Hashed::Blob(Arc::clone(&self.chunk)));
            }
        }
        Ok(&self.chunk.bytes()[self.used..])
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
    }
}

struct Sink<'a> {
    output: &'a SyncSender<Piece>,
    hasher: &'a SyncSender<Hashed>,
    pool: &'a Pool,
    expanded: &'a mut u64,
    max_expanded: u64,
}

impl Sink<'_> {
    fn pass(&mut self, reader: &mut dyn Read) -> Result<(), PassError> {
        loop {
            let mut chunk = take_chunk(self.pool);
            fill(reader, &mut chunk).map_err(PassError::Read)?;
            if chunk.length == 0 {
                return Ok(());
            }
            *self.expanded += chunk.length as u64;
            if *self.expanded > self.max_expanded {
                return Err(PassError::Ended(Ended::Failed(StreamFailure::TooLarge {
                    need: *self.expanded,
                    limit: self.max_expanded,
                })));
            }
            let chunk = Arc::new(chunk);
            if self.hasher.send(Hashed::Tar(Arc::clone(&chunk))).is_err()
                || self.output.send(Piece::Data(chunk)).is_err()
            {
                return Err(PassError::Ended(Ended::Unheard));
            }
        }
    }
}

enum PassError {
    Read(io::Error),
    Ended(Ended),
}

fn expand(mut blob: Blob<'_>, sink: &mut Sink<'_>) -> Result<(), Ended> {
    // One fill holds the magic: `fill` stops short only at the end of the blob.
    let magic = match blob.fill_buf() {
        Ok(bytes) => {
            [bytes.first().copied(), bytes.get(1).copied(), bytes.get(2).copied(), bytes.get(3).copied()]
        }
        Err(_) => return Err(failed(&mut blob, io::Error::other("unreadable"))),
    };
    let passed = match magic {
        [Some(0x1f), Some(0x8b), ..] => sink.pass(&mut flate2::bufread::MultiGzDecoder::new(&mut blob)),
        [Some(0x28), Some(0xb5), Some(0x2f), Some(0xfd)] => {
            zstd::stream::read::Decoder::with_buffer(&mut blob)
                .map_err(PassError::Read)
                .and_then(|mut decoder| sink.pass(&mut decoder))
        }
        _ => sink.pass(&mut blob),
    };
    match passed {
        Ok(()) => Ok(()),
        Err(PassError::Ended(ended)) => Err(ended),
        Err(PassError::Read(error)) => Err(failed(&mut blob, error)),
    }
}

fn failed(blob: &mut Blob<'_>, error: io::Error) -> Ended {
    Ended::Failed(match blob.failure.take() {
        Some(failure) => StreamFailure::Read(failure),
        None => StreamFailure::Decompress(error),
    })
}

fn empty_chunk(pool: &Pool) -> Arc<Chunk> {
    Arc::new(Chunk { buffer: Vec::new(), length: 0, pool: Arc::clone(pool) })
}

fn take_chunk(pool: &Pool) -> Chunk {
    let mut buffer = pool.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
    buffer.resize(CHUNK, 0);
    Chunk { buffer, length: 0, pool: Arc::clone(pool) }
}

/// Fills a chunk; it stays short only at the end of the stream.
fn fill(reader: &mut dyn Read, chunk: &mut Chunk) -> io::Result<()> {
    while chunk.length < chunk.buffer.len() {
        match reader.read(&mut chunk.buffer[chunk.length..]) {
            Ok(0) => break,
            Ok(count) => chunk.length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The consumer's end: one layer's uncompressed bytes at a time.
pub(crate) struct LayerBytes<'a> {
    pieces: &'a Receiver<Piece>,
    chunk: Option<Arc<Chunk>>,
    used: usize,
    ended: bool,
    /// Bytes handed out so far.
    pub(crate) read: u64,
    /// Why the stream failed, if it did; the `io::Error` seen by the tar reader is only a signal.
    pub(crate) failure: Option<StreamFailure>,
}

impl<'a> LayerBytes<'a> {
    pub(crate) fn new(pieces: &'a Receiver<Piece>) -> Self {
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
        let spent = self.chunk.as_ref().is_none_or(|chunk| self.used == chunk.length);
        if spent && !self.ended {
            self.used = 0;
            self.chunk = None;
            match self.pieces.recv() {
                Ok(Piece::Data(chunk)) => self.chunk = Some(chunk),
                Ok(Piece::End) => self.ended = true,
                Ok(Piece::Failed(failure)) => {
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
