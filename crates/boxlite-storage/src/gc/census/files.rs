//! Files that overlays stand on: disk images, deltas and bases.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use boxlite_home::Home;
use boxlite_home::durable::FileId;
use boxlite_types::gc::HolderKind;
use rustix::fs::{AtFlags, FileType, StatxFlags};
use rustix::io::Errno;

use super::Census;
use super::directory::{each_entry, os};
use super::holders::Holders;
use crate::disk::is_digest;
use crate::disk::qcow2::chain::nanoseconds;
use crate::disk::qcow2::{ChainLink, is_delta};
use crate::gc::category::Category;

/// A kind of file that overlays stand on.
pub(in crate::gc) trait StoredKind: std::fmt::Debug + Sync {
    fn category(&self) -> Category;

    fn directory(&self, home: &Home) -> PathBuf;

    /// Whether a file of this name in [`StoredKind::directory`] is of this kind; gc leaves all others alone.
    fn is_named(&self, name: &CStr) -> bool;

    /// Whether its files have a header that names what they stand on themselves. In their directory everything of
    /// their name must be readable: what is not might pin anything.
    fn stands_on_others(&self) -> bool;

    /// Whether it can be made again, so that it needs no intent.
    fn can_be_made_again(&self) -> bool;

    /// Returns how a file holds those that it stands on.
    fn pins_as(&self) -> HolderKind {
        HolderKind::Base
    }

    /// Whether a home need not have its directory.
    fn may_lack_directory(&self) -> bool {
        false
    }

    /// Why one is removed.
    fn why_unneeded(&self) -> &'static str;
}

/// Read-only root filesystems, built from an image's layers.
#[derive(Debug)]
pub(in crate::gc) struct DiskImages;

/// The changes of an image's further layers to a disk image or another delta.
#[derive(Debug)]
pub(in crate::gc) struct Deltas;

/// Former overlays on which clones and snapshots stand.
#[derive(Debug)]
pub(in crate::gc) struct Bases;

impl StoredKind for DiskImages {
    fn category(&self) -> Category {
        Category::DiskImage
    }

    fn directory(&self, home: &Home) -> PathBuf {
        home.disk_images()
    }

    fn is_named(&self, name: &CStr) -> bool {
        name.to_bytes().strip_suffix(b".ext4").is_some_and(is_digest)
    }

    fn stands_on_others(&self) -> bool {
        false
    }

    fn can_be_made_again(&self) -> bool {
        true
    }

    fn why_unneeded(&self) -> &'static str {
        "no box, base or lease needs it"
    }
}

impl StoredKind for Deltas {
    fn category(&self) -> Category {
        Category::Delta
    }

    fn directory(&self, home: &Home) -> PathBuf {
        home.deltas()
    }

    fn is_named(&self, name: &CStr) -> bool {
        is_delta(os(name))
    }

    fn stands_on_others(&self) -> bool {
        true
    }

    fn can_be_made_again(&self) -> bool {
        true
    }

    fn pins_as(&self) -> HolderKind {
        HolderKind::Delta
    }

    fn may_lack_directory(&self) -> bool {
        true
    }

    fn why_unneeded(&self) -> &'static str {
        "no box, base, other delta or lease needs it"
    }
}

impl StoredKind for Bases {
    fn category(&self) -> Category {
        Category::Base
    }

    fn directory(&self, home: &Home) -> PathBuf {
        home.bases()
    }

    fn is_named(&self, name: &CStr) -> bool {
        name.to_bytes().ends_with(b".qcow2")
    }

    fn stands_on_others(&self) -> bool {
        true
    }

    fn can_be_made_again(&self) -> bool {
        false
    }

    fn why_unneeded(&self) -> &'static str {
        "no box and no other base stands on it"
    }
}

/// A file of a [`StoredKind`]; times in nanoseconds since 1970.
#[derive(Debug)]
pub(in crate::gc) struct StoredFile {
    pub(in crate::gc) kind: &'static dyn StoredKind,
    pub(in crate::gc) name: Box<str>,
    pub(in crate::gc) id: FileId,
    pub(in crate::gc) allocated: u64,
    pub(in crate::gc) links: u64,
    pub(in crate::gc) modified: i64,
    pub(in crate::gc) used: i64,
    /// The file that it stands on.
    pub(in crate::gc) backing: ChainLink,
    /// Whether it is meant to be removed.
    pub(in crate::gc) intended: bool,
    /// Whether its directory leads out of the home.
    pub(in crate::gc) elsewhere: bool,
    /// The boxes and bases that need it; empty until the mark.
    pub(in crate::gc) holders: Holders,
}

impl StoredFile {
    /// Bytes that removing the file frees.
    pub(in crate::gc) fn freed(&self) -> u64 {
        if self.links > 1 { 0 } else { self.allocated }
    }

    pub(in crate::gc) fn path(&self, home: &Home) -> PathBuf {
        self.kind.directory(home).join(&*self.name)
    }
}

