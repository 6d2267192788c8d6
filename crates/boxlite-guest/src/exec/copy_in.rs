//! Unpacks a tar stream with the semantics of `docker cp`.
//!
//! # Confinement
//!
//! The child changes its root to the directory it unpacks into. So no name, hard link or symbolic link leads out of that
//! directory, whether it comes from the archive or was there before.
//!
//! # Crash safety
//!
//! A copy that fails, that its sender breaks off, or that a stop of the box interrupts removes everything it created. A
//! file that existed is replaced by a whole file or not at all: each file is unpacked beside its place and renamed.

mod destination;
mod upload;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use boxlite_proto::OpFailure;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};
use tar::{Archive, Entry, EntryType, Header};

use super::op_error::OpError;
use destination::UnpackDestination;
pub(super) use upload::Upload;

/// Length in bytes of the block of zeros that ends an archive.
const BLOCK: u64 = 512;

/// Bytes of a file with holes that are looked at together: if all are zero, they become a hole.
const SPARSE_CHUNK: usize = 64 << 10;

/// Unpacks `archive` at `dest` and returns its length in bytes. It is read to its end even if unpacking needs less.
///
/// # Errors
/// Also when the block of zeros at the end is missing, because the sender then broke the archive off.
pub(super) fn unpack(archive: impl Read, dest: &str, keep_owners: bool) -> Result<u64, OpError> {
    let zeros = Rc::new(Cell::new(0));
    let mut reader = ArchiveReader { inner: archive, bytes: 0, zeros: Rc::clone(&zeros) };
    let mut unpacker: Option<Unpacker> = None;
    let unpacked = unpack_entries(&mut reader, dest, keep_owners, &mut unpacker, &zeros);
    let finished = unpacked.and_then(|()| match &unpacker {
        Some(unpacker) => unpacker.finish(),
        None => Err(OpError::new(OpFailure::BadArchive, "the archive is empty".to_owned())),
    });
    if let (Err(_), Some(unpacker)) = (&finished, unpacker) {
        unpacker.undo();
    }
    finished?;
    io::copy(&mut reader, &mut io::sink()).map_err(|e| damaged(&e))?;
    Ok(reader.bytes)
}

fn unpack_entries<R: Read>(
    archive: &mut ArchiveReader<R>,
    dest: &str,
    keep_owners: bool,
    unpacker: &mut Option<Unpacker>,
    zeros: &Cell<u64>,
) -> Result<(), OpError> {
    let mut tar = Archive::new(archive);
    tar.set_preserve_permissions(true);
    tar.set_preserve_ownerships(keep_owners);
    tar.set_preserve_mtime(true);
    for entry in tar.entries().map_err(|e| damaged(&e))? {
        let mut entry = entry.map_err(|e| damaged(&e))?;
        if entry.header().entry_type().is_pax_global_extensions() {
            // Describes the whole archive, as `git archive` does; nothing in it affects what is unpacked where.
            io::copy(&mut entry, &mut io::sink()).map_err(|e| damaged(&e))?;
            zeros.set(0);
            continue;
        }
        let unpacker = match unpacker {
            Some(unpacker) => unpacker,
            None => unpacker.insert(Unpacker::enter(dest, &entry, keep_owners)?),
        };
        unpacker.unpack(entry)?;
        zeros.set(0);
    }
    if unpacker.is_some() && zeros.get() < BLOCK {
        let message = "the archive was broken off: the block that ends it is missing";
        return Err(OpError::new(OpFailure::BadArchive, message.to_owned()));
    }
    Ok(())
}

/// The error of an archive that cannot be parsed, or of the system that failed to read it.
fn damaged(error: &io::Error) -> OpError {
    match system_error(error) {
        Some(cause) => OpError::std_io("reading the archive", &cause),
        None => OpError::new(OpFailure::BadArchive, format!("the archive cannot be read: {error}")),
    }
}

/// Counts the bytes of an archive and the zeros at its end.
struct ArchiveReader<R> {
    inner: R,
    bytes: u64,
    /// Zero bytes at the end of what has been read so far.
    zeros: Rc<Cell<u64>>,
}

impl<R: Read> Read for ArchiveReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes += n as u64;
        let zeros = buffer[..n].iter().rev().take_while(|byte| **byte == 0).count();
        self.zeros.set(if zeros == n { self.zeros.get() + n as u64 } else { zeros as u64 });
        Ok(n)
    }
}

