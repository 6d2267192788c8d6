//! Boxes: their directories, their records, and their overlays.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use boxlite_home::durable::FileId;
use boxlite_home::{Home, is_id};
use boxlite_types::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Census;
use super::directory::{each_entry, each_entry_in, os};
use super::files::{images_named, vanished};
use super::holders::Holders;
use crate::catalog::{Catalog, IntentKind};
use crate::disk::qcow2::chain::nanoseconds;
use crate::disk::qcow2::{ChainLink, header};

/// An entry of `boxes/`, or a record without one.
#[derive(Debug)]
pub(in crate::gc) struct BoxEntry {
    pub(in crate::gc) id: Box<str>,
    pub(in crate::gc) recorded: bool,
    pub(in crate::gc) directory: bool,
    /// Whether it is meant to be removed, or its creation was cut short.
    pub(in crate::gc) intended: bool,
    /// The owners of chains that run through its overlays, if it has no record; empty until the mark.
    pub(in crate::gc) holders: Holders,
}

/// An overlay of a box.
#[derive(Debug, Clone, Copy)]
pub(in crate::gc) struct Overlay {
    pub(in crate::gc) owner: u32,
    pub(in crate::gc) backing: ChainLink,
    pub(in crate::gc) id: FileId,
    pub(in crate::gc) allocated: u64,
    pub(in crate::gc) modified: i64,
}

impl BoxEntry {
    fn new(id: &str, recorded: bool, directory: bool) -> Self {
        Self { id: id.into(), recorded, directory, intended: false, holders: Holders::default() }
    }

    /// Whether it is a box's directory without a record. All else in `boxes/` is not gc's to remove.
    pub(in crate::gc) fn is_lost(&self) -> bool {
        self.directory && !self.recorded && is_id(&self.id)
    }
}

/// Tells whether the box has run since an intent was written, or its files were put back: they are then not those that
/// the intent is about. What cannot be examined counts as such.
fn ran_since(home: &Home, id: &str, written_ms: i64) -> bool {
    let paths = home.of_box(id);
    [paths.console_log(), paths.main_log(), paths.outcome()].iter().any(
        |path| match std::fs::symlink_metadata(path) {
            Ok(found) => found.ctime() * 1000 + found.ctime_nsec() / 1_000_000 > written_ms,
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        },
    )
}

/// Tells whether the creation of the box was cut short before its record: it is marked as one that was not recorded, it
/// never ran, and there is nothing where its disk would be. What cannot be examined counts as data.
fn is_unfinished(home: &Home, id: &str) -> bool {
    let paths = home.of_box(id);
    let is_marked = || std::fs::symlink_metadata(paths.unrecorded()).is_ok_and(|found| found.is_file());
    let has_disk = || std::fs::read_dir(paths.disks()).map_or(true, |mut entries| entries.next().is_some());
    is_marked() && !has_disk() && !ran_since(home, id, i64::MIN)
}

