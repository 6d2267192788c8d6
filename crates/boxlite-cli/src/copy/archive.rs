//! Reads the tar stream of a box, which is not trusted.
//!
//! # Limits
//!
//! The `tar` crate reads a long name and writes out the holes of a sparse file, however large they claim to be: 2 KB of
//! archive took 1.5 GB of memory, or 2 GB of disk. Here a name has at most [`MAX_NAME`] bytes, a header [`MAX_PAX`], and
//! a file is a list of the runs of bytes that do arrive.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use boxlite_archive::DataRun;
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header, PaxExtensions};

/// Length of a block; headers and contents begin at multiples of it.
const BLOCK: usize = 512;
/// Longest name or link target, in bytes: no path that Linux accepts is longer.
const MAX_NAME: u64 = 4096;
/// Longest extended header, in bytes: room for two names and some figures.
const MAX_PAX: u64 = 16 << 10;
/// Most runs of bytes in one sparse file.
const MAX_RUNS: usize = 1 << 18;

/// One file, directory or link of the archive.
#[derive(Debug)]
pub(super) struct ArchiveEntry {
    pub(super) path: PathBuf,
    pub(super) link: Option<PathBuf>,
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    /// Seconds since 1970.
    pub(super) modified: Option<u64>,
    /// Length of the file in bytes, holes included.
    pub(super) length: u64,
    /// Bytes of the file that follow in the archive.
    pub(super) stored: u64,
    /// The parts of the file that follow, in ascending order; the rest is holes.
    pub(super) runs: Vec<DataRun>,
}

/// Values for an entry from the headers before its own.
#[derive(Debug, Default)]
struct EntryOverrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<u64>,
}

/// A tar stream, entry after entry. Reading from it reads the contents of the current entry.
#[derive(Debug)]
pub(super) struct IncomingArchive<R> {
    inner: R,
    /// Bytes of the current entry that have not been read.
    left: u64,
    padding: u64,
}

