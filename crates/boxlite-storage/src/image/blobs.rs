//! Blobs: layers, configs and manifests, stored once under the digest of their bytes.
//!
//! A blob is written to one partial file of a fixed name, `images/tmp/blob-<hex>.partial`, on which its writer
//! holds an exclusive lock. Others that want the blob wait for that lock and then find the blob; after a killed
//! writer, the next one continues where that one stopped. The blob appears at its path only when its digest has
//! been verified.
//!
//! **What keeps a blob from gc.** A pull holds a lease ([`Leased`]) on every blob it relies on until
//! the image is in the catalogue; a build holds one on every layer it reads. gc takes an exclusive lock without
//! waiting, asks the catalogue *then* whether an image refers to the blob, and only then removes it
//! ([`Blobs::collect`]): the protocol of disk images. A lease also refreshes the modification time, so that the
//! grace covers a reader that is about to take one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use boxlite_home::Home;
use boxlite_home::durable::{self, Lock, Staged, fault};
use boxlite_home::lease::Leased;
use boxlite_types::{Digest, Doing, Error, Result};
use sha2::{Digest as _, Sha256};

use super::WriteSpace;
use super::ingest::{Ingest, hash_file};

/// How long to wait before asking again for a blob that another process is writing.
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The store of blobs of one home.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    home: Home,
}

/// The answer to a caller who wants a blob.
#[derive(Debug)]
pub(crate) enum WantedBlob {
    /// It is there.
    Present(Leased),
    /// Another process is writing it; ask again.
    Busy,
    /// It is the caller's to write.
    Missing(Box<Ingest>),
}

impl Blobs {
    pub(crate) fn new(home: Home) -> Self {
        Self { home }
    }

    /// Where the blob is, or would be.
    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.home.blobs().join(digest.hex())
    }

    /// Leases the blob if it is there with `length` bytes; one of another length is removed if it is damaged.
    pub(crate) fn lease(&self, digest: Digest, length: Option<u64>) -> Result<Option<Leased>> {
        let path = self.path(digest);
        let Some(leased) = Leased::acquire(&path)? else { return Ok(None) };
        let found = leased.file().metadata().doing("examining the blob", &path)?.len();
        if length.is_some_and(|length| length != found) {
            drop(leased);
            // The length is only a manifest's claim: the digest decides which of the two is wrong.
            self.remove_if_damaged(digest)?;
            return Ok(None);
        }
        let now = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
            last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        };
        // The lease alone protects the blob, so a home that refuses this loses nothing.
        let _ = rustix::fs::futimens(leased.file(), &now);
        Ok(Some(leased))
    }

    /// Leases the blob, or begins to write it, or says that another process is writing it.
    ///
    /// A new writer asks `room` for all that is missing, and again as it arrives.
    pub(crate) fn want(
        &self,
        digest: Digest,
        length: u64,
        room: impl FnOnce() -> Result<WriteSpace>,
    ) -> Result<WantedBlob> {
        if let Some(lease) = self.lease(digest, Some(length))? {
            return Ok(WantedBlob::Present(lease));
        }
        fault::point("blob.absent").doing("looking for", self.path(digest))?;
        let Some(staged) = Staged::take_over(&self.home.tmp(), &partial_name(digest))? else {
            return Ok(WantedBlob::Busy);
        };
        if let Some(lease) = self.lease(digest, Some(length))? {
            return Ok(WantedBlob::Present(lease));
        }
        let ingest = Ingest::resume(staged, self.path(digest), digest, length, room()?)?;
        ingest.reserve()?;
        Ok(WantedBlob::Missing(Box::new(ingest)))
    }

    /// Whether another process is writing the blob now.
    pub(crate) fn is_being_written(&self, digest: Digest) -> Result<bool> {
        let path = self.home.tmp().join(partial_name(digest));
        match File::open(&path) {
            Ok(file) => Ok(Lock::try_lock_open(file, &path)?.is_none()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("opening the partial blob", path, error)),
        }
    }

    /// Reads a small blob of `length` bytes; `None` when it is missing or damaged.
    pub(crate) fn read(&self, digest: Digest, length: u64) -> Result<Option<Vec<u8>>> {
        let Some(leased) = self.lease(digest, Some(length))? else { return Ok(None) };
        let mut bytes = vec![0; length as usize];
        leased.file().read_exact_at(&mut bytes, 0).doing("reading the blob", leased.path())?;
        Ok((Digest::of(&bytes) == digest).then_some(bytes))
    }

    /// Stores a small blob that is in memory already.
    pub(crate) fn put(&self, bytes: &[u8], room: &WriteSpace) -> Result<Leased> {
        let digest = Digest::of(bytes);
        loop {
            match self.want(digest, bytes.len() as u64, || Ok(room.clone()))? {
                WantedBlob::Present(lease) => return Ok(lease),
                WantedBlob::Missing(mut ingest) => {
                    ingest.restart()?;
                    ingest.write(bytes)?;
                    ingest.publish()?;
                }
                WantedBlob::Busy => std::thread::sleep(BUSY_PAUSE),
            }
        }
    }

    /// Removes the blob if it is not locked and `unneeded` says so under the lock; returns the bytes freed.
    pub(crate) fn collect(
        &self,
        digest: Digest,
        unneeded: impl FnOnce() -> Result<bool>,
    ) -> Result<Option<u64>> {
        self.remove_if(digest, |_| unneeded())
    }

    /// Removes the blob if it is damaged and not locked; the next pull fetches it anew.
    pub(crate) fn remove_if_damaged(&self, digest: Digest) -> Result<bool> {
        let path = self.path(digest);
        let freed = self.remove_if(digest, |file| {
            let mut hasher = Sha256::new();
            hash_file(file, u64::MAX, &mut hasher).doing("reading the blob", &path)?;
            Ok(Digest::finish(hasher) != digest)
        })?;
        Ok(freed.is_some())
    }

    fn remove_if(
        &self,
        digest: Digest,
        condition: impl FnOnce(&File) -> Result<bool>,
    ) -> Result<Option<u64>> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("opening the blob", path, error)),
        };
        let Some(lock) = Lock::try_lock_open(file, &path)? else { return Ok(None) };
        if !lock.still_at_path()? || !condition(lock.file())? {
            return Ok(None);
        }
        let freed = durable::allocated(&lock.file().metadata().doing("examining the blob", &path)?);
        remove(lock, &self.home.tmp())?;
        Ok(Some(freed))
    }
}

/// Removes the blob on which `lock` is held; the lock ends before the slow unlink.
pub(crate) fn remove(lock: Lock, tmp: &Path) -> Result<()> {
    let trash = durable::discard(lock.path(), tmp)?;
    drop(lock);
    trash.delete()
}

fn partial_name(digest: Digest) -> String {
    format!("blob-{}.partial", digest.hex())
}
