//! The sweep of what is reached from boxes: box directories without a record, bases, disk images.
//!
//! Each stage locks its candidates, takes a second census with the locks held, and removes only what is still
//! unneeded. What was removed (or would be, in a dry run) is released and no root for the next stage.

mod directory;
mod stored;

pub(super) use directory::box_directories;
pub(super) use stored::{bases, disk_images};

use std::fs::File;
use std::path::Path;

use boxlite_home::durable::Lock;
use boxlite_types::{Error, Result};

/// What came of trying to lock a candidate.
pub(super) enum Grip {
    Held(Lock),
    Busy,
    Gone,
}

/// Locks the regular file at `path` exclusively, without waiting and without creating it.
pub(super) fn grip(path: &Path, write: bool) -> Result<Grip> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = File::options().read(true).write(write).custom_flags(flags.bits() as i32).open(path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Grip::Gone),
        Err(error) => return Err(Error::io("opening", path, error)),
    };
    let Some(lock) = Lock::try_lock_open(file, path)? else { return Ok(Grip::Busy) };
    Ok(if lock.still_at_path()? { Grip::Held(lock) } else { Grip::Gone })
}
