//! Recycled buffers: they travel from the decompressor to its readers and back.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes per chunk; a few chunks fit the second-level cache, so that the hasher finds them warm.
const CHUNK: usize = 128 * 1024;

/// Buffers that are free at the moment.
#[derive(Clone, Default)]
pub(super) struct ChunkPool(Arc<Mutex<Vec<Vec<u8>>>>);

impl ChunkPool {
    /// A chunk of nothing.
    pub(super) fn empty(&self) -> Arc<Chunk> {
        Arc::new(Chunk { buffer: Vec::new(), length: 0, pool: self.clone() })
    }

    /// The next bytes of a reader; the chunk is short only at the end of the stream.
    pub(super) fn fill(&self, reader: &mut dyn Read) -> io::Result<Arc<Chunk>> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.resize(CHUNK, 0);
        let mut chunk = Chunk { buffer, length: 0, pool: self.clone() };
        while chunk.length < CHUNK {
            match reader.read(&mut chunk.buffer[chunk.length..]) {
                Ok(0) => break,
                Ok(count) => chunk.length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Arc::new(chunk))
    }
}

/// Some bytes of a layer; the buffer returns to the pool when its last reader drops it.
pub(crate) struct Chunk {
    buffer: Vec<u8>,
    length: usize,
    pool: ChunkPool,
}

impl Chunk {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}
