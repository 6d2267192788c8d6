//! Unpacking a tar stream with the semantics of `docker cp`.
//!
//! The child that unpacks changes its root to the directory it unpacks into, so no name, link or symbolic link that an
//! archive brings, or finds there, leads anywhere else.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use boxlite_proto::OpFailure;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};
use tar::{Archive, Entry, EntryType};

use super::outcome::Refusal;

/// Where an archive goes: the directory, and the name its top-level entry takes there (`None`: its contents).
#[derive(Debug, PartialEq, Eq)]
struct Landing {
    base: PathBuf,
    name: Option<PathBuf>,
    /// Whether the directory was there before; its own attributes then stay.
    existed: bool,
}

/// Unpacks `archive` at `dest` and returns the bytes it had, all of which are read even when unpacking needs fewer.
pub(super) fn unpack(archive: impl Read, dest: &str, keep_owners: bool) -> Result<u64, Refusal> {
    let mut counted = Counted { inner: archive, bytes: 0 };
    let mut tar = Archive::new(&mut counted);
    tar.set_preserve_permissions(true);
    tar.set_preserve_ownerships(keep_owners);
    tar.set_preserve_mtime(true);
    let mut target: Option<Target> = None;
    for entry in tar.entries().map_err(|e| damaged(&e))? {
        let entry = entry.map_err(|e| damaged(&e))?;
        let target = match &mut target {
            Some(target) => target,
            None => target.insert(Target::enter(dest, &entry, keep_owners)?),
        };
        target.take(entry)?;
    }
    target.ok_or_else(|| Refusal::new(OpFailure::BadArchive, "the archive is empty".to_owned()))?.finish()?;
    io::copy(&mut counted, &mut io::sink()).map_err(|e| damaged(&e))?;
    Ok(counted.bytes)
}

fn damaged(error: &io::Error) -> Refusal {
    Refusal::new(OpFailure::BadArchive, format!("the archive can't be read: {error}"))
}

struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

struct Target {
    landing: Landing,
    keep_owners: bool,
    /// Attributes that later entries below a directory would change again.
    directories: BTreeMap<PathBuf, (u32, i64)>,
}

impl Target {
    fn enter<R: Read>(dest: &str, first: &Entry<'_, R>, keep_owners: bool) -> Result<Self, Refusal> {
        let path = first.path().map_err(|e| damaged(&e))?;
        let landing = land(dest, &path, first.header().entry_type().is_dir())?;
        let describe = || format!("entering {}", landing.base.display());
        rustix::process::chroot(&landing.base).map_err(|e| Refusal::io(&describe(), &e))?;
        rustix::process::chdir("/").map_err(|e| Refusal::io(&describe(), &e))?;
        Ok(Self { landing, keep_owners, directories: BTreeMap::new() })
    }

    fn take<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), Refusal> {
        let name = entry.path().map_err(|e| damaged(&e))?.into_owned();
        let doing = format!("unpacking {}", name.display());
        let Some(path) = self.place(&name)? else { return Ok(()) };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| Refusal::std_io(&doing, &e))?;
        }
        let kind = entry.header().entry_type();
        match kind {
            EntryType::Link => {
                let source = entry.link_name().map_err(|e| damaged(&e))?;
                let source = source.ok_or_else(|| {
                    Refusal::new(OpFailure::BadArchive, format!("the link {} has no target", name.display()))
                })?;
                let source = self.place(&source)?.unwrap_or_else(|| PathBuf::from("/"));
                remove_file(&path).map_err(|e| Refusal::std_io(&doing, &e))?;
                std::fs::hard_link(source, &path).map_err(|e| Refusal::std_io(&doing, &e))?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                self.make_node(&entry, &path).map_err(|e| Refusal::std_io(&doing, &e))?;
            }
            _ => {
                refuse_change_of_kind(&path, kind.is_dir(), &name)?;
                let mode = entry.header().mode().map_err(|e| damaged(&e))? & 0o7777;
                let mtime = entry.header().mtime().map_err(|e| damaged(&e))? as i64;
                entry.unpack(&path).map_err(|e| unpacking_failed(&doing, &e))?;
                if kind.is_dir() {
                    self.directories.insert(path, (mode, mtime));
                } else if kind.is_symlink() {
                    set_mtime(&path, mtime).map_err(|e| Refusal::std_io(&doing, &e))?;
                }
            }
        }
        Ok(())
    }

    /// Where an entry goes below the new root; `None` for the directory itself when that keeps its attributes.
    fn place(&self, name: &Path) -> Result<Option<PathBuf>, Refusal> {
        let mut placed = PathBuf::from("/");
        let mut components = Vec::new();
        for component in name.components() {
            match component {
                Component::Normal(part) => components.push(part),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    let message = format!("the archive's entry {} would leave its target", name.display());
                    return Err(Refusal::new(OpFailure::BadArchive, message));
                }
            }
        }
        match (&self.landing.name, components.split_first()) {
            (Some(own), Some((_, below))) => {
                placed.extend([own.as_os_str()].into_iter().chain(below.iter().copied()));
            }
            (Some(own), None) => placed.push(own),
            (None, _) => placed.extend(components),
        }
        Ok(Some(placed).filter(|placed| placed.parent().is_some() || !self.landing.existed))
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
        remove_file(path)?;
        rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(mode), device)?;
        if self.keep_owners {
            chown(path, Some(header.uid()? as u32), Some(header.gid()? as u32))?;
        }
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        set_mtime(path, header.mtime()? as i64)
    }

    /// Sets what could only be set last, the innermost directories first.
    fn finish(self) -> Result<(), Refusal> {
        for (path, (mode, mtime)) in self.directories.iter().rev() {
            let doing = format!("setting the attributes of {}", path.display());
            std::fs::set_permissions(path, Permissions::from_mode(*mode))
                .map_err(|e| Refusal::std_io(&doing, &e))?;
            set_mtime(path, *mtime).map_err(|e| Refusal::std_io(&doing, &e))?;
        }
        Ok(())
    }
}