/// An archive being unpacked into the directory that has become this process' root.
struct Unpacker {
    destination: UnpackDestination,
    keep_owners: bool,
    /// Modes and times of directories, which are set last because unpacking into a directory changes them.
    directories: BTreeMap<PathBuf, (u32, i64)>,
    /// Paths that did not exist before, each after its directory.
    created: Vec<PathBuf>,
    /// The parent and the name of the directory that has become the root, if it did not exist before.
    created_root: Option<(File, PathBuf)>,
}

impl Unpacker {
    /// Chooses the destination and makes it the root directory of this process.
    fn enter<R: Read>(dest: &str, first: &Entry<'_, R>, keep_owners: bool) -> Result<Self, OpError> {
        let path = first.path().map_err(|e| damaged(&e))?;
        let destination = UnpackDestination::choose(dest, &path, first.header().entry_type().is_dir())?;
        let describe = || format!("entering {}", destination.base.display());
        let mut created_root = None;
        if let (false, Some(parent), Some(name)) =
            (destination.existed, destination.base.parent(), destination.base.file_name())
        {
            let parent = File::open(parent).map_err(|e| OpError::std_io(&describe(), &e))?;
            created_root = Some((parent, PathBuf::from(name)));
        }
        rustix::process::chroot(&destination.base).map_err(|e| OpError::io(&describe(), &e))?;
        rustix::process::chdir("/").map_err(|e| OpError::io(&describe(), &e))?;
        let (directories, created) = (BTreeMap::new(), Vec::new());
        Ok(Self { destination, keep_owners, directories, created, created_root })
    }

