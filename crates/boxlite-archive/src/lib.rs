//! Files in streams between host and guest: holes stay holes. [`append_file`] packs one into a tar stream, [`tree`] has
//! whole trees of them.
//!
//! In a tar stream a file with holes is a GNU sparse entry: a map of the runs that hold bytes, and those bytes.

pub mod tree;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::SeekFrom;
use tar::{Builder, EntryType, GnuExtSparseHeader, Header};

/// A file with more runs than this is packed whole.
const MAX_RUNS: usize = 1 << 16;

/// Bytes of a file that are not a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataRun {
    /// Where they begin in the file.
    pub offset: u64,
    /// How many they are.
    pub length: u64,
}

/// Packs the regular `file`, which had `length` bytes when it was examined, as `name`; a file that grows or shrinks meanwhile does
/// not shift what follows it. Returns the bytes that were stored.
pub fn append_file(
    archive: &mut Builder<impl Write>,
    mut header: Header,
    name: &Path,
    file: File,
    length: u64,
) -> io::Result<u64> {
    let mut runs = data_runs(&file, length);
    let whole = [DataRun { offset: 0, length }];
    let mut maps = Vec::new();
    if runs == whole || runs.len() > MAX_RUNS || length == 0 {
        runs = whole.to_vec();
    } else {
        // The map of a file that ends in a hole ends in an empty run.
        if runs.last().is_none_or(|last| last.offset + last.length < length) {
            runs.push(DataRun { offset: length, length: 0 });
        }
        header.set_entry_type(EntryType::GNUSparse);
        let gnu = header.as_gnu_mut().ok_or_else(|| io::Error::other("the header has another form"))?;
        gnu.set_real_size(length);
        let mut rest = runs.iter();
        for (block, run) in gnu.sparse.iter_mut().zip(&mut rest) {
            block.set_offset(run.offset);
            block.set_length(run.length);
        }
        let in_header = gnu.sparse.len().min(runs.len());
        gnu.set_is_extended(runs.len() > in_header);
        let mut chunks = runs[in_header..].chunks(21).peekable();
        while let Some(chunk) = chunks.next() {
            let mut more = GnuExtSparseHeader::new();
            for (block, run) in more.sparse_mut().iter_mut().zip(chunk) {
                block.set_offset(run.offset);
                block.set_length(run.length);
            }
            more.set_is_extended(chunks.peek().is_some());
            maps.extend_from_slice(more.as_bytes());
        }
    }
    let stored = runs.iter().map(|run| run.length).sum();
    header.set_size(stored);
    let contents = RunsReader::new(file, runs);
    archive.append_data(&mut header, name, maps.as_slice().chain(contents))?;
    Ok(stored)
}

/// Returns the parts of the file below `length` that are not holes; one part where the filesystem knows no holes.
fn data_runs(file: &File, length: u64) -> Vec<DataRun> {
    let (mut runs, mut at) = (Vec::new(), 0);
    while at < length && runs.len() <= MAX_RUNS {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => return vec![DataRun { offset: 0, length }],
        };
        let Ok(end) = rustix::fs::seek(file, SeekFrom::Hole(start)) else {
            return vec![DataRun { offset: 0, length }];
        };
        if start >= length || end <= start {
            break;
        }
        runs.push(DataRun { offset: start, length: end.min(length) - start });
        at = end;
    }
    runs
}

/// Reads the runs of a file one after the other; zeros where the file has ended early.
struct RunsReader {
    file: File,
    runs: std::vec::IntoIter<DataRun>,
    left: u64,
}

impl RunsReader {
    fn new(file: File, runs: Vec<DataRun>) -> Self {
        Self { file, runs: runs.into_iter(), left: 0 }
    }
}

impl Read for RunsReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let Some(run) = self.runs.next() else { return Ok(0) };
            self.file.seek(io::SeekFrom::Start(run.offset))?;
            self.left = run.length;
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = match self.file.read(&mut buffer[..most])? {
            0 => {
                buffer[..most].fill(0);
                most
            }
            count => count,
        };
        self.left -= count as u64;
        Ok(count)
    }
}
