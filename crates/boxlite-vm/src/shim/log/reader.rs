//! Reading `main.log`, also while it is being written.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek};
use std::path::Path;

use boxlite_proto::Stream;
use boxlite_types::{Doing, Error, Result};
use bytes::Bytes;

use super::capped::old_path;
use super::record::{HEADER_LEN, Header};

/// A piece of the main process's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Standard output or standard error.
    pub stream: Stream,
    /// Position of the first byte in the output of the run, both streams counted together.
    pub position: u64,
    /// When the host received it, in milliseconds since the epoch.
    pub at_unix_ms: u64,
    /// The output.
    pub bytes: Bytes,
}

/// The kept output of the main process, oldest first: an iterator over the state at opening.
#[derive(Debug)]
pub struct MainLog {
    files: std::vec::IntoIter<Opened>,
    current: Option<Opened>,
    from: u64,
    failed: bool,
}

#[derive(Debug)]
struct Opened {
    reader: BufReader<File>,
    path: std::path::PathBuf,
}

impl MainLog {
    /// Opens the log at `path` (and its old part) to read from position `from` on; a missing log is empty.
    pub fn open(path: &Path, from: u64) -> Result<Self> {
        // The current file first: a rotation between the two opens then shows its records twice at worst, and
        // positions tell them apart.
        let mut files: Vec<Opened> = Vec::new();
        for path in [path.to_owned(), old_path(path)] {
            match File::open(&path) {
                Ok(file) => files.push(Opened { reader: BufReader::with_capacity(128 << 10, file), path }),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("opening the log", path, error)),
            }
        }
        files.reverse();
        Ok(Self { files: files.into_iter(), current: None, from, failed: false })
    }

    fn next_record(&mut self) -> Result<Option<Record>> {
        loop {
            let opened = match &mut self.current {
                Some(opened) => opened,
                None => match self.files.next() {
                    Some(opened) => self.current.insert(opened),
                    None => return Ok(None),
                },
            };
            let Some(header) = opened.header()? else {
                self.current = None;
                continue;
            };
            let end = header.position + header.length as u64;
            if end <= self.from {
                opened.reader.seek_relative(header.length as i64).doing("reading the log", &opened.path)?;
                continue;
            }
            let mut bytes = vec![0; header.length];
            if !opened.fill(&mut bytes)? {
                self.current = None;
                continue;
            }
            let skip = self.from.saturating_sub(header.position);
            self.from = end;
            return Ok(Some(Record {
                stream: header.stream,
                position: header.position + skip,
                at_unix_ms: header.at_unix_ms,
                bytes: Bytes::from(bytes).slice(skip as usize..),
            }));
        }
    }
}

impl Opened {
    /// `None` at the end, including a record of which only a part has been written.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = [0; HEADER_LEN];
        if !self.fill(&mut header)? {
            return Ok(None);
        }
        if let Some(header) = Header::decode(&header) {
            return Ok(Some(header));
        }
        let at = self.reader.stream_position().unwrap_or(0);
        let message = format!("{} has no record before byte {at}", self.path.display());
        Err(Error::corrupt(message).at(&self.path))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool> {
        match self.reader.read_exact(buffer) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(Error::io("reading the log", &self.path, error)),
        }
    }
}

impl Iterator for MainLog {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.next_record();
        self.failed = next.is_err();
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::MainLogWriter;
    use super::*;

    #[test]
    fn what_was_written_is_read_from_any_position_and_rotation_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main.log");
        let mut log = MainLogWriter::start(&path, 1).unwrap();
        let mut said = Vec::new();
        for i in 0..40_u32 {
            let stream = if i % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
            let words = vec![i as u8; 10_000];
            log.append(stream, &words);
            said.extend_from_slice(&words);
        }
        assert_eq!(log.position(), 400_000);
        let kept: Vec<Record> = MainLog::open(&path, 0).unwrap().map(Result::unwrap).collect();
        let first = kept[0].position as usize;
        assert!(
            first > 0 && first <= 400_000 - 131_120,
            "the oldest went, at least one file's worth stayed: {first}"
        );
        let bytes: Vec<u8> = kept.iter().flat_map(|record| record.bytes.to_vec()).collect();
        assert_eq!(bytes, said[first..]);
        for record in &kept {
            assert_eq!(record.stream == Stream::Stderr, record.bytes[0] % 3 == 0);
        }
        let from: Vec<u8> = MainLog::open(&path, 399_123)
            .unwrap()
            .flat_map(|record| record.unwrap().bytes.to_vec())
            .collect();
        assert_eq!(from, said[399_123..]);
    }

    #[test]
    fn a_torn_tail_ends_the_log_and_garbage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main.log");
        let mut log = MainLogWriter::start(&path, 1).unwrap();
        log.append(Stream::Stdout, b"whole");
        log.append(Stream::Stdout, b"torn");
        let length = std::fs::metadata(&path).unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
        let kept: Vec<Record> = MainLog::open(&path, 0).unwrap().map(Result::unwrap).collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(&kept[0].bytes[..], b"whole");

        std::fs::write(&path, [7; 100]).unwrap();
        let kinds: Vec<_> = MainLog::open(&path, 0).unwrap().map(|r| r.unwrap_err().kind()).collect();
        assert_eq!(kinds, [boxlite_types::ErrorKind::Corrupt]);
    }
}
