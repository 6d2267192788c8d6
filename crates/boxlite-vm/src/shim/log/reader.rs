//! Reading `main.log`, also while it is being written.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxlite_proto::Stream;
use boxlite_types::{Doing, Error, Result};
use bytes::Bytes;

use super::files::{LogFiles, OwnFiles};
use super::record::{HEADER_LEN, Header, MARK_LEN, RecordKind};

/// A piece of the main process's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The run that it is of, counted from 1 over the life of the box.
    pub run: u64,
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
    /// The run of which the next record is.
    run: u64,
    /// Records of other runs are left out, and of this one what precedes the position.
    only: Option<(u64, u64)>,
    /// Behind the last record that was returned: its run, and the position in that.
    passed: (u64, u64),
    failed: bool,
}

#[derive(Debug)]
struct Opened {
    reader: BufReader<File>,
    path: PathBuf,
}

/// The kept output of one run.
#[derive(Debug, Clone)]
pub(crate) struct RunLog {
    pub(super) path: PathBuf,
    pub(super) run: u64,
    pub(super) files: Arc<dyn LogFiles>,
}

impl RunLog {
    /// The run's number.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// Opens it to read from position `from` on.
    pub(crate) fn read_from(&self, from: u64) -> Result<MainLog> {
        MainLog::open_only(&*self.files, &self.path, Some((self.run, from)))
    }
}

impl MainLog {
    /// Opens the log at `path` (and its old part) to read all runs; a missing log is empty.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_only(&OwnFiles, path, None)
    }

    /// The same for one run, from position `from` of its output on.
    pub fn open_run(path: &Path, run: u64, from: u64) -> Result<Self> {
        Self::open_only(&OwnFiles, path, Some((run, from)))
    }

    /// Returns the runs of which the log at `path` has something: the first, and the last that was begun.
    pub fn runs(path: &Path) -> Result<Option<RangeInclusive<u64>>> {
        let mut runs: Option<RangeInclusive<u64>> = None;
        for opened in open_files(&OwnFiles, path)? {
            let last = runs.as_ref().map_or(0, |runs| *runs.end());
            if let Some(found) = opened.scan(last)?.runs {
                let first = runs.map_or(*found.start(), |runs| *runs.start());
                runs = Some(first..=*found.end());
            }
        }
        Ok(runs)
    }

    fn open_only(files: &dyn LogFiles, path: &Path, only: Option<(u64, u64)>) -> Result<Self> {
        let files = open_files(files, path)?.into_iter();
        Ok(Self { files, current: None, run: 0, only, passed: (0, 0), failed: false })
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
            let stream = match header.kind {
                RecordKind::Output(stream) => stream,
                RecordKind::RunMark => {
                    match opened.mark()? {
                        Some(run) => self.run = run,
                        None => self.current = None,
                    }
                    continue;
                }
            };
            let (run, end) = (self.run.max(1), header.position + header.length as u64);
            if run > self.passed.0 {
                let from = self.only.filter(|only| only.0 == run).map_or(0, |only| only.1);
                self.passed = (run, from);
            }
            let unwanted = self.only.is_some_and(|only| only.0 != run);
            if unwanted || (run, end) <= self.passed {
                opened.skip(header.length)?;
                continue;
            }
            let mut bytes = vec![0; header.length];
            if !opened.fill(&mut bytes)? {
                self.current = None;
                continue;
            }
            let skip = self.passed.1.saturating_sub(header.position);
            self.passed.1 = end;
            return Ok(Some(Record {
                run,
                stream,
                position: header.position + skip,
                at_unix_ms: header.at_unix_ms,
                bytes: Bytes::from(bytes).slice(skip as usize..),
            }));
        }
    }
}

/// Opens the log at `path` and its old part, the older first.
fn open_files(files: &dyn LogFiles, path: &Path) -> Result<Vec<Opened>> {
    let opened = |file| Opened { reader: BufReader::with_capacity(128 << 10, file), path: path.to_owned() };
    Ok(files.open(path)?.into_iter().rev().map(opened).collect())
}

/// The contents of one file of a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileScan {
    /// The runs of which it has a mark or output.
    pub(super) runs: Option<RangeInclusive<u64>>,
    /// Bytes of whole records at its beginning.
    pub(super) whole: u64,
}

/// Scans the file at `path`, whose first records are of run `run` unless a mark precedes them.
pub(super) fn scan(path: &Path, run: u64) -> Result<FileScan> {
    match File::open(path) {
        Ok(file) => Opened { reader: BufReader::new(file), path: path.to_owned() }.scan(run),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(FileScan { runs: None, whole: 0 }),
        Err(error) => Err(Error::io("opening the log", path, error)),
    }
}

