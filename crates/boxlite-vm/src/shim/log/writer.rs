//! Writing `main.log`.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use boxlite_proto::Stream;
use boxlite_types::Result;

use super::files::{LogFiles, OwnFiles};
use super::reader::{self, RunLog};
use super::record::{HEADER_LEN, Header, MARK_LEN, MAX_LEN, RecordKind};
use super::{CappedFile, MainLog};

/// Numbers the main process's output and keeps it; what is oldest goes first, and so old runs do.
#[derive(Debug)]
pub(crate) struct MainLogWriter {
    file: CappedFile,
    kept: RunLog,
    /// The present file names this run.
    marked: bool,
    position: u64,
    buffer: Vec<u8>,
}

impl MainLogWriter {
    /// Starts a further run in the log at `path`, behind what earlier ones have written.
    pub(crate) fn start(path: &Path, cap: u64) -> Result<Self> {
        let cap = cap.max(2 * (MAX_LEN + HEADER_LEN) as u64);
        let last = MainLog::runs(path)?.map_or(0, |runs| *runs.end());
        // A shim that was killed may have left a part of a record.
        let whole = reader::scan(path, 0)?.whole;
        let mut log = Self::new(CappedFile::resume(path, cap, whole)?, path, last + 1);
        log.marked = log.mark();
        Ok(log)
    }

    /// For a guest without a main process, which leaves the log at `path` as it is.
    pub(crate) fn untouched(path: &Path) -> Self {
        Self::new(CappedFile::untouched(path), path, 0)
    }

    fn new(file: CappedFile, path: &Path, run: u64) -> Self {
        let kept = RunLog { path: path.to_owned(), run, files: Arc::new(OwnFiles) };
        Self { file, kept, marked: false, position: 0, buffer: Vec::new() }
    }

    /// Has `files` open the log and set it aside from now on, because this process is about to lose its directory.
    pub(crate) fn entrust(&mut self, files: &Arc<dyn LogFiles>) {
        self.file.entrust(Arc::clone(files));
        self.kept.files = Arc::clone(files);
    }

    /// Returns the part of this run that is kept.
    pub(crate) fn kept(&self) -> &RunLog {
        &self.kept
    }

    /// Where the next byte of output will be.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Numbers and keeps `bytes`.
    pub(crate) fn append(&mut self, stream: Stream, bytes: &[u8]) {
        let at_unix_ms = unix_ms();
        for piece in bytes.chunks(MAX_LEN) {
            if !self.file.has_room_for(HEADER_LEN + piece.len()) {
                self.file.set_aside();
                self.marked = false;
            }
            // Output without a mark would count as an earlier run's.
            self.marked = self.marked || self.mark();
            if self.marked {
                self.write(RecordKind::Output(stream), piece, at_unix_ms);
            }
            self.position += piece.len() as u64;
        }
        self.file.report_trouble();
    }

    fn mark(&mut self) -> bool {
        let number: [u8; MARK_LEN] = self.kept.run.to_le_bytes();
        self.write(RecordKind::RunMark, &number, unix_ms())
    }

    fn write(&mut self, kind: RecordKind, bytes: &[u8], at_unix_ms: u64) -> bool {
        let header = Header { kind, length: bytes.len(), position: self.position, at_unix_ms };
        self.buffer.clear();
        self.buffer.extend_from_slice(&header.encode());
        self.buffer.extend_from_slice(bytes);
        self.file.append(&self.buffer)
    }
}

/// Milliseconds since the epoch, now.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
