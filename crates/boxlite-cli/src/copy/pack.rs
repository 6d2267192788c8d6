//! A file or directory of the host, packed as a tar stream.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::endpoint::means_contents;
use crate::report::CommandFailure;

/// What to pack, checked to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopySource {
    path: PathBuf,
    /// Name of the top entry; `.` for the contents of a directory.
    name: PathBuf,
}

/// What was packed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Bytes of file contents.
    pub(crate) bytes: u64,
    /// Sockets, which a tar stream cannot hold.
    pub(crate) skipped: Vec<PathBuf>,
}

impl CopySource {
    /// Examines the path as it was written.
    pub(crate) fn find(text: &str) -> Result<Self, CommandFailure> {
        // A trailing `/` or `/.` follows a link, as in every program.
        let follow = text.ends_with('/') || means_contents(text);
        let path = PathBuf::from(text);
        let found = if follow { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
        let metadata = found.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CommandFailure::local(format!("{text} does not exist on this host")),
            io::ErrorKind::NotADirectory => {
                CommandFailure::local(format!("{text} is a file, not a directory"))
            }
            _ => CommandFailure::local(format!("examining {text} failed: {error}")),
        })?;
        if metadata.file_type().is_socket() {
            return Err(CommandFailure::local(format!("{text} is a socket, which cannot be copied")));
        }
        if means_contents(text) {
            return Ok(Self { path, name: ".".into() });
        }
        let name = match path.file_name() {
            Some(name) => PathBuf::from(name),
            // `/` and paths that end in `..`.
            None => fs::canonicalize(&path)
                .ok()
                .and_then(|path| path.file_name().map(PathBuf::from))
                .unwrap_or_else(|| ".".into()),
        };
        Ok(Self { path, name })
    }
}

/// Writes `source` as a tar stream; links are packed as links.
pub(crate) fn pack(source: &CopySource, to: impl Write) -> io::Result<Packed> {
    let mut packed = Packed::default();
    let mut archive = Builder::new(to);
    let mut waiting = vec![(source.path.clone(), source.name.clone())];
    let mut top = true;
    while let Some((path, name)) = waiting.pop() {
        // The top entry was looked at through a link where the path says so.
        let metadata =
            if top && means_directory(&path) { fs::metadata(&path) } else { fs::symlink_metadata(&path) }
                .map_err(|error| naming(&path, &error))?;
        top = false;
        if metadata.file_type().is_socket() {
            packed.skipped.push(path);
            continue;
        }
        packed.bytes +=
            append(&mut archive, &path, &name, &metadata).map_err(|error| naming(&path, &error))?;
        if metadata.is_dir() {
            let mut children = fs::read_dir(&path)
                .and_then(Iterator::collect::<io::Result<Vec<_>>>)
                .map_err(|error| naming(&path, &error))?;
            // The last one is packed first.
            children.sort_by_key(|child| std::cmp::Reverse(child.file_name()));
            waiting.extend(children.into_iter().map(|child| (child.path(), name.join(child.file_name()))));
        }
    }
    archive.into_inner()?.flush()?;
    Ok(packed)
}

fn means_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b"."
}

fn append(
    archive: &mut Builder<impl Write>,
    path: &Path,
    name: &Path,
    metadata: &Metadata,
) -> io::Result<u64> {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    if metadata.is_file() {
        let length = metadata.len();
        // A file that grows or shrinks under us must not shift what follows it.
        let exactly = File::open(path)?.chain(io::repeat(0)).take(length);
        header.set_size(length);
        archive.append_data(&mut header, name, exactly)?;
        return Ok(length);
    }
    header.set_size(0);
    if metadata.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        archive.append_link(&mut header, name, fs::read_link(path)?)?;
    } else {
        // Directories, FIFOs and devices are only a header, whose type `set_metadata` has set.
        archive.append_data(&mut header, name, io::empty())?;
    }
    Ok(0)
}

/// Adds the path, except to an error of the stream itself.
fn naming(path: &Path, error: &io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return error.kind().into();
    }
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
