//! The positions of a tar file's entries.

use std::collections::HashMap;
use std::io::{Read, Seek};
use std::path::Path;

use boxlite_types::{Doing, Error, ErrorCause, Result};

/// The most entries that are indexed; an image of 512 layers in Docker's old form has about 1 600.
const ENTRY_LIMIT: usize = 16_384;
/// The most links that a name is followed through.
const LINK_LIMIT: usize = 8;

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
    let mut archive = tar::Archive::new(source);
    let mut entries = HashMap::new();
    for entry in archive.entries_with_seek().map_err(|error| broken(&error.to_string()))? {
        let entry = entry.map_err(|error| broken(&compressed_or(path, &error)))?;
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
