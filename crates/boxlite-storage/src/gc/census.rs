//! What is there: one look at the home, without a lock and without a write.

use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use boxlite_home::Home;
use boxlite_home::durable::FileId;
use boxlite_types::gc::Unreadable;
use boxlite_types::{Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::catalog::Catalog;
use crate::disk::qcow2::chain::nanoseconds;
use crate::disk::qcow2::{Chains, Link, header};

/// A disk image or a base; times in nanoseconds since 1970.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) name: Box<str>,
    pub(super) id: FileId,
    pub(super) allocated: u64,
    pub(super) links: u64,
    pub(super) modified: i64,
    pub(super) used: i64,
    /// What a base stands on.
    pub(super) backing: Link,
}

/// An entry of `boxes/`, or a record without one.
#[derive(Debug)]
pub(super) struct BoxEntry {
    pub(super) id: Box<str>,
    pub(super) recorded: bool,
    pub(super) directory: bool,
}

/// An overlay of a box.
#[derive(Debug, Clone, Copy)]
pub(super) struct Overlay {
    pub(super) owner: u32,
    pub(super) backing: Link,
    pub(super) id: FileId,
    pub(super) allocated: u64,
    pub(super) modified: i64,
}

/// Everything that decides what is needed.
#[derive(Debug)]
pub(super) struct Census {
    pub(super) images: Vec<Stored>,
    pub(super) bases: Vec<Stored>,
    pub(super) boxes: Vec<BoxEntry>,
    pub(super) overlays: Vec<Overlay>,
    /// Which box's record names which disk image.
    pub(super) pins: Vec<(u32, u32)>,
    pub(super) chains: Chains,
    pub(super) unreadable: Vec<Unreadable>,
}

impl Census {
    /// Looks at all of `home` and its records.
    pub(super) fn take(home: &Home, catalog: &dyn Catalog) -> Self {
        let mut census = Self {
            images: Vec::new(),
            bases: Vec::new(),
            boxes: Vec::new(),
            overlays: Vec::new(),
            pins: Vec::new(),
            chains: Chains::new(vec![home.disk_images(), home.bases()]),
            unreadable: Vec::new(),
        };
        census.list_images(&home.disk_images());
        let boxes = census.list_boxes(&home.boxes());
        // The records come after the directories: a box that is being created has its directory first.
        census.read_records(home, catalog);
        if let Some(boxes) = boxes {
            census.read_overlays(&home.boxes(), &boxes);
        }
        // Bases come after overlays: a snapshot turns an overlay into a base, never the other way round.
        census.list_bases(&home.bases());
        census
    }

    fn trouble(&mut self, path: &Path, reason: impl std::fmt::Display) {
        self.unreadable.push(Unreadable { path: path.to_owned(), reason: reason.to_string() });
    }

    fn list_images(&mut self, directory: &Path) {
        let Some(handle) = self.open_directory(directory) else { return };
        let mut images = Vec::new();
        let listed = each_entry(&handle, |name, kind| {
            if is_disk_image(name) && matches!(kind, FileType::RegularFile | FileType::Unknown) {
                match stat_stored(&handle, name) {
                    Ok(found) => images.extend(found),
                    Err(errno) => {
                        self.trouble(&directory.join(os(name)), format!("it cannot be examined: {errno}"));
                    }
                }
            }
        });
        if let Err(errno) = listed {
            self.trouble(directory, format!("it cannot be listed: {errno}"));
        }
        images.sort_unstable_by(|one: &Stored, other| one.name.cmp(&other.name));
        self.images = images;
    }

    fn list_boxes(&mut self, directory: &Path) -> Option<OwnedFd> {
        let handle = self.open_directory(directory)?;
        let mut boxes = Vec::new();
        let listed = each_entry(&handle, |name, kind| match (kind, os(name).to_str()) {
            (FileType::Directory | FileType::Unknown, Some(id)) => {
                boxes.push(BoxEntry { id: id.into(), recorded: false, directory: true });
            }
            (FileType::Symlink, _) => self.trouble(&directory.join(os(name)), "it is a symlink"),
            (FileType::Directory | FileType::Unknown, None) => {
                self.trouble(&directory.join(os(name)), "its name is not UTF-8");
            }
            _ => {}
        });
        if let Err(errno) = listed {
            self.trouble(directory, format!("it cannot be listed: {errno}"));
        }
        boxes.sort_unstable_by(|one: &BoxEntry, other| one.id.cmp(&other.id));
        boxes.shrink_to_fit();
        self.boxes = boxes;
        Some(handle)
    }