impl Opened {
    /// Looks at every record up to the first that is damaged or not whole.
    fn scan(mut self, mut run: u64) -> Result<FileScan> {
        let length = self.reader.get_ref().metadata().doing("examining", &self.path)?.len();
        let mut found = FileScan { runs: None, whole: 0 };
        loop {
            let header = match self.header() {
                Ok(Some(header)) => header,
                Err(error) if error.kind() == boxlite_types::ErrorKind::Corrupt => return Ok(found),
                Ok(None) => return Ok(found),
                Err(error) => return Err(error),
            };
            let end = found.whole + (HEADER_LEN + header.length) as u64;
            if end > length {
                return Ok(found);
            }
            match header.kind {
                RecordKind::RunMark => run = self.mark()?.unwrap_or(run),
                RecordKind::Output(_) => self.skip(header.length)?,
            }
            found.whole = end;
            let first = found.runs.map_or(run.max(1), |runs| *runs.start());
            found.runs = Some(first..=run.max(1));
        }
    }

    /// The contents of a mark; `None` when they have not been written whole.
    fn mark(&mut self) -> Result<Option<u64>> {
        let mut number = [0; MARK_LEN];
        Ok(self.fill(&mut number)?.then(|| u64::from_le_bytes(number)))
    }

    fn skip(&mut self, length: usize) -> Result<()> {
        self.reader.seek_relative(length as i64).doing("reading the log", &self.path)
    }

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
    use super::super::old_path;
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
        let kept: Vec<Record> = MainLog::open(&path).unwrap().map(Result::unwrap).collect();
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
        let from: Vec<u8> = MainLog::open_run(&path, 1, 399_123)
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
        let kept: Vec<Record> = MainLog::open(&path).unwrap().map(Result::unwrap).collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(&kept[0].bytes[..], b"whole");

        std::fs::write(&path, [7; 100]).unwrap();
        let kinds: Vec<_> = MainLog::open(&path).unwrap().map(|r| r.unwrap_err().kind()).collect();
        assert_eq!(kinds, [boxlite_types::ErrorKind::Corrupt]);
    }

    fn said(log: MainLog) -> Vec<(u64, u64, String)> {
        let text = |record: &Record| String::from_utf8(record.bytes.to_vec()).unwrap();
        log.map(Result::unwrap).map(|record| (record.run, record.position, text(&record))).collect()
    }

    #[test]
    fn runs_are_told_apart_and_a_torn_record_ends_only_its_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main.log");
        assert_eq!(MainLog::runs(&path).unwrap(), None);
        for (run, words) in ["one", "two", "three"].into_iter().enumerate() {
            let mut log = MainLogWriter::start(&path, 1).unwrap();
            assert_eq!(log.kept().run, run as u64 + 1);
            log.append(Stream::Stdout, words.as_bytes());
            log.append(Stream::Stdout, b"torn");
            let length = std::fs::metadata(&path).unwrap().len();
            File::options().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
        }
        let of = |run: u64, text: &str| (run, 0, text.to_owned());
        assert_eq!(said(MainLog::open(&path).unwrap()), [of(1, "one"), of(2, "two"), of(3, "three")]);
        assert_eq!(said(MainLog::open_run(&path, 2, 0).unwrap()), [of(2, "two")]);
        assert_eq!(said(MainLog::open_run(&path, 2, 1).unwrap()), [(2, 1, "wo".to_owned())]);
        assert_eq!(MainLog::runs(&path).unwrap(), Some(1..=3));
        // A run that said nothing counts.
        MainLogWriter::start(&path, 1).unwrap();
        assert_eq!(MainLog::runs(&path).unwrap(), Some(1..=4));
    }

    #[test]
    fn old_runs_go_first_and_all_of_them_share_one_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main.log");
        for _ in 0..9 {
            let mut log = MainLogWriter::start(&path, 1).unwrap();
            for _ in 0..6 {
                log.append(Stream::Stdout, &[b'x'; 10_000]);
            }
        }
        let runs = MainLog::runs(&path).unwrap().unwrap();
        assert!(*runs.start() > 1 && *runs.end() == 9, "{runs:?}");
        let kept: u64 =
            [path.clone(), old_path(&path)].iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
        assert!(kept <= 4 * 65_560, "{kept}");
        let last: usize = said(MainLog::open_run(&path, 9, 0).unwrap()).iter().map(|said| said.2.len()).sum();
        assert_eq!(last, 60_000);
        let runs_of_records: Vec<u64> =
            said(MainLog::open(&path).unwrap()).into_iter().map(|said| said.0).collect();
        assert!(runs_of_records.is_sorted() && runs_of_records[0] == *runs.start(), "{runs_of_records:?}");
    }

    #[test]
    fn the_output_of_a_log_without_marks_is_of_run_1() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main.log");
        let kind = RecordKind::Output(Stream::Stdout);
        let header = Header { kind, length: 3, position: 0, at_unix_ms: 1 };
        std::fs::write(&path, [&header.encode()[..], b"old"].concat()).unwrap();
        let mut log = MainLogWriter::start(&path, 1).unwrap();
        log.append(Stream::Stdout, b"new");
        assert_eq!(said(MainLog::open(&path).unwrap()), [(1, 0, "old".to_owned()), (2, 0, "new".to_owned())]);
    }
}