impl Census {
    /// Adds the files of `kind`, by name.
    pub(super) fn list_files(&mut self, home: &Home, kind: &'static dyn StoredKind) {
        let directory = kind.directory(home);
        if kind.may_lack_directory() && is_absent(&directory) {
            return;
        }
        let Some(handle) = self.open_directory(&directory) else { return };
        let mut files = Vec::new();
        let listed = each_entry(&handle, |name, file_type| {
            let may_be_file = matches!(file_type, FileType::RegularFile | FileType::Unknown);
            if kind.is_named(name) && (may_be_file || kind.stands_on_others()) {
                files.extend(self.read_file(kind, &directory, &handle, name));
            }
        });
        if let Err(errno) = listed {
            self.trouble(&directory, format!("it cannot be listed: {errno}"));
        }
        files.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        if !kind.can_be_made_again() && leads_elsewhere(home, &directory) {
            for file in &mut files {
                file.elsewhere = true;
            }
        }
        self.files.append(&mut files);
    }

    fn read_file(
        &mut self,
        kind: &'static dyn StoredKind,
        directory: &Path,
        handle: &OwnedFd,
        name: &CStr,
    ) -> Option<StoredFile> {
        let path = directory.join(os(name));
        let file = match stat(kind, handle, name) {
            Ok(Some(file)) => file,
            Ok(None) if kind.stands_on_others() => {
                self.trouble(&path, "it is not a regular file");
                return None;
            }
            Ok(None) | Err(Errno::NOENT) => return None,
            Err(errno) => {
                self.trouble(&path, format!("it cannot be examined: {errno}"));
                return None;
            }
        };
        if !kind.stands_on_others() {
            return Some(file);
        }
        match self.chains.follow(handle.as_fd(), name, &|| path.clone()) {
            Ok(None) => None,
            Ok(Some(found)) => {
                let end = self.chains.visit_below(found.backing, |_| {});
                if self.chains.is_missing(end) && vanished(&path, found.id) {
                    return None;
                }
                self.note_end(end, &path, None);
                Some(StoredFile { backing: found.backing, ..file })
            }
            Err(unknown) => {
                self.trouble(&unknown.path, unknown.why);
                None
            }
        }
    }
}

/// Whether another home may have the directory as well: it is reached through a symlink, or something is mounted there.
/// An entry that cannot be examined counts as such.
fn leads_elsewhere(home: &Home, directory: &Path) -> bool {
    let mount = |path: &Path| {
        let found = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::empty(), StatxFlags::MNT_ID);
        found.map(|found| found.stx_mnt_id)
    };
    let is_linked = std::fs::canonicalize(directory).ok().is_none_or(|real| real != directory);
    is_linked || mount(directory).is_err() || mount(directory) != mount(home.root())
}

/// The places of the disk image and of the delta of that digest, among `files` that begin with the disk images and the
/// deltas, each by name.
pub(in crate::gc) fn images_named(files: &[StoredFile], digest: &str) -> impl Iterator<Item = u32> {
    let is_image = |file: &StoredFile| file.kind.category() == Category::DiskImage;
    let first_delta = files.partition_point(is_image);
    let (images, deltas) = files.split_at(first_delta);
    // Compared as they are sorted: with the suffix.
    let find = |files: &[StoredFile], first: usize, suffix: &str| {
        let sought = || digest.bytes().chain(suffix.bytes());
        let found = files.binary_search_by(|file| file.name.bytes().cmp(sought()));
        found.ok().map(|place| (first + place) as u32)
    };
    [find(images, 0, ".ext4"), find(deltas, first_delta, ".qcow2")].into_iter().flatten()
}

fn is_absent(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Whether the file is no longer at its path: it was removed since it was read, and what it stood on perhaps with it.
/// An open directory would not tell, since the directory of a removed box is renamed before it is emptied.
pub(super) fn vanished(path: &Path, id: FileId) -> bool {
    match rustix::fs::lstat(path) {
        Ok(stat) => id != FileId { device: stat.st_dev, inode: stat.st_ino },
        Err(errno) => matches!(errno, Errno::NOENT | Errno::NOTDIR),
    }
}

/// `None` for what is not a regular file.
fn stat(kind: &'static dyn StoredKind, handle: &OwnedFd, name: &CStr) -> Result<Option<StoredFile>, Errno> {
    let stat = rustix::fs::statat(handle, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let modified = nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64);
    Ok(Some(StoredFile {
        kind,
        name: os(name).to_string_lossy().into(),
        id: FileId { device: stat.st_dev, inode: stat.st_ino },
        allocated: (stat.st_blocks as u64).saturating_mul(512),
        links: stat.st_nlink,
        modified,
        used: modified.max(nanoseconds(stat.st_atime, stat.st_atime_nsec as i64)),
        backing: ChainLink::End,
        intended: false,
        elsewhere: false,
        holders: Holders::default(),
    }))
}