    fn read_records(&mut self, home: &Home, catalog: &dyn Catalog) {
        let listed = self.boxes.len();
        let mut pins = Vec::new();
        let (boxes, images) = (&mut self.boxes, &self.images);
        let read = catalog.boxes(&mut |pin| {
            let found = boxes[..listed].binary_search_by(|entry| (*entry.id).cmp(pin.id));
            let index = found.unwrap_or_else(|_| {
                boxes.push(BoxEntry { id: pin.id.into(), recorded: true, directory: false });
                boxes.len() - 1
            });
            boxes[index].recorded = true;
            // Compared as they are sorted: with the suffix.
            let sought = || pin.disk_digest.bytes().chain(*b".ext4");
            let named = |image: &Stored| image.name.bytes().cmp(sought());
            if let Ok(image) = images.binary_search_by(named) {
                pins.push((index as u32, image as u32));
            }
        });
        self.pins = pins;
        if let Err(error) = read {
            self.trouble(&home.database(), error);
        }
    }

    fn read_overlays(&mut self, directory: &Path, handle: &OwnedFd) {
        let mut buffer = Vec::with_capacity(8 << 10);
        let mut path = Vec::with_capacity(128);
        self.overlays.reserve_exact(self.boxes.len());
        for owner in 0..self.boxes.len() {
            if !self.boxes[owner].directory {
                continue;
            }
            path.clear();
            path.extend_from_slice(self.boxes[owner].id.as_bytes());
            path.extend_from_slice(b"/disks\0");
            let Ok(relative) = CStr::from_bytes_with_nul(&path) else { continue };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(handle, relative, flags, Mode::empty()) {
                Ok(disks) => self.read_disks(owner as u32, directory, &disks, &mut buffer),
                // No overlay yet, or the box was removed since it was listed.
                Err(Errno::NOENT) => {}
                // A file in boxes/ whose type the filesystem did not tell.
                Err(Errno::NOTDIR) if !directory.join(&*self.boxes[owner].id).is_dir() => {
                    self.boxes[owner].directory = false;
                }
                Err(errno) => {
                    let path = directory.join(os(relative));
                    self.trouble(&path, format!("it cannot be opened: {errno}"));
                }
            }
        }
    }

    fn read_disks(&mut self, owner: u32, boxes: &Path, disks: &OwnedFd, buffer: &mut Vec<u8>) {
        let directory = || boxes.join(&*self.boxes[owner as usize].id).join("disks");
        let mut troubles = Vec::new();
        let (chains, overlays) = (&mut self.chains, &mut self.overlays);
        let listed = each_entry_in(disks, buffer, |name, kind| {
            let path = || directory().join(os(name));
            if !name.to_bytes().ends_with(b".qcow2") {
                if !matches!(kind, FileType::RegularFile | FileType::Unknown) {
                    return;
                }
                match looks_like_qcow2(disks, name) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(errno) => return troubles.push((path(), format!("it cannot be read: {errno}"))),
                }
            }
            match chains.follow(disks.as_fd(), name, &path) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    overlays.push(Overlay {
                        owner,
                        backing: found.backing,
                        id: found.id,
                        allocated: found.allocated,
                        modified: found.modified,
                    });
                    if let Link::Unknown(index) = chains.visit_below(found.backing, |_| {}) {
                        let unknown = chains.unknown(index);
                        let reason = format!("{} has no readable chain: {}", path().display(), unknown.why);
                        troubles.push((unknown.path.clone(), reason));
                    }
                }
                Err(unknown) => troubles.push((unknown.path, unknown.why)),
            }
        });
        match listed {
            // The box was removed while it was being listed.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => troubles.push((directory(), format!("it cannot be listed: {errno}"))),
        }
        for (path, reason) in troubles {
            self.trouble(&path, reason);
        }
    }

    fn list_bases(&mut self, directory: &Path) {
        let Some(handle) = self.open_directory(directory) else { return };
        let mut bases: Vec<Stored> = Vec::new();
        let listed = each_entry(&handle, |name, _| {
            if !name.to_bytes().ends_with(b".qcow2") {
                return;
            }
            let path = directory.join(os(name));
            let stored = match stat_stored(&handle, name) {
                Ok(Some(stored)) => stored,
                Ok(None) => return self.trouble(&path, "it is not a regular file"),
                Err(Errno::NOENT) => return,
                Err(errno) => return self.trouble(&path, format!("it cannot be examined: {errno}")),
            };
            match self.chains.follow(handle.as_fd(), name, &|| path.clone()) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    if let Link::Unknown(index) = self.chains.visit_below(found.backing, |_| {}) {
                        let unknown = self.chains.unknown(index).clone();
                        self.trouble(&unknown.path, format!("base {}: {}", path.display(), unknown.why));
                    }
                    bases.push(Stored { backing: found.backing, ..stored });
                }
                Err(unknown) => self.trouble(&unknown.path, unknown.why),
            }
        });
        if let Err(errno) = listed {
            self.trouble(directory, format!("it cannot be listed: {errno}"));
        }
        bases.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        self.bases = bases;
    }

    fn open_directory(&mut self, path: &Path) -> Option<OwnedFd> {
        match open_directory(path) {
            Ok(handle) => Some(handle),
            Err(errno) => {
                self.trouble(path, format!("it cannot be opened: {errno}"));
                None
            }
        }
    }
}

