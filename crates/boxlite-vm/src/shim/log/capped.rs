//! A file that is set aside when it has reached its cap.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxlite_home::durable;
use boxlite_types::{Doing, Error, Result};

use super::files::{LogFiles, OwnFiles, old_path};

/// An append-only file of at most `cap` bytes beside an old one of at most as many.
///
/// Writing never fails towards the caller: what cannot be written (a full disk) is left out, because a guest's words are
/// not worth a guest. No method but [`CappedFile::report_trouble`] logs anything: the file may be the shim's own log,
/// whose writer would then wait for itself.
#[derive(Debug)]
pub(crate) struct CappedFile {
    path: PathBuf,
    files: Arc<dyn LogFiles>,
    cap: u64,
    file: Option<File>,
    written: u64,
    /// The last piece was left out.
    failing: bool,
    /// The trouble that has not been reported yet.
    trouble: Option<LogTrouble>,
}

/// The trouble that a log has met.
#[derive(Debug)]
enum LogTrouble {
    /// A piece was left out.
    LeftOut(io::Error),
    /// The file could not be set aside, so it was emptied.
    StartedOver(Error),
}

impl CappedFile {
    /// Starts the log at `path` anew; that of the last run, if there is one, becomes the old log.
    pub(crate) fn start(path: &Path, cap: u64) -> Result<Self> {
        let mut file = durable::open_log(path)?;
        if file.metadata().is_ok_and(|metadata| metadata.len() > 0) {
            durable::rotate_log(path, &old_path(path))?;
            file = durable::open_log(path)?;
        }
        Ok(Self { cap: cap.max(4096), file: Some(file), ..Self::untouched(path) })
    }

    /// Continues the log at `path` behind its first `length` bytes.
    pub(crate) fn resume(path: &Path, cap: u64, length: u64) -> Result<Self> {
        let file = durable::open_log(path)?;
        file.set_len(length).doing("shortening the log", path)?;
        Ok(Self { cap: cap.max(4096), file: Some(file), written: length, ..Self::untouched(path) })
    }

    /// A log at `path` that is left as it is: nothing can be written to it.
    pub(crate) fn untouched(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            files: Arc::new(OwnFiles),
            cap: 0,
            file: None,
            written: 0,
            failing: false,
            trouble: None,
        }
    }

    /// Has `files` set it aside from now on, because this process is about to lose its directory.
    pub(crate) fn entrust(&mut self, files: Arc<dyn LogFiles>) {
        self.files = files;
    }

    /// The descriptor of its file.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.file.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Appends `bytes` as one piece, setting the file aside first if they do not fit; whether it was written.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> bool {
        if !self.has_room_for(bytes.len()) {
            self.set_aside();
        }
        let written = self.write(bytes);
        let failed_before = std::mem::replace(&mut self.failing, written.is_err());
        match written {
            Ok(()) => true,
            Err(error) => {
                if !failed_before {
                    self.trouble = Some(LogTrouble::LeftOut(error));
                }
                false
            }
        }
    }

    /// Warns of what has come in the way of this log; never to be called for the log that warnings go to.
    pub(crate) fn report_trouble(&mut self) {
        let path = self.path.display();
        match self.trouble.take() {
            None => {}
            Some(LogTrouble::LeftOut(error)) => {
                tracing::warn!(%error, %path, "a log could not be written; what follows is left out until it can");
            }
            Some(LogTrouble::StartedOver(error)) => {
                tracing::warn!(error = %error.chain(), %path, "a log could not be rotated and starts over");
            }
        }
    }

    /// Whether a piece of `length` bytes fits without setting the file aside.
    pub(crate) fn has_room_for(&self, length: usize) -> bool {
        self.written == 0 || self.written + length as u64 <= self.cap
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        match file.write_all(bytes) {
            Ok(()) => {
                self.written += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A piece is in the file whole or not at all.
                let _ = file.set_len(self.written);
                Err(error)
            }
        }
    }

    /// Makes the file the old one, in the place of that, and continues with an empty one.
    pub(crate) fn set_aside(&mut self) {
        match self.files.set_aside(&self.path) {
            Ok(file) => self.file = Some(file),
            Err(error) => {
                self.trouble = Some(LogTrouble::StartedOver(error));
                if let Some(file) = &self.file {
                    let _ = file.set_len(0);
                }
            }
        }
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation tried: without the rotation the total grew to the 100 000 bytes written.
    #[test]
    fn a_flood_takes_no_more_than_two_caps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut log = CappedFile::start(&path, 10_000).unwrap();
        for i in 0..1000_u32 {
            assert!(log.append(format!("{i:0>99}\n").as_bytes()));
        }
        let length = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert!(length(&path) <= 10_000 && length(&old_path(&path)) <= 10_000);
        let tail = std::fs::read_to_string(&path).unwrap();
        assert!(tail.ends_with("999\n"), "the newest words are kept");

        drop(log);
        CappedFile::start(&path, 10_000).unwrap();
        assert_eq!(std::fs::read_to_string(old_path(&path)).unwrap(), tail);
        assert_eq!(length(&path), 0);
    }

    #[test]
    fn a_full_disk_loses_words_and_nothing_else() {
        let full = File::options().append(true).open("/dev/full").unwrap();
        let nothing = CappedFile::untouched(Path::new("/dev/full"));
        let mut log = CappedFile { cap: 1 << 20, file: Some(full), ..nothing };
        assert!(!log.append(b"hello"));
        assert!(matches!(log.trouble.take(), Some(LogTrouble::LeftOut(_))));
        assert!(!log.append(b"hello"));
        assert!(log.trouble.is_none(), "it is reported once until something was written again");
    }
}
