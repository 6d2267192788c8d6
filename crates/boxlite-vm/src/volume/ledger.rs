//! The files in which virtiofsd keeps how much of a volume's size its box has used.
//!
//! Each is a file of its own in the box's directory, so that the figures go on when the box starts again and go with it
//! when it is removed. The name is made of what the volume is, so that another one begins anew.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use boxlite_home::durable;
use boxlite_types::{Doing, Result, Volume};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

/// Bytes of the digest that a name shows.
const NAME_BYTES: usize = 16;

/// Opens the ledger of `volume` in `directory`, which is made when it is missing.
pub(super) fn open(directory: &Path, volume: &Volume) -> Result<File> {
    durable::ensure_dir(directory)?;
    let path = path(directory, volume);
    durable::ensure_file(&path)?;
    let flags = OFlags::NOFOLLOW.bits() as i32;
    let mut options = File::options();
    options.read(true).write(true).custom_flags(flags);
    options.open(&path).doing("opening the volume's ledger", &path)
}

fn path(directory: &Path, volume: &Volume) -> PathBuf {
    let mut digest = Sha256::new();
    digest.update(volume.source.as_os_str().as_bytes());
    digest.update([0]);
    digest.update(volume.target.as_bytes());
    directory.join(hex::encode(&digest.finalize()[..NAME_BYTES]))
}
