//! Files that nothing relies on after a crash: logs and sockets. They are not fsynced, so these calls stay cheap.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use boxlite_types::{Doing, Error, Result};

/// Opens the log at `path` for reading and appending, creating it (mode 0600) when it is missing.
pub fn open_log(path: &Path) -> Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    File::options()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
        .doing("opening the log", path)
}

/// Makes the log at `path` the old log at `old`, replacing that.
pub fn rotate_log(path: &Path, old: &Path) -> Result<()> {
    std::fs::rename(path, old).doing("rotating the log", path)
}

/// Removes the log or socket at `path` if there is one.
pub fn remove_volatile(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", path, error)),
        _ => Ok(()),
    }
}
