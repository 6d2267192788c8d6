//! Reading small files whose contents a person may have made.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// No file that boxlite reads whole is longer.
const MAX_TEXT: u64 = 4 << 20;

/// Reads the regular file at `path` as text, following symlinks.
///
/// # Errors
/// At once for a FIFO, a device or a directory, which could block forever or never end.
pub fn read_text(path: &Path) -> Result<String> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = String::new();
    if file.take(MAX_TEXT + 1).read_to_string(&mut text)? as u64 > MAX_TEXT {
        let message = format!("it is longer than {} MiB", MAX_TEXT >> 20);
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    Ok(text)
}