fn set_mtime(path: &Path, seconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Decides where an archive goes, from its first entry and from what is at `dest`.
fn land(dest: &str, first: &Path, is_directory: bool) -> Result<Landing, Refusal> {
    if !dest.starts_with('/') || dest.contains('\0') {
        return Err(Refusal::invalid(format!("{dest:?} is not an absolute path")));
    }
    let top = first.components().find_map(|component| match component {
        Component::Normal(part) => Some(PathBuf::from(part)),
        _ => None,
    });
    // Without a trailing slash, which is looked at by itself.
    let path: PathBuf = Path::new(dest).components().collect();
    // A link to nothing counts as nothing.
    if let Ok(base) = std::fs::canonicalize(&path) {
        if base.is_dir() {
            return Ok(Landing { base, name: top, existed: true });
        }
        if is_directory || dest.ends_with('/') {
            let message = format!("{dest} is not a directory");
            return Err(Refusal::new(OpFailure::WrongKind, message));
        }
        return split(&base);
    }
    if dest.ends_with('/') && !is_directory {
        return Err(Refusal::new(OpFailure::NotFound, format!("there is no directory {dest}")));
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let parent = std::fs::canonicalize(parent)
        .map_err(|e| Refusal::std_io(&format!("looking up the directory {}", parent.display()), &e))?;
    let name = path.file_name().ok_or_else(|| Refusal::invalid(format!("{dest} names no file")))?;
    if !parent.is_dir() {
        return Err(Refusal::new(OpFailure::WrongKind, format!("{} is not a directory", parent.display())));
    }
    if top.is_some() {
        return Ok(Landing { base: parent, name: Some(PathBuf::from(name)), existed: true });
    }
    let base = parent.join(name);
    std::fs::create_dir(&base).map_err(|e| Refusal::std_io(&format!("creating {dest}"), &e))?;
    Ok(Landing { base, name: None, existed: false })
}

/// The directory and name of an existing file.
fn split(file: &Path) -> Result<Landing, Refusal> {
    match (file.parent(), file.file_name()) {
        (Some(parent), Some(name)) => {
            Ok(Landing { base: parent.to_owned(), name: Some(PathBuf::from(name)), existed: true })
        }
        _ => Err(Refusal::invalid(format!("{} names no file", file.display()))),
    }
}

fn refuse_change_of_kind(path: &Path, to_directory: bool, name: &Path) -> Result<(), Refusal> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let refused = match (to_directory, there.is_dir()) {
        (true, false) => "a directory can't replace what is not one",
        (false, true) => "a file can't replace a directory",
        _ => return Ok(()),
    };
    Err(Refusal::new(OpFailure::WrongKind, format!("unpacking {} failed: {refused}", name.display())))
}

fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The archive reader wraps the cause in prose of its own: an error of the system's decides the kind, and without one
/// it was the archive that ended or made no sense.
fn unpacking_failed(doing: &str, error: &io::Error) -> Refusal {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut code = None;
    while let Some(error) = cause {
        code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error).or(code);
        cause = error.source();
    }
    match code {
        Some(code) => Refusal::std_io(doing, &io::Error::from_raw_os_error(code)),
        None => Refusal::new(OpFailure::BadArchive, format!("{doing} failed: {error}")),
    }
}
