//! A small file whose blocks are allocated in advance, so that it can be written when the disk is full.
//!
//! Always [`SLOT_LEN`] bytes: the contents, a newline, their SHA-256 in hex, a newline, then spaces. A slot whose
//! checksum does not fit (never written, or torn by a power loss) reads as empty.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use boxlite_types::{Doing, Error, Result};
use sha2::{Digest, Sha256};

use super::sync_dir;

/// Length of a slot in bytes; its contents are at most 128 bytes shorter.
pub const SLOT_LEN: usize = 4096;

const OVERHEAD: usize = 128;

/// A preallocated file, open for writing in place.
#[derive(Debug)]
pub struct Slot {
    file: File,
    path: PathBuf,
}

impl Slot {
    /// Opens the slot at `path`, taking its room on the disk first if it is new, and empties it.
    ///
    /// Durable when [`Slot::sync_at`] has returned. A lock elsewhere must keep writers of one slot from each other.
    pub fn emptied(path: &Path) -> Result<Self> {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)
            .doing("opening", path)?;
        let slot = Self { file, path: path.to_owned() };
        slot.file.write_all_at(&[b' '; SLOT_LEN], 0).doing("reserving room in", path)?;
        slot.file.set_len(SLOT_LEN as u64).doing("reserving room in", path)?;
        Ok(slot)
    }

    /// Makes the existence and the contents of the slot at `path` durable, which another process may have open.
    pub fn sync_at(path: &Path) -> Result<()> {
        File::open(path).and_then(|file| file.sync_all()).doing("syncing", path)?;
        path.parent().map_or(Ok(()), sync_dir)
    }

    /// Writes `contents` in place and makes them durable; needs no free space on filesystems that overwrite in place.
    ///
    /// # Errors
    /// `InvalidInput` when the contents are too long or contain a newline.
    pub fn write(&self, contents: &[u8]) -> Result<()> {
        self.write_volatile(contents)?;
        self.file.sync_data().doing("syncing", &self.path)
    }

    fn block(&self, contents: &[u8]) -> Result<[u8; SLOT_LEN]> {
        if contents.len() > SLOT_LEN - OVERHEAD || contents.contains(&b'\n') {
            let message = format!("{} bytes do not fit {} on one line", contents.len(), self.path.display());
            return Err(Error::invalid(message).at(&self.path));
        }
        let mut block = [b' '; SLOT_LEN];
        let checksum = hex::encode(Sha256::digest(contents));
        block[..contents.len()].copy_from_slice(contents);
        block[contents.len()] = b'\n';
        let rest = &mut block[contents.len() + 1..];
        rest[..checksum.len()].copy_from_slice(checksum.as_bytes());
        rest[checksum.len()] = b'\n';
        Ok(block)
    }

    /// Writes `contents` in place for processes of this boot; what is read after a power loss may be older.
    ///
    /// # Errors
    /// As for [`Slot::write`].
    pub fn write_volatile(&self, contents: &[u8]) -> Result<()> {
        let block = self.block(contents)?;
        self.file.write_all_at(&block, 0).doing("writing", &self.path)
    }

    /// Empties the slot as [`Slot::write_volatile`] writes it.
    pub fn clear(&self) -> Result<()> {
        self.file.write_all_at(&[b' '; SLOT_LEN], 0).doing("emptying", &self.path)
    }

    /// Reads what was last written whole to the slot at `path`; `None` when there is no slot or it is empty or torn.
    pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32;
        let file = match File::options().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("opening", path, error)),
        };
        let mut block = [0; SLOT_LEN];
        match file.read_exact_at(&mut block, 0) {
            Ok(()) => Ok(validated(&block)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(Error::io("reading", path, error)),
        }
    }
}

fn validated(block: &[u8]) -> Option<Vec<u8>> {
    let mut lines = block.splitn(3, |&byte| byte == b'\n');
    let (contents, checksum) = (lines.next()?, lines.next()?);
    (checksum == hex::encode(Sha256::digest(contents)).as_bytes()).then(|| contents.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_returns_what_was_written_whole_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slot");
        assert_eq!(Slot::read(&path).unwrap(), None);
        let slot = Slot::emptied(&path).unwrap();
        Slot::sync_at(&path).unwrap();
        assert_eq!(Slot::read(&path).unwrap(), None);
        slot.write(b"{\"first\":1}").unwrap();
        assert_eq!(Slot::read(&path).unwrap().as_deref(), Some(&b"{\"first\":1}"[..]));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), SLOT_LEN as u64);

        let torn = std::fs::read(&path).unwrap();
        slot.write(b"{\"second\":2222}").unwrap();
        slot.file.write_all_at(&torn[..9], 0).unwrap();
        assert_eq!(Slot::read(&path).unwrap(), None, "a torn slot must not pass for an outcome");

        assert_eq!(slot.write(&[b'x'; SLOT_LEN]).unwrap_err().kind(), boxlite_types::ErrorKind::InvalidInput);
        slot.write_volatile(b"third").unwrap();
        assert_eq!(Slot::read(&path).unwrap().as_deref(), Some(&b"third"[..]));
        slot.clear().unwrap();
        assert_eq!(Slot::read(&path).unwrap(), None);
        drop(slot);
        Slot::emptied(&path).unwrap();
        assert_eq!(Slot::read(&path).unwrap(), None, "an emptied slot forgets the last run");
    }
}