impl<R: Read> IncomingArchive<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// Skips what is left of the current entry and returns the next one; `None` at the block that ends the archive.
    ///
    /// # Errors
    /// `UnexpectedEof` when the stream ends without that block.
    pub(super) fn next(&mut self) -> io::Result<Option<ArchiveEntry>> {
        let mut overrides = EntryOverrides::default();
        loop {
            self.skip()?;
            let mut header = Header::new_old();
            self.inner.read_exact(header.as_mut_bytes())?;
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            check_sum(&header)?;
            let kind = header.entry_type();
            let size = header.entry_size()?;
            match kind {
                EntryType::GNULongName => overrides.path = Some(self.text(size, MAX_NAME, "a name")?),
                EntryType::GNULongLink => {
                    overrides.link = Some(self.text(size, MAX_NAME, "a link's target")?);
                }
                EntryType::XHeader => {
                    let text = self.text(size, MAX_PAX, "an extended header")?;
                    overrides.read(&text)?;
                }
                EntryType::XGlobalHeader => self.begin(size),
                _ => return self.entry(&header, overrides).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, overrides: EntryOverrides) -> io::Result<ArchiveEntry> {
        let kind = header.entry_type();
        let stored = overrides.size.map_or_else(|| header.entry_size(), Ok)?;
        let path = overrides.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = overrides.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let (length, runs) = if kind == EntryType::GNUSparse {
            self.sparse_map(header, stored)?
        } else {
            (stored, vec![DataRun { offset: 0, length: stored }])
        };
        self.begin(stored);
        Ok(ArchiveEntry {
            path: name(path)?,
            link: link.map(name).transpose()?,
            kind,
            mode: header.mode()?,
            owner: (id(header.uid()), id(header.gid())),
            modified: overrides.modified.or_else(|| header.mtime().ok()),
            length,
            stored,
            runs,
        })
    }

    /// Returns the length of a sparse file and its runs, which hold `stored` bytes altogether.
    fn sparse_map(&mut self, header: &Header, stored: u64) -> io::Result<(u64, Vec<DataRun>)> {
        let gnu = header.as_gnu().ok_or_else(|| malformed("a sparse file without a GNU header"))?;
        let length = gnu.real_size()?;
        let mut map = SparseMap::default();
        map.add(&gnu.sparse)?;
        let mut goes_on = gnu.is_extended();
        while goes_on {
            let mut more = GnuExtSparseHeader::new();
            self.inner.read_exact(more.as_mut_bytes())?;
            map.add(more.sparse())?;
            goes_on = more.is_extended();
        }
        if map.stored != stored || map.end > length || i64::try_from(length).is_err() {
            return Err(malformed("the map of a sparse file does not fit the file"));
        }
        Ok((length, map.runs))
    }

    /// Reads a header's contents of at most `max` bytes, without the zero that ends a name.
    fn text(&mut self, size: u64, max: u64, what: &str) -> io::Result<Vec<u8>> {
        // A name is followed by a zero.
        if size > max + 1 {
            return Err(malformed(format!("{what} of {size} bytes; at most {max} are accepted")));
        }
        self.begin(size);
        let mut text = vec![0; size as usize];
        self.read_exact(&mut text)?;
        if text.last() == Some(&0) {
            text.pop();
        }
        Ok(text)
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip(&mut self) -> io::Result<()> {
        let count = u128::from(self.left) + u128::from(self.padding);
        (self.left, self.padding) = (0, 0);
        let count = u64::try_from(count).map_err(|_| malformed("an entry larger than any file"))?;
        if io::copy(&mut (&mut self.inner).take(count), &mut io::sink())? < count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

impl<R: Read> Read for IncomingArchive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}

#[derive(Debug, Default)]
struct SparseMap {
    runs: Vec<DataRun>,
    stored: u64,
    end: u64,
}

impl SparseMap {
    fn add(&mut self, blocks: &[GnuSparseHeader]) -> io::Result<()> {
        for block in blocks.iter().filter(|block| !block.is_empty()) {
            let run = DataRun { offset: block.offset()?, length: block.length()? };
            let end = run.offset.checked_add(run.length);
            if run.offset < self.end || end.is_none() || self.runs.len() == MAX_RUNS {
                return Err(malformed("the map of a sparse file overlaps or has too many parts"));
            }
            self.end = end.unwrap_or(u64::MAX);
            self.stored += run.length;
            self.runs.push(run);
        }
        Ok(())
    }
}

impl EntryOverrides {
    fn read(&mut self, text: &[u8]) -> io::Result<()> {
        for record in PaxExtensions::new(text) {
            let record = record?;
            let number = || record.value().ok().and_then(|text| text.split('.').next()?.parse().ok());
            match record.key().unwrap_or_default() {
                "path" => self.path = Some(record.value_bytes().to_vec()),
                "linkpath" => self.link = Some(record.value_bytes().to_vec()),
                "size" => self.size = Some(number().ok_or_else(|| malformed("a size that is not a number"))?),
                "mtime" => self.modified = number(),
                key if key.starts_with("GNU.sparse.") => {
                    return Err(malformed("a sparse file in a form that boxes do not send"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn name(bytes: Vec<u8>) -> io::Result<PathBuf> {
    if bytes.len() as u64 > MAX_NAME || bytes.contains(&0) {
        return Err(malformed(format!("a name of {} bytes that no file can have", bytes.len())));
    }
    Ok(OsString::from_vec(bytes).into())
}

/// An owner or group; one that is missing or that no file can have becomes the number that stands for "unchanged".
fn id(field: io::Result<u64>) -> u32 {
    field.ok().and_then(|id| u32::try_from(id).ok()).unwrap_or(u32::MAX)
}

fn check_sum(header: &Header) -> io::Result<()> {
    let bytes = header.as_bytes();
    // The sum is taken with spaces in the place of the field that holds it.
    let sum = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    if header.cksum()? == sum { Ok(()) } else { Err(malformed("a header's checksum is wrong")) }
}

fn malformed(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}
