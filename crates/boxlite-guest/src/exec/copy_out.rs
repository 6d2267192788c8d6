//! Packing a path as a tar stream.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use boxlite_proto::OpFailure;
use tar::{Builder, EntryType, Header};

use super::outcome::Refusal;

/// Packs `path` into `out` and returns the bytes written.
///
/// The top-level entry is named after the path, or `.` for a path that ends in `/.`. Sockets are left out, as they mean
/// nothing elsewhere, and so is what lies in filesystems that are mounted below the path and are no part of the box; hard
/// links within the tree stay linked.
pub(super) fn pack(out: impl Write, path: &str, follow: bool) -> Result<u64, Refusal> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Refusal::invalid(format!("{path:?} is not an absolute path")));
    }
    let contents = path.ends_with("/.");
    let examining = |e: io::Error| Refusal::std_io(&format!("examining {path}"), &e);
    let source = if follow || contents || path.ends_with('/') {
        std::fs::canonicalize(path).map_err(examining)?
    } else {
        PathBuf::from(path)
    };
    let metadata = std::fs::symlink_metadata(&source).map_err(examining)?;
    if (contents || path.ends_with('/')) && !metadata.is_dir() {
        return Err(Refusal::new(OpFailure::WrongKind, format!("{path} is not a directory")));
    }
    let directory = if metadata.is_dir() { Some(source.as_path()) } else { source.parent() };
    if matches!(filesystem(directory.unwrap_or(&source)).map_err(examining)?, PROC | SYSFS) {
        return Err(Refusal::invalid(format!("{path} is made up by the kernel and cannot be copied")));
    }
    let name = match Path::new(path).file_name() {
        Some(name) if !contents => PathBuf::from(name),
        _ => PathBuf::from("."),
    };
    let mut pack = Pack { builder: Builder::new(Counted { inner: out, bytes: 0 }), linked: HashMap::new() };
    pack.tree(source, name).map_err(|(at, e)| Refusal::std_io(&format!("packing {}", at.display()), &e))?;
    let counted = pack.builder.into_inner().map_err(|e| Refusal::std_io("ending the archive", &e))?;
    Ok(counted.bytes)
}

/// Magic numbers of filesystems (statfs(2)).
const EXT4: u32 = 0xef53;
const FUSE: u32 = 0x6573_5546;
const PROC: u32 = 0x9fa0;
const SYSFS: u32 = 0x6265_6572;

/// What kind of filesystem a directory lies in.
fn filesystem(directory: &Path) -> io::Result<u32> {
    Ok(rustix::fs::statfs(directory)?.f_type as u32)
}

/// Whether a mounted directory is the box's disk or shared with the host, and not the kernel's or in memory.
fn is_part_of_the_box(directory: &Path) -> io::Result<bool> {
    Ok(matches!(filesystem(directory)?, EXT4 | FUSE))
}

struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Pack<W: Write> {
    builder: Builder<Counted<W>>,
    /// First name of each file that has several.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Pack<W> {
    fn tree(&mut self, source: PathBuf, name: PathBuf) -> Result<(), (PathBuf, io::Error)> {
        let mut pending = vec![(source, name, None)];
        while let Some((at, name, above)) = pending.pop() {
            match self.entry(&at, &name) {
                Ok(Some(device)) => {
                    let goes_on = above.is_none_or(|above| above == device);
                    if !goes_on && !is_part_of_the_box(&at).map_err(|e| (at.clone(), e))? {
                        continue;
                    }
                    let mut children = Vec::new();
                    for child in std::fs::read_dir(&at).map_err(|e| (at.clone(), e))? {
                        let child = child.map_err(|e| (at.clone(), e))?.file_name();
                        children.push((at.join(&child), name.join(&child), Some(device)));
                    }
                    // The last is packed first.
                    children.sort_unstable_by(|a, b| b.cmp(a));
                    pending.append(&mut children);
                }
                Ok(None) => {}
                // Gone since its directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !pending.is_empty() => {}
                Err(error) => return Err((at, error)),
            }
        }
        Ok(())
    }

    /// Packs one file; of a directory, the device that it lies on.
    fn entry(&mut self, at: &Path, name: &Path) -> io::Result<Option<u64>> {
        let metadata = std::fs::symlink_metadata(at)?;
        let kind = metadata.file_type();
        let mut header = Header::new_gnu();
        header.set_metadata(&metadata);
        if kind.is_dir() {
            self.builder.append_data(&mut header, name, io::empty())?;
            return Ok(Some(metadata.dev()));
        }
        if kind.is_socket() {
            return Ok(None);
        }
        if metadata.nlink() > 1 {
            let identity = (metadata.dev(), metadata.ino());
            if let Some(first) = self.linked.get(&identity) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                self.builder.append_link(&mut header, name, first)?;
                return Ok(None);
            }
            self.linked.insert(identity, name.to_owned());
        }
        if kind.is_symlink() {
            header.set_size(0);
            self.builder.append_link(&mut header, name, std::fs::read_link(at)?)?;
        } else if kind.is_file() {
            self.file(header, at, name, &metadata)?;
        } else {
            header.set_size(0);
            header.set_device_major(rustix::fs::major(metadata.rdev()))?;
            header.set_device_minor(rustix::fs::minor(metadata.rdev()))?;
            self.builder.append_data(&mut header, name, io::empty())?;
        }
        Ok(None)
    }

    /// Packs a file with the length it had when it was examined, although it may grow or shrink meanwhile.
    fn file(&mut self, mut header: Header, at: &Path, name: &Path, metadata: &Metadata) -> io::Result<()> {
        let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(at)?;
        let length = metadata.len();
        header.set_size(length);
        let exactly = file.take(length).chain(io::repeat(0)).take(length);
        self.builder.append_data(&mut header, name, exactly)
    }
}
