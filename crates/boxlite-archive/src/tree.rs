//! A tree of files as a stream: what its files are, and then what those hold that somebody asks for.
//!
//! # Layout
//!
//! All numbers are little endian. A record is its length (`u32`) and so many bytes. First come the records of all files
//! ([`TreeFile`]), a directory before what is in it, and a record of no bytes. The reader answers with the places in that
//! list (`u32`, from 0) of the files that it wants, ascending, and [`SELECTION_END`]. For each of them follows a record
//! ([`FileDetail`]), and the bytes of its runs.
//!
//! # Limits
//!
//! The writer is not trusted: every length is checked before memory is set aside for it.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::{DataRun, MAX_RUNS, RunsReader, data_runs};

/// Ends a selection.
pub const SELECTION_END: u32 = u32::MAX;
/// The longest path, as the kernel has it.
const MAX_PATH: usize = 4096;
/// The longest record of a file.
const MAX_FILE_RECORD: usize = FIXED + MAX_PATH;
/// The longest record of what a file holds.
const MAX_DETAIL_RECORD: usize = 4 << 20;
/// The most extended attributes of a file.
const MAX_ATTRIBUTES: u32 = 4096;
/// Bytes of a file's record before its path.
const FIXED: usize = 68;

/// A time of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeTime {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Their fraction.
    pub nanoseconds: u32,
}

/// A file as its inode describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// Path without a leading slash; empty for the root.
    pub path: Vec<u8>,
    /// Inode number.
    pub inode: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub links: u32,
    /// Length in bytes.
    pub size: u64,
    /// Of a device: its number.
    pub device: u64,
    /// When its contents were modified.
    pub modified: TreeTime,
    /// When its inode was changed.
    pub changed: TreeTime,
}

/// The contents of a file, but for the bytes of its runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileDetail {
    /// Whether it was still there.
    pub present: bool,
    /// Extended attributes by their full names.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of a symbolic link: its target.
    pub target: Vec<u8>,
    /// Of a regular file: its length.
    pub length: u64,
    /// Of a regular file: the parts that are not holes, ascending.
    pub runs: Vec<DataRun>,
}

impl TreeFile {
    /// Writes the file's record.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut record = Vec::with_capacity(FIXED + self.path.len());
        record.extend(self.inode.to_le_bytes());
        for number in [self.mode, self.uid, self.gid, self.links] {
            record.extend(number.to_le_bytes());
        }
        record.extend(self.size.to_le_bytes());
        record.extend(self.device.to_le_bytes());
        for time in [self.modified, self.changed] {
            record.extend(time.seconds.to_le_bytes());
            record.extend(time.nanoseconds.to_le_bytes());
        }
        record.extend(&[0; 4]);
        record.extend(&self.path);
        write_record(out, &record)
    }

    /// Reads the next file's record; `None` at the end of the list.
    ///
    /// # Errors
    /// `InvalidData` for what no writer of this crate writes.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let record = read_record(from, MAX_FILE_RECORD)?;
        if record.is_empty() {
            return Ok(None);
        }
        let mut fields = RecordFields(&record);
        let inode = fields.long()?;
        let [mode, uid, gid, links] = [fields.word()?, fields.word()?, fields.word()?, fields.word()?];
        let (size, device) = (fields.long()?, fields.long()?);
        let (modified, changed) = (fields.time()?, fields.time()?);
        fields.word()?;
        let path = fields.0.to_vec();
        if !is_clean(&path) {
            return Err(malformed("a path is not one below the root"));
        }
        Ok(Some(Self { path, inode, mode, uid, gid, links, size, device, modified, changed }))
    }
}

impl FileDetail {
    /// Describes the contents of the regular `file`, which had `length` bytes when it was examined.
    pub fn describe(&mut self, file: &File, length: u64) {
        let runs = data_runs(file, length);
        self.length = length;
        self.runs = if runs.len() > MAX_RUNS { vec![DataRun { offset: 0, length }] } else { runs };
    }

