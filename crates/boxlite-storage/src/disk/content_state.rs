//! When the contents of a file of a disk image must be compared with their sum again.
//!
//! Reading all contents at each start would cost more than the start. So an attribute of the file remembers in which
//! state its contents were right: inode, birth, length, modification time. A copy, a restored file and one that was
//! written to have another state, and are read once. The attribute allocates nothing and goes with the file.

use std::fs::File;
use std::io;

use rustix::fs::{AtFlags, StatxFlags, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// The attribute of a file whose contents were right. With name and value it fits beside the inode.
const ATTRIBUTE: &str = "user.boxlite.sound";
/// The most bytes of the attribute: a SHA-256 and a state.
const MAX_ATTRIBUTE: usize = 48;
/// Bytes of a state.
pub(crate) const STATE_LENGTH: usize = 16;

/// A digest that changes when a file's bytes do, short of damage below the filesystem and of a modification time that was put
/// back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentState([u8; STATE_LENGTH]);

impl ContentState {
    /// The state of `file`, whose contents have, or whose header has, the sum `seal`.
    pub(crate) fn of(file: &File, seal: &[u8]) -> io::Result<Self> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, wanted)?;
        let mut hasher = Sha256::new();
        for word in [found.stx_ino, found.stx_size] {
            hasher.update(word.to_le_bytes());
        }
        for time in [found.stx_btime, found.stx_mtime] {
            hasher.update(time.tv_sec.to_le_bytes());
            hasher.update(time.tv_nsec.to_le_bytes());
        }
        hasher.update(seal);
        let mut state = [0; STATE_LENGTH];
        state.copy_from_slice(&hasher.finalize()[..STATE_LENGTH]);
        Ok(Self(state))
    }

    /// The state as the attribute has it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The contents of a file's attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remembered {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing, or more than boxlite writes.
    Nothing,
    /// Files have no attributes here.
    Unsupported,
}

/// Reads the attribute of `file`.
pub(crate) fn remembered(file: &File) -> io::Result<Remembered> {
    let mut found = [0; MAX_ATTRIBUTE];
    match rustix::fs::fgetxattr(file, ATTRIBUTE, &mut found[..]) {
        Ok(length) => Ok(Remembered::Bytes(found[..length].to_vec())),
        Err(Errno::NODATA | Errno::RANGE) => Ok(Remembered::Nothing),
        Err(Errno::NOTSUP) => Ok(Remembered::Unsupported),
        Err(error) => Err(error.into()),
    }
}

/// Writes the attribute of `file`. Where that cannot be, the contents are read again, or not compared.
pub(crate) fn remember(file: &File, value: &[u8]) {
    if let Err(error) = rustix::fs::fsetxattr(file, ATTRIBUTE, value, XattrFlags::empty()) {
        tracing::debug!(%error, "that the contents of a disk image are right is not remembered");
    }
}
