//! A blob on its way into the store.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use boxlite_home::durable::{Staged, fault};
use boxlite_types::{Digest, Doing, Error, Result};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::WriteSpace;

/// How much is read, hashed and written at a time.
pub(crate) const CHUNK: usize = 256 << 10;

/// A blob that is being written: hashed on the way, and checked against the space that must stay free.
///
/// Dropping it removes what was written; [`Ingest::leave`] keeps that for a later writer to resume.
pub(crate) struct Ingest {
    staged: Staged,
    destination: PathBuf,
    digest: Digest,
    length: u64,
    hasher: Sha256,
    written: u64,
    resumed: bool,
    room: WriteSpace,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest")
            .field("digest", &self.digest)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl Ingest {
    pub(super) fn resume(
        staged: Staged,
        destination: PathBuf,
        digest: Digest,
        length: u64,
        room: WriteSpace,
    ) -> Result<Self> {
        let mut ingest = Self {
            staged,
            destination,
            digest,
            length,
            hasher: Sha256::new(),
            written: 0,
            resumed: false,
            room,
        };
        let path = ingest.staged.path();
        let found = ingest.staged.file().metadata().doing("examining the partial blob", path)?.len();
        if found > 0 && found <= length {
            let read = hash_file(ingest.staged.file(), found, &mut ingest.hasher);
            ingest.written = read.doing("reading the partial blob", ingest.staged.path())?;
            ingest.resumed = true;
        } else if found > 0 {
            ingest.restart()?;
        }
        Ok(ingest)
    }

    /// Claims room for what is still to come.
    pub(super) fn reserve(&self) -> Result<()> {
        self.room.reserve(self.length - self.written)
    }

    /// Bytes that are there already.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that are expected in all.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Whether some of the bytes are an earlier writer's.
    pub(crate) fn resumed(&self) -> bool {
        self.resumed
    }

    /// Forgets what was written.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.staged.file().set_len(0).doing("emptying the partial blob", self.staged.path())?;
        self.hasher = Sha256::new();
        self.written = 0;
        self.resumed = false;
        Ok(())
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// `Corrupt` when there are more than were announced; `ResourceExhausted` at the hard floor.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let doing = "writing the partial blob";
        if self.written + bytes.len() as u64 > self.length {
            let message = format!("blob {} is longer than the {} bytes announced", self.digest, self.length);
            return Err(Error::corrupt(message));
        }
        self.room.about_to_write(bytes.len() as u64)?;
        self.staged.file().write_all_at(bytes, self.written).doing(doing, self.staged.path())?;
        fault::point("blob.written").doing(doing, self.staged.path())?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Appends all of `batch`; what was written is removed when that fails.
    pub(crate) fn append(mut self, batch: &[Bytes]) -> Result<Self> {
        for bytes in batch {
            self.write(bytes)?;
        }
        Ok(self)
    }

    /// Verifies the digest and makes the blob visible.
    ///
    /// # Errors
    /// `Corrupt` when bytes are missing or are not those of the digest; nothing is left then.
    pub(crate) fn publish(self) -> Result<()> {
        if self.written != self.length {
            let message =
                format!("blob {} ended after {} of {} bytes", self.digest, self.written, self.length);
            return Err(Error::corrupt(message));
        }
        let found = Digest::finish(self.hasher);
        if found != self.digest {
            return Err(Error::corrupt(format!(
                "the bytes received for blob {} are those of {found}; the source is damaged or lies",
                self.digest
            )));
        }
        self.staged.publish(&self.destination).map(drop)
    }

    /// Whether the bytes so far are all and right.
    pub(crate) fn is_right(&self) -> bool {
        self.written == self.length && Digest::finish(self.hasher.clone()) == self.digest
    }

    /// Leaves the bytes for a later writer to resume.
    pub(crate) fn leave(self) {
        if self.written > 0 {
            self.staged.leave();
        }
    }

    /// Reads all from `source`.
    pub(crate) fn fill(
        &mut self,
        mut source: impl Read,
        doing: &str,
        mut tick: impl FnMut(u64),
    ) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let got = match source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(got) => got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io(doing, self.destination.clone(), error)),
            };
            self.write(&buffer[..got])?;
            tick(self.written);
        }
    }
}

/// Feeds at most `limit` bytes of `file` to `hasher`; returns how many there were.
pub(super) fn hash_file(file: &File, limit: u64, hasher: &mut Sha256) -> std::io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < limit {
        let wanted = (limit - offset).min(CHUNK as u64) as usize;
        match file.read_at(&mut buffer[..wanted], offset) {
            Ok(0) => break,
            Ok(got) => {
                hasher.update(&buffer[..got]);
                offset += got as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(offset)
}