impl Census {
    /// Lists the directories of boxes, by id; returns the handle of `boxes/`.
    pub(super) fn list_boxes(&mut self, directory: &Path) -> Option<OwnedFd> {
        let handle = self.open_directory(directory)?;
        let mut boxes = Vec::new();
        let listed = each_entry(&handle, |name, kind| match (kind, os(name).to_str()) {
            (FileType::Directory | FileType::Unknown, Some(id)) => {
                boxes.push(BoxEntry::new(id, false, true));
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

    /// Notes which boxes have records and which disk images and deltas these name.
    pub(super) fn read_records(&mut self, home: &Home, catalog: &dyn Catalog) {
        let listed = self.boxes.len();
        let mut pins = Vec::new();
        let (boxes, files) = (&mut self.boxes, &self.files);
        let read = catalog.boxes(&mut |pin| {
            let found = boxes[..listed].binary_search_by(|entry| (*entry.id).cmp(pin.id));
            let index = found.unwrap_or_else(|_| {
                boxes.push(BoxEntry::new(pin.id, true, false));
                boxes.len() - 1
            });
            boxes[index].recorded = true;
            pins.extend(images_named(files, pin.disk_digest).map(|image| (index as u32, image)));
        });
        self.pins = pins;
        if let Err(error) = read {
            self.trouble(&home.database(), error);
        }
    }

    /// Notes which bases hold snapshots of boxes. One that is missed stays as well, since no intent lets it go.
    pub(super) fn read_snapshots(&mut self, home: &Home, catalog: &dyn Catalog) {
        let boxes: HashMap<&str, u32> =
            self.boxes.iter().enumerate().map(|(index, entry)| (&*entry.id, index as u32)).collect();
        let files = self.files.iter().enumerate();
        let bases = files.filter(|(_, file)| !file.kind.can_be_made_again() && !file.elsewhere);
        let bases: HashMap<&str, u32> = bases.map(|(index, file)| (&*file.name, index as u32)).collect();
        let mut snapshots = Vec::new();
        let read = catalog.snapshots(&mut |id, base| {
            if let (Some(&owner), Some(&file)) = (boxes.get(id), bases.get(base)) {
                snapshots.push((owner, file));
            }
        });
        self.snapshots = snapshots;
        if let Err(error) = read {
            self.trouble(&home.database(), error);
        }
    }

    /// Notes which boxes an intent says to remove.
    pub(super) fn read_intents(&mut self, home: &Home, catalog: &dyn Catalog) {
        let mut intended: HashMap<(IntentKind, String), i64> = HashMap::new();
        let read = catalog.intents(&mut |intent| {
            intended.insert((intent.kind, intent.id.to_owned()), intent.written_ms);
        });
        if !intended.is_empty() {
            let is_intended = |kind, name: &str| intended.contains_key(&(kind, name.to_owned()));
            for entry in &mut self.boxes {
                let written = intended.get(&(IntentKind::Box, entry.id.to_string()));
                entry.intended = written.is_some_and(|written| !ran_since(home, &entry.id, *written));
            }
            for file in self.files.iter_mut().filter(|file| !file.kind.can_be_made_again()) {
                file.intended = is_intended(IntentKind::Base, &file.name);
            }
        }
        for entry in self.boxes.iter_mut().filter(|entry| entry.is_lost() && !entry.intended) {
            entry.intended = is_unfinished(home, &entry.id);
        }
        match read.and_then(|()| catalog.stranger()) {
            Ok(None) => {}
            Ok(Some(why)) => self.trouble(&home.database(), why),
            Err(error) => self.trouble(&home.database(), error),
        }
    }

    /// Reads the header of every overlay.
    pub(super) fn read_overlays(&mut self, directory: &Path, handle: &OwnedFd) {
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
                    self.trouble_of(owner, &path, format!("it cannot be opened: {errno}"));
                }
            }
        }
    }

    fn read_disks(&mut self, owner: u32, boxes: &Path, disks: &OwnedFd, buffer: &mut Vec<u8>) {
        let directory = || boxes.join(&*self.boxes[owner as usize].id).join("disks");
        let (mut troubles, mut ends) = (Vec::new(), Vec::new());
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
                    let end = chains.visit_below(found.backing, |_| {});
                    if chains.is_missing(end) && vanished(&path(), found.id) {
                        return;
                    }
                    if end.problem().is_some() {
                        ends.push((end, path()));
                    }
                    overlays.push(Overlay {
                        owner,
                        backing: found.backing,
                        id: found.id,
                        allocated: found.allocated,
                        modified: found.modified,
                    });
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
            self.trouble_of(owner as usize, &path, reason);
        }
        for (end, path) in ends {
            self.note_end(end, &path, Some(owner as usize));
        }
    }
}

/// Nanoseconds since 1970 at which the newest of a box directory, its `disks` and its overlays was modified.
pub(in crate::gc) fn box_modified(home: &Home, id: &str, overlays: impl Iterator<Item = i64>) -> Result<i64> {
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

/// Returns false for a file that vanished and for one that is not a regular file.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::qcow2::{BackingFormat, overlay_header};
    use crate::store::Store;

    /// A removed box's directory is renamed before it is emptied, and the disk image can go right after that.
    /// Mutation tried: looking for the overlay in the open directory reported its image as missing.
    #[test]
    fn a_box_that_is_removed_while_it_is_read_is_not_missing_anything() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(&directory.path().join("home")).unwrap();
        let store = Store::open_in(&home).unwrap();
        let image = home.disk_images().join("gone.ext4");
        let of_box = home.of_box("00000000000000000000000000000001");
        std::fs::create_dir_all(of_box.disks()).unwrap();
        let header = overlay_header(&image, BackingFormat::Raw, 1 << 30).unwrap();
        std::fs::write(of_box.disks().join("root.qcow2"), header.head).unwrap();
        let mut census = Census::of_chains(&home, &store);
        let told = (census.overlays.len(), census.harmless.len());
        assert_eq!(told, (1, 1), "the image is not there while the box is");

        let disks = crate::gc::census::directory::open_directory(&of_box.disks()).unwrap();
        std::fs::rename(of_box.root(), home.tmp().join("removed")).unwrap();
        census.read_disks(0, &home.boxes(), &disks, &mut Vec::with_capacity(8 << 10));
        assert_eq!((census.overlays.len(), census.harmless.len()), told, "{:?}", census.harmless);
        assert!(census.unreadable.is_empty(), "{:?}", census.unreadable);
    }
}
