//! A writer for the "newc" cpio format, as the kernel's Documentation/driver-api/early-userspace/buffer-format.rst
//! defines it. The same calls give the same bytes.

use std::io::Write;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// An archive being written; everything belongs to root and has time 0.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn directory(&mut self, path: &str, mode: u32) {
        self.entry(path, DIRECTORY | mode, &[]);
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entry(path, REGULAR | mode, contents);
    }

    /// Ends the archive and returns it.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entries = 0;
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entries += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let fields =
            [self.entries, mode, 0, 0, links, 0, contents.len() as u32, 0, 0, 0, 0, path.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            // Writing to a Vec does not fail.
            let _ = write!(self.bytes, "{field:08X}");
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }
}

/// The contents of the first member of an archive, if it is a file of that name and is wholly in `archive`.
pub(super) fn first_file<'a>(archive: &'a [u8], name: &str) -> Option<&'a [u8]> {
    const HEADER: usize = 110;
    let field = |at: usize| {
        let digits = std::str::from_utf8(archive.get(at..at + 8)?).ok()?;
        usize::from_str_radix(digits, 16).ok()
    };
    let (length, name_length) = (field(54)?, field(94)?);
    let named = archive.get(HEADER..HEADER + name.len())?;
    if !archive.starts_with(b"070701") || name_length != name.len() + 1 || named != name.as_bytes() {
        return None;
    }
    let start = (HEADER + name_length).next_multiple_of(4);
    archive.get(start..start.checked_add(length)?)
}

#[cfg(test)]
mod tests;