/// Whether a name in `images/disk-images/` is a disk image's: everything else there is not gc's business.
pub(super) fn is_disk_image(name: &CStr) -> bool {
    let name = name.to_bytes();
    name.ends_with(b".ext4") && !name.starts_with(b".") && std::str::from_utf8(name).is_ok()
}

/// Nanoseconds since 1970 at which the newest of a box directory, its `disks` and its overlays was modified.
pub(super) fn box_modified(home: &Home, id: &str, overlays: impl Iterator<Item = i64>) -> Result<i64> {
    use std::os::unix::fs::MetadataExt;
    let paths = home.of_box(id);
    let mut newest = overlays.max().unwrap_or(i64::MIN);
    for path in [paths.root().to_owned(), paths.disks()] {
        match std::fs::symlink_metadata(&path) {
            Ok(found) => newest = newest.max(nanoseconds(found.mtime(), found.mtime_nsec())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("examining", path, error)),
        }
    }
    Ok(newest)
}

pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Calls `visit` with name and type of each entry but `.` and `..`.
pub(super) fn each_entry(handle: &OwnedFd, visit: impl FnMut(&CStr, FileType)) -> Result<(), Errno> {
    each_entry_in(handle, &mut Vec::with_capacity(32 << 10), visit)
}

fn each_entry_in(
    handle: &OwnedFd,
    buffer: &mut Vec<u8>,
    mut visit: impl FnMut(&CStr, FileType),
) -> Result<(), Errno> {
    let spare: &mut [MaybeUninit<u8>] = buffer.spare_capacity_mut();
    let mut entries = RawDir::new(handle, spare);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            visit(entry.file_name(), entry.file_type());
        }
    }
    Ok(())
}

fn stat_stored(handle: &OwnedFd, name: &CStr) -> Result<Option<Stored>, Errno> {
    let stat = match rustix::fs::statat(handle, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let modified = nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64);
    Ok(Some(Stored {
        name: os(name).to_string_lossy().into(),
        id: FileId { device: stat.st_dev, inode: stat.st_ino },
        allocated: (stat.st_blocks as u64).saturating_mul(512),
        links: stat.st_nlink,
        modified,
        used: modified.max(nanoseconds(stat.st_atime, stat.st_atime_nsec as i64)),
        backing: Link::End,
    }))
}

/// Says no of what vanished and of what is no regular file.
fn looks_like_qcow2(directory: &OwnedFd, name: &CStr) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut magic = [0; 4];
    let file = rustix::fs::openat(directory, name, flags, Mode::empty());
    match file.and_then(|file| rustix::io::pread(file, &mut magic, 0)) {
        Ok(_) => Ok(header::is_qcow2(&magic)),
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ISDIR | Errno::SPIPE) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn os(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}
