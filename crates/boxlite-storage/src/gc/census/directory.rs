//! Listing directories through descriptors, without a path lookup per entry.

use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

/// Opens the directory at `path` for listing.
pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Calls `visit` with name and type of each entry but `.` and `..`.
pub(super) fn each_entry(handle: &OwnedFd, visit: impl FnMut(&CStr, FileType)) -> Result<(), Errno> {
    each_entry_in(handle, &mut Vec::with_capacity(32 << 10), visit)
}

/// [`each_entry`] with a buffer that is used again.
pub(super) fn each_entry_in(
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

pub(super) fn os(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}
