//! A file or directory of the host, packed as a tar stream.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::endpoint::means_contents;
use super::skipped::SkippedPaths;
use crate::report::CommandFailure;

/// A file or directory to pack, checked to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopySource {
    path: PathBuf,
    /// Name of the top entry; `.` for the contents of a directory.
    name: PathBuf,
    /// Whether the top entry is what a link points to.
    follow: bool,
}

/// Totals of a packed archive.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Bytes of file contents, holes left out.
    pub(crate) bytes: u64,
    /// Sockets, which a tar stream cannot hold.
    pub(crate) skipped: SkippedPaths,
}

impl CopySource {
    /// Examines the path as it was written. With `follow`, a link stands for what it points to.
    pub(crate) fn find(text: &str, follow: bool) -> Result<Self, CommandFailure> {
        // A trailing `/` or `/.` follows a link, as in every program.
        let follow = follow || text.ends_with('/') || means_contents(text);
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
            return Ok(Self { path, name: ".".into(), follow });
        }
        let name = match path.file_name() {
            Some(name) => PathBuf::from(name),
            // `/` and paths that end in `..`.
            None => fs::canonicalize(&path)
                .ok()
                .and_then(|path| path.file_name().map(PathBuf::from))
                .unwrap_or_else(|| ".".into()),
        };
        Ok(Self { path, name, follow })
    }
}

/// Writes `source` as a tar stream: links as links, further names of one file as such, holes as holes.
pub(crate) fn pack(source: &CopySource, to: impl Write) -> io::Result<Packed> {
    let mut packed = Packed::default();
    let mut archive = Builder::new(to);
    let mut linked = HashMap::new();
    let mut waiting = vec![(source.path.clone(), source.name.clone())];
    let mut follow = source.follow;
    while let Some((path, name)) = waiting.pop() {
        let found = if follow { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
        let metadata = found.map_err(|error| naming(&path, &error))?;
        if metadata.file_type().is_socket() {
            packed.skipped.add(&path);
            continue;
        }
        packed.bytes += append(&mut archive, &path, &name, &metadata, follow, &mut linked)
            .map_err(|error| naming(&path, &error))?;
        if metadata.is_dir() {
            let mut children = fs::read_dir(&path)
                .and_then(Iterator::collect::<io::Result<Vec<_>>>)
                .map_err(|error| naming(&path, &error))?;
            // The last one is packed first.
            children.sort_by_key(|child| std::cmp::Reverse(child.file_name()));
            waiting.extend(children.into_iter().map(|child| (child.path(), name.join(child.file_name()))));
        }
        // Only the top entry is looked at through a link.
        follow = false;
    }
    archive.into_inner()?.flush()?;
    Ok(packed)
}

/// Packs one file; `linked` has the first name of each file with several. Returns the bytes of its contents.
fn append(
    archive: &mut Builder<impl Write>,
    path: &Path,
    name: &Path,
    metadata: &Metadata,
    follow: bool,
    linked: &mut HashMap<(u64, u64), PathBuf>,
) -> io::Result<u64> {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    if !metadata.is_dir() && metadata.nlink() > 1 {
        let identity = (metadata.dev(), metadata.ino());
        if let Some(first) = linked.get(&identity) {
            header.set_entry_type(EntryType::Link);
            header.set_size(0);
            archive.append_link(&mut header, name, first)?;
            return Ok(0);
        }
        linked.insert(identity, name.to_owned());
    }
    if metadata.is_file() {
        let link = if follow { 0 } else { libc::O_NOFOLLOW };
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | link).open(path)?;
        return boxlite_archive::append_file(archive, header, name, file, metadata.len());
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
