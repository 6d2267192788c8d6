//! Mounts named volumes: disks with an ext4 filesystem, of which the box sees the directory `data`.
//!
//! A volume whose `data` is empty gets what the image has at its mount point, as in Docker. The copy is made beside `data`,
//! synced, and takes its place in one rename, so that a volume is never half filled; the next start removes what a kill leaves
//! of a copy, and begins anew.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use boxlite_proto::DiskMount;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

/// The directory of a volume's contents.
const DATA: &str = "data";

/// A copy of the image's files that is not complete.
const UNFINISHED: &str = "data.unfinished";

/// Mounts the volume, filling it from the image first where it is empty.
///
/// # Errors
/// Always fatal, because the box would otherwise write to its own disk what the user meant for the volume.
pub(super) fn mount(volume: &DiskMount) -> Result<(), String> {
    let DiskMount { serial, name, target, read_only } = volume;
    let describe =
        |doing: &str, error: &dyn Display| format!("{doing} volume '{name}' on {target} failed: {error}");
    if !target.starts_with('/') {
        return Err(describe("mounting", &"the target is not an absolute path"));
    }
    let device = device_with_serial(serial).map_err(|e| describe("finding the disk of", &e))?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(target)
        .map_err(|e| describe("making the mount point of", &e))?;
    let target = fs::canonicalize(target).map_err(|e| describe("mounting", &e))?;
    // Names the image's own directory once the volume lies above it.
    let image = File::open(&target).map_err(|e| describe("mounting", &e))?;
    let mut flags = MountFlags::RELATIME;
    flags.set(MountFlags::RDONLY, *read_only);
    let options = if *read_only { c"" } else { super::root::OPTIONS };
    rustix::mount::mount(&device, &target, "ext4", flags, Some(options))
        .map_err(|e| describe("mounting", &e))?;
    let data = target.join(DATA);
    if !read_only {
        fill(image.as_raw_fd(), &target).map_err(|e| describe("copying the image's files to", &e))?;
    }
    let step = |outcome: rustix::io::Result<()>| outcome.map_err(|e| describe("mounting", &e));
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, &data, clone).map_err(|e| describe("mounting", &e))?;
    step(rustix::mount::unmount(&target, UnmountFlags::DETACH))?;
    step(rustix::mount::move_mount(&tree, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH))
}

/// Flushes the volume and lets go of it; its journal is empty then. Call it when no other process is left.
pub(super) fn unmount(volume: &DiskMount) {
    let _ = rustix::mount::mount_remount(&*volume.target, MountFlags::RDONLY, "");
    let _ = rustix::mount::unmount(&*volume.target, UnmountFlags::DETACH);
}

/// The device of the disk with that serial number, which is empty for the root disk.
///
/// # Errors
/// One sentence when there is none.
pub(super) fn device_with_serial(serial: &str) -> Result<String, String> {
    for entry in
        fs::read_dir("/sys/class/block").map_err(|e| format!("listing the disks failed: {e}"))?.flatten()
    {
        let found = fs::read_to_string(entry.path().join("serial"));
        if found.is_ok_and(|found| found.trim_end_matches(['\n', '\0']) == serial) {
            return Ok(format!("/dev/{}", entry.file_name().to_string_lossy()));
        }
    }
    Err(format!("no disk has the serial number {serial:?}"))
}

/// Copies the directory of the image, open as `image`, into the empty volume that is mounted at `volume`.
fn fill(image: RawFd, volume: &Path) -> io::Result<()> {
    let (data, unfinished) = (volume.join(DATA), volume.join(UNFINISHED));
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::create_dir(&data) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if fs::read_dir(&data)?.next().is_some() {
        return Ok(());
    }
    // Leads to the very directory, and not to what is mounted above it.
    let image = PathBuf::from(format!("/proc/self/fd/{image}/."));
    let found = fs::symlink_metadata(&image)?;
    if fs::read_dir(&image)?.next().is_none() {
        return describe_as(&image, &data, &found);
    }
    let copied = copy_directory(&image, &unfinished, &found, &mut HashMap::new()).and_then(|()| {
        rustix::fs::syncfs(File::open(volume)?)?;
        fs::rename(&unfinished, &data)?;
        Ok(rustix::fs::syncfs(File::open(volume)?)?)
    });
    if copied.is_err() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    copied
}

/// Where files with several names were copied to.
type Links = HashMap<(u64, u64), PathBuf>;

fn copy_directory(from: &Path, to: &Path, found: &Metadata, links: &mut Links) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        copy(&from.join(&name), &to.join(&name), links)?;
    }
    describe_as(from, to, found)
}

fn copy(from: &Path, to: &Path, links: &mut Links) -> io::Result<()> {
    let found = fs::symlink_metadata(from)?;
    let kind = found.file_type();
    if !kind.is_dir() && found.nlink() > 1 {
        if let Some(first) = links.get(&(found.dev(), found.ino())) {
            return fs::hard_link(first, to);
        }
        links.insert((found.dev(), found.ino()), to.to_owned());
    }
    if kind.is_dir() {
        return copy_directory(from, to, &found, links);
    } else if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        fs::copy(from, to)?;
    } else if kind.is_socket() {
        return Ok(());
    } else {
        let (node, mode) = (FileType::from_raw_mode(found.mode()), Mode::from_raw_mode(found.mode()));
        rustix::fs::mknodat(CWD, to, node, mode, found.rdev())?;
    }
    describe_as(from, to, &found)
}

/// Gives `to` owner, mode, extended attributes and times of `from`.
fn describe_as(from: &Path, to: &Path, found: &Metadata) -> io::Result<()> {
    lchown(to, Some(found.uid()), Some(found.gid()))?;
    if !found.file_type().is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(found.mode() & 0o7777))?;
    }
    copy_attributes(from, to)?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(found.atime(), found.atime_nsec()),
        last_modification: time(found.mtime(), found.mtime_nsec()),
    };
    Ok(rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    // The kernel's bound of both a list of names and a value.
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(from, &mut names[..])?;
    if length == 0 {
        return Ok(());
    }
    let mut value = vec![0; 64 << 10];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = rustix::fs::lgetxattr(from, name, &mut value[..])?;
        rustix::fs::lsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}
