//! The callers that still need what a run of an auto-remove box leaves: its outcome and its log.
//!
//! # Locking
//! `attendance.lock` in the box's directory is held shared by everybody who starts the box, waits for it or is attached to
//! it, and for an instant exclusively by the shim, after the run, before it removes the box. It is taken before the
//! box's guard. A caller that is killed loses it with its life.

use boxlite_home::BoxPaths;
use boxlite_home::durable::Lock;
use boxlite_types::{Error, Result};

/// A caller's share in a box that removes itself: the box stays meanwhile.
#[derive(Debug)]
pub(crate) struct Attendance {
    _lock: Lock,
}

impl Attendance {
    /// Begins to attend the box at `paths`; `None` for a box that is gone, or that an earlier version has made.
    pub(crate) fn begin(paths: &BoxPaths) -> Result<Option<Self>> {
        let path = paths.attendance_lock();
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("opening", path, error)),
        };
        Ok(Some(Self { _lock: Lock::shared_on(file, &path)? }))
    }

    /// Waits until nobody attends the box at `paths`. Blocks.
    pub(crate) fn wait_for_end(paths: &BoxPaths) -> Result<()> {
        Lock::exclusive(&paths.attendance_lock()).map(drop)
    }
}
