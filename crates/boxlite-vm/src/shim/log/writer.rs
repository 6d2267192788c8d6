//! Writing `main.log`.

use std::path::Path;
use std::time::SystemTime;

use boxlite_proto::Stream;
use boxlite_types::Result;

use super::CappedFile;
use super::record::{HEADER_LEN, Header, MAX_LEN};

/// Numbers the main process's output and keeps it, newest first to go last.
#[derive(Debug)]
pub(crate) struct MainLogWriter {
    file: CappedFile,
    position: u64,
    buffer: Vec<u8>,
}

impl MainLogWriter {
    /// Starts the log at `path` anew, forgetting the last run's.
    pub(crate) fn start(path: &Path, cap: u64) -> Result<Self> {
        let cap = cap.max(2 * (MAX_LEN + HEADER_LEN) as u64);
        Ok(Self { file: CappedFile::start(path, cap, false)?, position: 0, buffer: Vec::new() })
    }

    /// For a guest without a main process, which leaves the last run's log at `path` as it is.
    pub(crate) fn untouched(path: &Path) -> Self {
        Self { file: CappedFile::untouched(path), position: 0, buffer: Vec::new() }
    }

    /// Where the next byte of output will be.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Numbers and keeps `bytes`.
    pub(crate) fn append(&mut self, stream: Stream, bytes: &[u8]) {
        let at_unix_ms = unix_ms();
        for piece in bytes.chunks(MAX_LEN) {
            let header = Header { stream, length: piece.len(), position: self.position, at_unix_ms };
            self.buffer.clear();
            self.buffer.extend_from_slice(&header.encode());
            self.buffer.extend_from_slice(piece);
            self.file.append(&self.buffer);
            self.position += piece.len() as u64;
        }
    }
}

/// Milliseconds since the epoch, now.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
