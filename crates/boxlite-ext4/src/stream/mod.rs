//! Layers as byte streams: decompressed in one thread, hashed in another, both ahead of the consumer by a
//! bounded number of chunks.
//!
//! The decompressor runs through all layers in order, so the next layer is already under way while the consumer
//! still works on the one before.

mod chunk;
mod consumer;

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

use sha2::{Digest, Sha256};

use chunk::{Chunk, ChunkPool};
pub(crate) use consumer::LayerBytes;

use crate::LayerSource;

/// Chunks that may wait in each channel.
pub(crate) const AHEAD: usize = 16;

/// A message from the decompressor to the consumer.
pub(crate) enum LayerPiece {
    Data(Arc<Chunk>),
    End,
    Failed(StreamFailure),
}

/// Reason why a layer's stream ended early.
pub(crate) enum StreamFailure {
    Read(io::Error),
    Decompress(io::Error),
    TooLarge { need: u64, limit: u64 },
}

/// A message from the decompressor to the hasher.
pub(crate) enum HashInput {
    Blob(Arc<Chunk>),
    Tar(Arc<Chunk>),
    End,
}

/// Digests of one layer as it was read.
pub(crate) struct LayerDigests {
    pub(crate) blob: [u8; 32],
    pub(crate) tar: [u8; 32],
}

/// Hashes until its channel closes, one [`LayerDigests`] per layer.
#[allow(clippy::needless_pass_by_value, reason = "runs as a thread that owns its ends")]
pub(crate) fn hash(input: Receiver<HashInput>, output: Sender<LayerDigests>) {
    let (mut blob, mut tar) = (Sha256::new(), Sha256::new());
    for item in input {
        match item {
            HashInput::Blob(chunk) => blob.update(chunk.bytes()),
            HashInput::Tar(chunk) => tar.update(chunk.bytes()),
            HashInput::End => {
                let digests =
                    LayerDigests { blob: blob.finalize_reset().into(), tar: tar.finalize_reset().into() };
                if output.send(digests).is_err() {
                    return;
                }
            }
        }
    }
}

/// Reads, decompresses and passes on every layer, lowest first; stops silently once a receiver is gone.
pub(crate) fn decompress(
    layers: Vec<LayerSource>,
    max_expanded: u64,
    output: &SyncSender<LayerPiece>,
    hasher: &SyncSender<HashInput>,
) {
    let pool = ChunkPool::default();
    let mut expanded = 0;
    for layer in layers {
        let hash_blob = layer.blob_digest.is_some();
        let blob = CompressedLayer {
            reader: layer.reader,
            hasher: hash_blob.then_some(hasher),
            chunk: pool.empty(),
            pool: &pool,
            used: 0,
            failure: None,
        };
        let mut sink = TarSink { output, hasher, pool: &pool, expanded: &mut expanded, max_expanded };
        match expand(blob, &mut sink) {
            Ok(()) => {
                if hasher.send(HashInput::End).is_err() || output.send(LayerPiece::End).is_err() {
                    return;
                }
            }
            Err(StreamStop::Failed(failure)) => {
                let _ = output.send(LayerPiece::Failed(failure));
                return;
            }
            Err(StreamStop::Unheard) => return,
        }
    }
}

enum StreamStop {
    Failed(StreamFailure),
    Unheard,
}

/// The compressed side: a `BufRead` over the layer's reader that passes every byte to the hasher, too.
struct CompressedLayer<'a> {
    reader: Box<dyn Read + Send>,
    hasher: Option<&'a SyncSender<HashInput>>,
    pool: &'a ChunkPool,
    chunk: Arc<Chunk>,
    used: usize,
    /// The reader's own failure, kept apart from the error that a decoder makes of it.
    failure: Option<io::Error>,
}

impl Read for CompressedLayer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for CompressedLayer<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.chunk.len() {
            self.chunk = match self.pool.fill(&mut self.reader) {
                Ok(chunk) => chunk,
                Err(failure) => {
                    self.failure = Some(failure);
                    return Err(io::Error::other("the layer's reader failed"));
                }
            };
            self.used = 0;
            if let Some(hasher) = self.hasher
                && self.chunk.len() > 0
            {
                // A hasher that has gone away ends the build through the other channel.
                let _ = hasher.send(HashInput::Blob(Arc::clone(&self.chunk)));
            }
        }
        Ok(&self.chunk.bytes()[self.used..])
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
    }
}

struct TarSink<'a> {
    output: &'a SyncSender<LayerPiece>,
    hasher: &'a SyncSender<HashInput>,
    pool: &'a ChunkPool,
    expanded: &'a mut u64,
    max_expanded: u64,
}

impl TarSink<'_> {
    fn pass(&mut self, reader: &mut dyn Read) -> Result<(), PassError> {
        loop {
            let chunk = self.pool.fill(reader).map_err(PassError::Read)?;
            if chunk.len() == 0 {
                return Ok(());
            }
            *self.expanded += chunk.len() as u64;
            if *self.expanded > self.max_expanded {
                return Err(PassError::Stopped(StreamStop::Failed(StreamFailure::TooLarge {
                    need: *self.expanded,
                    limit: self.max_expanded,
                })));
            }
            if self.hasher.send(HashInput::Tar(Arc::clone(&chunk))).is_err()
                || self.output.send(LayerPiece::Data(chunk)).is_err()
            {
                return Err(PassError::Stopped(StreamStop::Unheard));
            }
        }
    }
}

enum PassError {
    Read(io::Error),
    Stopped(StreamStop),
}

fn expand(mut blob: CompressedLayer<'_>, sink: &mut TarSink<'_>) -> Result<(), StreamStop> {
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
        Err(PassError::Stopped(ended)) => Err(ended),
        Err(PassError::Read(error)) => Err(failed(&mut blob, error)),
    }
}

fn failed(blob: &mut CompressedLayer<'_>, error: io::Error) -> StreamStop {
    StreamStop::Failed(match blob.failure.take() {
        Some(failure) => StreamFailure::Read(failure),
        None => StreamFailure::Decompress(error),
    })
}