    /// Writes the record, and the bytes of the runs, which are read from `file`; zeros where it has become shorter.
    pub fn write(&self, out: &mut impl Write, file: Option<File>) -> io::Result<()> {
        let mut record = vec![u8::from(self.present)];
        record.extend((self.attributes.len() as u32).to_le_bytes());
        let texts = self.attributes.iter().flat_map(|(name, value)| [name, value]).chain([&self.target]);
        for text in texts {
            record.extend((text.len() as u32).to_le_bytes());
            record.extend(text);
        }
        record.extend(self.length.to_le_bytes());
        for run in &self.runs {
            record.extend(run.offset.to_le_bytes());
            record.extend(run.length.to_le_bytes());
        }
        write_record(out, &record)?;
        if let Some(file) = file {
            io::copy(&mut RunsReader::new(file, self.runs.clone()), out)?;
        }
        Ok(())
    }

    /// Reads a record; the bytes of its runs are the caller's to read.
    ///
    /// # Errors
    /// `InvalidData` for what no writer of this crate writes.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let record = read_record(from, MAX_DETAIL_RECORD)?;
        let mut fields = RecordFields(&record);
        let present = fields.bytes(1)? == [1];
        let count = fields.word()?;
        if count > MAX_ATTRIBUTES {
            return Err(malformed("a file has too many extended attributes"));
        }
        let mut attributes = Vec::new();
        for _ in 0..count {
            attributes.push((fields.text()?, fields.text()?));
        }
        let (target, length) = (fields.text()?, fields.long()?);
        let mut runs: Vec<DataRun> = Vec::new();
        let mut end = 0;
        while !fields.0.is_empty() {
            let run = DataRun { offset: fields.long()?, length: fields.long()? };
            let stop = run.offset.checked_add(run.length).filter(|stop| *stop <= length);
            if run.offset < end || stop.is_none() || runs.len() == MAX_RUNS {
                return Err(malformed("the parts of a file overlap or lie behind its end"));
            }
            end = run.offset + run.length;
            runs.push(run);
        }
        Ok(Self { present, attributes, target, length, runs })
    }
}

/// Ends the list of files.
pub fn end_of_list(out: &mut impl Write) -> io::Result<()> {
    write_record(out, &[])
}

/// Reads a selection of at most `most` files.
///
/// # Errors
/// `InvalidData` for places that are not ascending or not in the list.
pub fn read_selection(from: &mut impl Read, most: usize) -> io::Result<Vec<u32>> {
    let mut selected: Vec<u32> = Vec::new();
    loop {
        let mut number = [0; 4];
        from.read_exact(&mut number)?;
        let place = u32::from_le_bytes(number);
        if place == SELECTION_END {
            return Ok(selected);
        }
        if place as usize >= most || selected.last().is_some_and(|last| *last >= place) {
            return Err(malformed("a selection names no file, or one twice"));
        }
        selected.push(place);
    }
}

fn is_clean(path: &[u8]) -> bool {
    let is_name =
        |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0) && name.len() <= 255;
    path.is_empty() || path.split(|byte| *byte == b'/').all(is_name)
}

fn write_record(out: &mut impl Write, record: &[u8]) -> io::Result<()> {
    out.write_all(&(record.len() as u32).to_le_bytes())?;
    out.write_all(record)
}

fn read_record(from: &mut impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > most {
        return Err(malformed("a record is longer than any can be"));
    }
    let mut record = vec![0; length];
    from.read_exact(&mut record)?;
    Ok(record)
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The rest of a record.
struct RecordFields<'a>(&'a [u8]);