    /// Unpacks one entry.
    fn unpack<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), OpError> {
        let name = entry.path().map_err(|e| damaged(&e))?.into_owned();
        let doing = format!("unpacking {}", name.display());
        let Some(path) = self.place(&name)? else { return Ok(()) };
        if let Some(parent) = path.parent() {
            self.create_directories(parent).map_err(|e| OpError::std_io(&doing, &e))?;
        }
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            refuse_change_of_kind(&path, true, &name)?;
            let mode = entry.header().mode().map_err(|e| damaged(&e))? & 0o7777;
            let mtime = entry.header().mtime().map_err(|e| damaged(&e))? as i64;
            self.create_directories(&path).map_err(|e| OpError::std_io(&doing, &e))?;
            entry.unpack(&path).map_err(|e| unpacking_failed(&doing, &e))?;
            self.directories.insert(path, (mode, mtime));
            return Ok(());
        }
        let partial = partial_beside(&path);
        let unpacked = self.unpack_beside(&mut entry, &path, &partial, &name, &doing);
        // Renamed already, unless that failed or both are names of one file.
        let _ = std::fs::remove_file(&partial);
        unpacked
    }

    /// Unpacks anything but a directory to `partial`, and renames it to `path` once it is whole.
    fn unpack_beside<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &Path,
        partial: &Path,
        name: &Path,
        doing: &str,
    ) -> Result<(), OpError> {
        let failed = |e: io::Error| OpError::std_io(doing, &e);
        remove_file(partial).map_err(failed)?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::Link => {
                let source = entry.link_name().map_err(|e| damaged(&e))?;
                let source = source.ok_or_else(|| {
                    OpError::new(OpFailure::BadArchive, format!("the link {} has no target", name.display()))
                })?;
                let source = self.place(&source)?.unwrap_or_else(|| PathBuf::from("/"));
                std::fs::hard_link(source, partial).map_err(failed)?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                self.make_node(entry, partial).map_err(failed)?;
            }
            EntryType::GNUSparse => {
                refuse_change_of_kind(path, false, name)?;
                self.make_sparse_file(entry, partial).map_err(|e| unpacking_failed(doing, &e))?;
            }
            _ => {
                refuse_change_of_kind(path, false, name)?;
                entry.unpack(partial).map_err(|e| unpacking_failed(doing, &e))?;
                if kind.is_symlink() {
                    let mtime = entry.header().mtime().map_err(|e| damaged(&e))? as i64;
                    set_mtime(partial, mtime).map_err(failed)?;
                }
            }
        }
        let existed = std::fs::symlink_metadata(path).is_ok();
        std::fs::rename(partial, path).map_err(failed)?;
        if !existed {
            self.created.push(path.to_owned());
        }
        Ok(())
    }

    /// Creates a directory and its missing ancestors, and records them in `created`.
    fn create_directories(&mut self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path.ancestors().take_while(|directory| !directory.exists()).collect();
        for directory in missing.into_iter().rev() {
            match std::fs::create_dir(directory) {
                Ok(()) => self.created.push(directory.to_owned()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes what was created, the innermost first. A directory that another process has put files into stays.
    fn undo(self) {
        for path in self.created.iter().rev() {
            let is_dir = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
            let _ = if is_dir { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
        }
        if let Some((parent, name)) = &self.created_root {
            let _ = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
        }
    }

    /// Returns the path of an entry below the new root; `None` for the root itself when it keeps its attributes.
    fn place(&self, name: &Path) -> Result<Option<PathBuf>, OpError> {
        let mut components = Vec::new();
        for component in name.components() {
            match component {
                Component::Normal(part) => components.push(part),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    let message = format!("the archive's entry {} would leave its target", name.display());
                    return Err(OpError::new(OpFailure::BadArchive, message));
                }
            }
        }
        let placed = Path::new("/").join(self.destination.place(&components)?);
        Ok(Some(placed).filter(|placed| placed.parent().is_some() || !self.destination.existed))
    }

    /// Makes a file of an entry with holes: the archive reader fills them with zeros, and zeros are not written.
    fn make_sparse_file<R: Read>(&self, entry: &mut Entry<'_, R>, path: &Path) -> io::Result<()> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let (mut buffer, mut at) = (vec![0; SPARSE_CHUNK], 0);
        loop {
            let count = entry.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            let read = &buffer[..count];
            if read.iter().any(|byte| *byte != 0) {
                file.write_all_at(read, at)?;
            }
            at += count as u64;
        }
        if at != entry.size() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.set_len(at)?;
        drop(file);
        self.set_attributes(entry.header(), path)
    }

    fn make_node<R: Read>(&self, entry: &Entry<'_, R>, path: &Path) -> io::Result<()> {
        let header = entry.header();
        let kind = match header.entry_type() {
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let device = rustix::fs::makedev(
            header.device_major()?.unwrap_or_default(),
            header.device_minor()?.unwrap_or_default(),
        );
        let mode = header.mode()? & 0o7777;
        rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(mode), device)?;
        self.set_attributes(header, path)
    }

    /// Sets owner, mode and time of a file or node.
    fn set_attributes(&self, header: &Header, path: &Path) -> io::Result<()> {
        if self.keep_owners {
            chown(path, Some(header.uid()? as u32), Some(header.gid()? as u32))?;
        }
        std::fs::set_permissions(path, Permissions::from_mode(header.mode()? & 0o7777))?;
        set_mtime(path, header.mtime()? as i64)
    }

    /// Sets the modes and times of directories, the innermost first.
    fn finish(&self) -> Result<(), OpError> {
        for (path, (mode, mtime)) in self.directories.iter().rev() {
            let doing = format!("setting the attributes of {}", path.display());
            std::fs::set_permissions(path, Permissions::from_mode(*mode))
                .map_err(|e| OpError::std_io(&doing, &e))?;
            set_mtime(path, *mtime).map_err(|e| OpError::std_io(&doing, &e))?;
        }
        Ok(())
    }
}

fn set_mtime(path: &Path, seconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn refuse_change_of_kind(path: &Path, to_directory: bool, name: &Path) -> Result<(), OpError> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let refused = match (to_directory, there.is_dir()) {
        (true, false) => "a directory cannot replace a file",
        (false, true) => "a file cannot replace a directory",
        _ => return Ok(()),
    };
    Err(OpError::new(OpFailure::WrongKind, format!("unpacking {} failed: {refused}", name.display())))
}

/// Returns the temporary name of the file for `path`, unique because one child unpacks one file at a time.
fn partial_beside(path: &Path) -> PathBuf {
    path.with_file_name(format!(".boxlite-copy.{}", std::process::id()))
}

fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The error of unpacking an entry. The archive reader wraps the cause; a system error in it decides the kind, and without
/// one the archive was truncated or malformed.
fn unpacking_failed(doing: &str, error: &io::Error) -> OpError {
    match system_error(error) {
        Some(cause) => OpError::std_io(doing, &cause),
        None => OpError::new(OpFailure::BadArchive, format!("{doing} failed: {error}")),
    }
}

/// Returns the innermost error of the operating system among the causes.
fn system_error(error: &io::Error) -> Option<io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut code = None;
    while let Some(error) = cause {
        code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error).or(code);
        cause = error.source();
    }
    code.map(io::Error::from_raw_os_error)
}
