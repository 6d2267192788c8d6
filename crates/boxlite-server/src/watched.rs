//! Files that are read again when they change, and that others must not be able to read.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use boxlite::{Error, ErrorKind, Result};

/// Tells one version of a file from another; the default is that of a file which is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FileStamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl FileStamp {
    /// Looks at the file now.
    pub(crate) fn of(path: &Path) -> Self {
        std::fs::metadata(path).map_or_else(
            |_| Self::default(),
            |metadata| Self {
                inode: metadata.ino(),
                length: metadata.len(),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            },
        )
    }
}

/// The bits of a file's mode for users besides owner and group.
const EVERYBODY: u32 = 0o007;

/// Refuses a file with a secret that users besides owner and group may read or write.
///
/// # Errors
/// `Denied`; `Io` when the file cannot be looked at.
pub(crate) fn refuse_open_to_all(path: &Path, what: &str) -> Result<()> {
    let metadata =
        std::fs::metadata(path).map_err(|error| Error::io(&format!("reading {what} from"), path, error))?;
    let for_others = metadata.mode() & EVERYBODY;
    if for_others == 0 {
        return Ok(());
    }
    let message = format!(
        "{} has mode {:03o}: everybody on this host may use {what}; make it 600",
        path.display(),
        metadata.mode() & 0o777
    );
    Err(Error::new(ErrorKind::Denied, message).at(path))
}