impl<'a> RecordFields<'a> {
    fn bytes(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or_else(|| malformed("a record is cut off"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn word(&mut self) -> io::Result<u32> {
        let mut word = [0; 4];
        word.copy_from_slice(self.bytes(4)?);
        Ok(u32::from_le_bytes(word))
    }

    fn long(&mut self) -> io::Result<u64> {
        let mut long = [0; 8];
        long.copy_from_slice(self.bytes(8)?);
        Ok(u64::from_le_bytes(long))
    }

    fn time(&mut self) -> io::Result<TreeTime> {
        let seconds = self.long()?.cast_signed();
        let nanoseconds = self.word()?;
        if nanoseconds >= 1_000_000_000 {
            return Err(malformed("a fraction of a second is one or more"));
        }
        Ok(TreeTime { seconds, nanoseconds })
    }

    fn text(&mut self) -> io::Result<Vec<u8>> {
        let length = self.word()? as usize;
        Ok(self.bytes(length)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &[u8]) -> TreeFile {
        TreeFile {
            path: path.to_vec(),
            inode: 12,
            mode: 0o100_644,
            uid: 70_000,
            gid: 1,
            links: 1,
            size: 5,
            device: 0,
            modified: TreeTime { seconds: -1, nanoseconds: 999_999_999 },
            changed: TreeTime { seconds: 1 << 33, nanoseconds: 1 },
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut stream = Vec::new();
        for path in [&b""[..], b"etc/\xff", b"a/b/c"] {
            file(path).write(&mut stream).unwrap();
        }
        end_of_list(&mut stream).unwrap();
        let detail = FileDetail {
            present: true,
            attributes: vec![(b"user.a".to_vec(), b"\0b".to_vec())],
            target: b"to".to_vec(),
            length: 10,
            runs: vec![DataRun { offset: 2, length: 3 }, DataRun { offset: 5, length: 5 }],
        };
        detail.write(&mut stream, None).unwrap();
        let mut read = &stream[..];
        assert_eq!(TreeFile::read(&mut read).unwrap(), Some(file(b"")));
        assert_eq!(TreeFile::read(&mut read).unwrap(), Some(file(b"etc/\xff")));
        assert_eq!(TreeFile::read(&mut read).unwrap(), Some(file(b"a/b/c")));
        assert_eq!(TreeFile::read(&mut read).unwrap(), None);
        assert_eq!(FileDetail::read(&mut read).unwrap(), detail);
        assert!(read.is_empty());
    }

    /// Mutations tried: `..` as a name, runs that overlap, and records of any length, each fail this.
    #[test]
    fn what_a_hostile_writer_sends_is_refused() {
        for path in [&b"/etc"[..], b"a/../b", b"..", b"a//b", b"a/", b"a\0b", b".", &[b'x'; 256]] {
            let mut stream = Vec::new();
            file(path).write(&mut stream).unwrap();
            assert!(TreeFile::read(&mut &stream[..]).is_err(), "{path:?}");
        }
        for runs in [[(0, 5), (4, 2)], [(0, 1), (9, 2)], [(5, 1), (0, 1)], [(1, u64::MAX), (2, 1)]] {
            let runs = runs.map(|(offset, length)| DataRun { offset, length }).to_vec();
            let mut stream = Vec::new();
            FileDetail { present: true, length: 10, runs, ..FileDetail::default() }
                .write(&mut stream, None)
                .unwrap();
            assert!(FileDetail::read(&mut &stream[..]).is_err());
        }
        for hostile in
            [&[0xff_u8, 0xff, 0xff, 0xff][..], &[5, 0, 0, 0, 1], &[0, 0, 0x50, 0], &[1, 0, 0, 0, 0]]
        {
            assert!(TreeFile::read(&mut &hostile[..]).is_err(), "{hostile:?}");
            assert!(FileDetail::read(&mut &hostile[..]).is_err(), "{hostile:?}");
        }
        // Before memory is set aside for it.
        let endless = [0, 0, 0x50, 0];
        let kinds =
            [TreeFile::read(&mut &endless[..]).map(drop), FileDetail::read(&mut &endless[..]).map(drop)];
        for kind in kinds.map(|read| read.unwrap_err().kind()) {
            assert_eq!(kind, io::ErrorKind::InvalidData);
        }
        let selection: Vec<u8> =
            [3_u32, 3, SELECTION_END].iter().flat_map(|place| place.to_le_bytes()).collect();
        assert!(read_selection(&mut &selection[..], 9).is_err());
        assert!(read_selection(&mut &selection[..4], 9).is_err());
        assert!(read_selection(&mut &selection[..], 3).is_err());
    }
}
