//! The positions of a tar file's entries.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::rc::Rc;

use boxlite_types::{Doing, Error, ErrorCause, Result};

/// The most entries that are indexed; an image of 512 layers in Docker's old form has about 1 600.
const ENTRY_LIMIT: usize = 16_384;
/// The most links that a name is followed through.
const LINK_LIMIT: usize = 8;

/// The most bytes of an entry's headers, long names and extended attributes included: `tar` reads them into memory.
const HEADER_LIMIT: u64 = 1 << 20;

/// A tar file whose headers are read, and whose contents are passed over; headers of an entry that are too long are an
/// error.
pub(in crate::image) struct TarHeaderReader<R> {
    source: R,
    left: Rc<Cell<u64>>,
}

/// Lets the next entry's headers be read.
pub(in crate::image) struct HeaderAllowance(Rc<Cell<u64>>);

impl<R> TarHeaderReader<R> {
    pub(in crate::image) fn new(source: R) -> (Self, HeaderAllowance) {
        let left = Rc::new(Cell::new(HEADER_LIMIT));
        (Self { source, left: Rc::clone(&left) }, HeaderAllowance(left))
    }
}

impl HeaderAllowance {
    pub(in crate::image) fn renew(&self) {
        self.0.set(HEADER_LIMIT);
    }
}

impl<R: Read> Read for TarHeaderReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !buffer.is_empty() {
            let message = format!("the headers of an entry have more than {HEADER_LIMIT} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let wanted = left.min(buffer.len() as u64) as usize;
        let got = self.source.read(&mut buffer[..wanted])?;
        self.left.set(left - got as u64);
        Ok(got)
    }
}

impl<R: Seek> Seek for TarHeaderReader<R> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.source.seek(to)
    }
}

/// Where an entry's contents are in the file, or which entry it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ArchiveExtent {
    pub(super) offset: u64,
    pub(super) length: u64,
    link: Option<String>,
}

/// Reads the headers of the tar file `source`, which lies at `path`.
///
/// # Errors
/// `Corrupt` when it is not a tar file, is cut off, or has more entries than an image's archive can have.
pub(super) fn index(source: impl Read + Seek, path: &Path) -> Result<HashMap<String, ArchiveExtent>> {
    let broken = |why: &str| {
        Error::corrupt(format!("{} is no usable image archive: {why}", path.display()))
            .about(ErrorCause::LocalImage)
            .at(path)
    };
    let length = std::fs::metadata(path).doing("examining", path)?.len();
    let (headers, allowance) = TarHeaderReader::new(source);
    let mut archive = tar::Archive::new(headers);
    let mut entries = HashMap::new();
    for entry in archive.entries_with_seek().map_err(|error| broken(&error.to_string()))? {
        let entry = entry.map_err(|error| broken(&compressed_or(path, &error)))?;
        allowance.renew();
        if entries.len() >= ENTRY_LIMIT {
            return Err(broken(&format!("it has more than {ENTRY_LIMIT} entries")));
        }
        let name = normalise(&String::from_utf8_lossy(&entry.path_bytes()));
        let kind = entry.header().entry_type();
        let (offset, size) = (entry.raw_file_position(), entry.size());
        let link = (kind.is_symlink() || kind.is_hard_link())
            .then(|| entry.link_name_bytes())
            .flatten()
            .map(|target| resolve(&name, &String::from_utf8_lossy(&target), kind.is_symlink()));
        if link.is_none() && !kind.is_file() && !kind.is_contiguous() {
            continue;
        }
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(broken(&format!("it is cut off within {name}")));
        }
        entries.insert(name, ArchiveExtent { offset, length: size, link });
    }
    if entries.is_empty() {
        return Err(broken("it has no entries"));
    }
    Ok(entries)
}

/// The entry `name`, through the links that Docker writes for layers which occur twice.
pub(super) fn find<'a>(entries: &'a HashMap<String, ArchiveExtent>, name: &str) -> Option<&'a ArchiveExtent> {
    let mut extent = entries.get(&normalise(name))?;
    for _ in 0..LINK_LIMIT {
        match &extent.link {
            Some(target) => extent = entries.get(target)?,
            None => return Some(extent),
        }
    }
    None
}

fn compressed_or(path: &Path, error: &std::io::Error) -> String {
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    match (read, magic) {
        (Ok(()), [0x1f, 0x8b, ..]) => "it is compressed; uncompress it with gunzip first".to_owned(),
        (Ok(()), [0x28, 0xb5, 0x2f, 0xfd]) => "it is compressed; uncompress it with zstd -d first".to_owned(),
        _ => error.to_string(),
    }
}

/// The name without `.` components and leading slashes.
fn normalise(name: &str) -> String {
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    parts.join("/")
}

/// Resolves a link at `name` to `target` to a name within the archive, never to one outside.
fn resolve(name: &str, target: &str, relative: bool) -> String {
    let mut parts: Vec<&str> = match name.rsplit_once('/') {
        Some((directory, _)) if relative => directory.split('/').collect(),
        _ => Vec::new(),
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indexed(name_length: usize, count: usize) -> Result<usize> {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("x.tar");
        let mut builder = tar::Builder::new(Vec::new());
        for at in 0..count {
            let mut long = tar::Header::new_gnu();
            long.set_entry_type(tar::EntryType::GNULongName);
            long.set_size(name_length as u64);
            long.set_cksum();
            builder
                .append(&long, &*[at.to_string(), "x".repeat(name_length - 1)].concat().into_bytes())
                .unwrap();
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            header.set_cksum();
            builder.append(&header, &b"abc"[..]).unwrap();
        }
        std::fs::write(&path, builder.into_inner().unwrap()).unwrap();
        index(std::fs::File::open(&path).unwrap(), &path).map(|entries| entries.len())
    }

    #[test]
    fn headers_that_would_fill_the_memory_are_refused() {
        assert_eq!(indexed(300_000, 5).unwrap(), 5);
        let error = indexed(2 << 20, 1).unwrap_err();
        assert!(error.to_string().contains("headers of an entry"), "{error}");
    }
}
