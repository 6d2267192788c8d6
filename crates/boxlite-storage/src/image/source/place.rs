//! A set of named files: a directory, or the entries of a tar file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use boxlite_types::{Doing, Error, ErrorCause, Result};

use super::archive;

/// Where the files of an image lie.
#[derive(Debug)]
pub(super) enum SourcePlace {
    Directory(PathBuf),
    Archive { path: PathBuf, file: Arc<File>, entries: HashMap<String, archive::ArchiveExtent> },
}

/// The contents of one file, for sequential reading.
#[derive(Debug)]
pub(super) struct Slice {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl SourcePlace {
    pub(super) fn directory(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let message = format!("there is no image layout at {}: it is not a directory", path.display());
        Err(Error::not_found(message).at(path))
    }

    pub(super) fn archive(path: &Path) -> Result<Self> {
        let file = open_regular(path, path)?;
        let entries = archive::index(BufReader::new(&file), path)?;
        Ok(Self::Archive { path: path.to_owned(), file: Arc::new(file), entries })
    }

    /// The directory or the tar file.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Archive { path, .. } => path,
        }
    }

    /// Opens the file `name`.
    ///
    /// # Errors
    /// `Corrupt` when it is missing, because the image names it.
    pub(super) fn open(&self, name: &str) -> Result<Slice> {
        match self {
            Self::Directory(root) => {
                let path = root.join(within(name, root)?);
                let file = open_regular(&path, root)?;
                let end = file.metadata().doing("examining", &path)?.len();
                Ok(Slice { file: Arc::new(file), offset: 0, end })
            }
            Self::Archive { path, file, entries } => {
                let extent = archive::find(entries, name).ok_or_else(|| missing(name, path))?;
                Ok(Slice {
                    file: Arc::clone(file),
                    offset: extent.offset,
                    end: extent.offset + extent.length,
                })
            }
        }
    }

    /// Reads the file `name`, which has at most `limit` bytes.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let slice = self.open(name)?;
        if slice.length() > limit {
            let message = format!(
                "{name} in {} has {} bytes, and at most {limit} are read",
                self.path().display(),
                slice.length()
            );
            return Err(Error::corrupt(message).about(ErrorCause::LocalImage).at(self.path()));
        }
        let mut bytes = Vec::with_capacity(slice.length() as usize);
        slice.take(limit).read_to_end(&mut bytes).doing("reading", self.path().join(name))?;
        Ok(bytes)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory(root) => within(name, root).is_ok_and(|name| root.join(name).is_file()),
            Self::Archive { entries, .. } => archive::find(entries, name).is_some(),
        }
    }
}

/// Tells one place from another: device, inode, and where in the file.
pub(super) type SliceIdentity = (u64, u64, u64, u64);

impl Slice {
    /// Where the whole contents lie, before any of them are read.
    pub(super) fn identity(&self) -> io::Result<SliceIdentity> {
        let file = self.file.metadata()?;
        Ok((file.dev(), file.ino(), self.offset, self.end))
    }

    pub(super) fn length(&self) -> u64 {
        self.end - self.offset
    }

    /// Skips `bytes` bytes.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.offset = self.offset.saturating_add(bytes).min(self.end);
    }
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = self.length().min(buffer.len() as u64) as usize;
        let got = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        self.offset += got as u64;
        Ok(got)
    }
}

/// Refuses a name that leads out of the directory.
fn within<'a>(name: &'a str, root: &Path) -> Result<&'a Path> {
    let path = Path::new(name);
    if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Ok(path);
    }
    let message = format!("the image at {} names the file '{name}', which is outside of it", root.display());
    Err(Error::corrupt(message).about(ErrorCause::LocalImage).at(root))
}

/// Opens a regular file without ever waiting for a FIFO's other end.
fn open_regular(path: &Path, image: &Path) -> Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound && path == image => {
            return Err(Error::not_found(format!("there is no image at {}", path.display())).at(path));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.strip_prefix(image).unwrap_or(path).display().to_string();
            return Err(missing(&name, image));
        }
        Err(error) => return Err(Error::io("opening", path, error)),
    };
    if !file.metadata().doing("examining", path)?.is_file() {
        return Err(Error::invalid(format!("{} is not a regular file", path.display())).at(path));
    }
    Ok(file)
}

fn missing(name: &str, image: &Path) -> Error {
    Error::corrupt(format!("the image at {} is incomplete: it lacks {name}", image.display()))
        .about(ErrorCause::LocalImage)
        .at(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_not_left() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("image");
        std::fs::create_dir(&root).unwrap();
        for directory in [scratch.path(), &root] {
            std::fs::write(directory.join("file"), b"x").unwrap();
        }
        let place = SourcePlace::directory(&root).unwrap();
        assert!(place.has("file") && place.has("./file"));
        let absolute = scratch.path().join("file").display().to_string();
        for name in ["../file", "./../file", &*absolute] {
            assert!(!place.has(name), "{name}");
            assert_eq!(place.open(name).unwrap_err().kind(), boxlite_types::ErrorKind::Corrupt, "{name}");
        }
    }
}
