//! Claims on disk space and on memory that cannot outlive their owner: byte-range locks on an empty file.
//!
//! A claim of N bytes is an OFD write lock on a range of length N of `$BOXLITE_HOME/claims`, or of
//! `$BOXLITE_HOME/memory-claims`. Nothing is written, so a claim works on a full disk, and the kernel releases it when
//! the last process that inherited its descriptor is gone. A claim is placed above every live range, and its owner counts
//! only what lies below its own: of two racers the later one counts the earlier, never both each other, and neither waits.
//!
//! No later claim can end up below an earlier one unseen: after locking, the owner looks above its range. If it finds
//! a claim there, it releases its own and begins again. If not, any claim above it is locked later, and that claim's
//! owner, which counts after locking, counts this one.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use boxlite_types::{Doing, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::home::Home;

/// The end of the offsets that can be locked.
const END: u64 = i64::MAX as u64;

/// More attempts than any number of honest racers can cause.
const ATTEMPTS: usize = 10_000;

/// The claims on the disk space, or on the memory, of one home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    path: PathBuf,
}

/// A claim that is held now, as its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveClaim {
    /// Where its range starts; a later claim lies higher.
    pub start: u64,
    /// Bytes claimed.
    pub bytes: u64,
}

/// Claimed bytes: alive for as long as any process has its descriptor open.
///
/// Dropping it closes this process's descriptor only; a shim that inherited one keeps the claim.
#[derive(Debug)]
pub struct Claim {
    file: File,
    path: PathBuf,
    start: u64,
    bytes: u64,
}

impl Claims {
    /// The claims on the disk space of `home`; creates their empty file where it is missing.
    pub fn open(home: &Home) -> Result<Self> {
        Self::at(home.claims())
    }

    /// The claims on memory of the boxes in `home`; creates their empty file where it is missing.
    pub fn on_memory(home: &Home) -> Result<Self> {
        Self::at(home.memory_claims())
    }

    /// The claims on memory of the guests in `home` that wait for a box; creates their empty file where it is missing.
    ///
    /// They are apart from those of boxes, because they never keep a box from starting.
    pub fn of_pool(home: &Home) -> Result<Self> {
        Self::at(home.pool_claims())
    }

    fn at(path: PathBuf) -> Result<Self> {
        durable::ensure_file(&path)?;
        Ok(Self { path })
    }

    fn file(&self) -> Result<File> {
        File::options().read(true).write(true).open(&self.path).doing("opening the claims", &self.path)
    }

    /// Claims `bytes` above every claim that is live now.
    ///
    /// # Errors
    /// `Busy` when a foreign lock covers all offsets.
    pub fn take(&self, bytes: u64) -> Result<Claim> {
        let file = self.file()?;
        for _ in 0..ATTEMPTS {
            let start = highest_end(&file, &self.path)?;
            if start.checked_add(bytes).is_none_or(|end| end >= END) {
                break;
            }
            if self.try_range(&file, start, bytes)? {
                return Ok(Claim { file, path: self.path.clone(), start, bytes });
            }
        }
        let message = format!("no range of {} is left to claim {bytes} bytes", self.path.display());
        Err(Error::new(ErrorKind::Busy, message).at(&self.path))
    }

    /// Locks the range, unless another claim overlaps it or lies above it.
    fn try_range(&self, file: &File, start: u64, bytes: u64) -> Result<bool> {
        if bytes > 0 && !lock(file, &self.path, start, bytes)? {
            return Ok(false);
        }
        if blocker(file, &self.path, start + bytes, END)?.is_none() {
            return Ok(true);
        }
        unlock(file, &self.path, start, bytes)?;
        Ok(false)
    }

    /// Takes the range of a racer that looked for the highest claim long ago.
    #[cfg(test)]
    pub(super) fn take_stale(&self, start: u64, bytes: u64) -> Result<Option<Claim>> {
        let file = self.file()?;
        let taken = self.try_range(&file, start, bytes)?;
        Ok(taken.then(|| Claim { file, path: self.path.clone(), start, bytes }))
    }

    /// Locks the range unconditionally, which no product code does.
    #[cfg(test)]
    pub(super) fn force(&self, start: u64, bytes: u64) -> Result<Claim> {
        let file = self.file()?;
        assert!(lock(&file, &self.path, start, bytes)?);
        Ok(Claim { file, path: self.path.clone(), start, bytes })
    }

    /// Every live claim, in the order of their ranges.
    pub fn live(&self) -> Result<Vec<LiveClaim>> {
        collect(&self.file()?, &self.path, END)
    }

    /// Sum of the live claims in bytes.
    pub fn promised(&self) -> Result<u64> {
        Ok(total(&self.live()?))
    }

    /// Takes over a claim that another process took among these: its inherited descriptor and its range.
    ///
    /// # Errors
    /// `InvalidInput` when the descriptor is not the file of these claims or the range is not held.
    pub fn adopt(&self, descriptor: OwnedFd, range: LiveClaim) -> Result<Claim> {
        let path = &self.path;
        let file = File::from(descriptor);
        let known = std::fs::metadata(path).doing("examining", path)?;
        let given = file.metadata().doing("examining the inherited claim on", path)?;
        let end = range.start.checked_add(range.bytes).filter(|end| *end < END);
        let same = durable::FileId::of(&known) == durable::FileId::of(&given);
        let held = || self.live().map(|live| live.contains(&range));
        if end.is_none() || !same || (range.bytes > 0 && !held()?) {
            let message = format!("the inherited descriptor holds no claim on {}", path.display());
            return Err(Error::invalid(message).at(path));
        }
        Ok(Claim { file, path: path.clone(), start: range.start, bytes: range.bytes })
    }
}

/// The descriptor, to hand the claim on to a process that outlives this one: the claim ends with the last copy of it.
impl From<Claim> for OwnedFd {
    fn from(claim: Claim) -> Self {
        claim.file.into()
    }
}

impl Claim {
    /// Sum in bytes of the live claims that were taken before this one.
    pub fn promised_before(&self) -> Result<u64> {
        Ok(total(&collect(&self.file, &self.path, self.start)?))
    }

    /// Bytes still claimed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back all but `bytes`, as the claimed space is being written; never grows.
    pub fn shrink_to(&mut self, bytes: u64) -> Result<()> {
        if bytes < self.bytes {
            unlock(&self.file, &self.path, self.start + bytes, self.bytes - bytes)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// The data with which the process that inherits the descriptor calls [`Claims::adopt`].
    pub fn range(&self) -> LiveClaim {
        LiveClaim { start: self.start, bytes: self.bytes }
    }
}

impl AsFd for Claim {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn total(claims: &[LiveClaim]) -> u64 {
    claims.iter().fold(0, |sum, claim| sum.saturating_add(claim.bytes))
}

/// The end of the highest range that others hold.
fn highest_end(file: &File, path: &Path) -> Result<u64> {
    let mut end = 0;
    while let Some(found) = blocker(file, path, end, END)? {
        end = found.start.saturating_add(found.bytes);
        if end >= END {
            break;
        }
    }
    Ok(end)
}

/// The ranges that others hold below `end`. `F_OFD_GETLK` returns *a* lock in the range, not the lowest.
fn collect(file: &File, path: &Path, end: u64) -> Result<Vec<LiveClaim>> {
    let mut found = Vec::new();
    let mut unexplored = vec![(0, end)];
    while let Some((from, to)) = unexplored.pop() {
        if from >= to {
            continue;
        }
        let Some(claim) = blocker(file, path, from, to)? else { continue };
        found.push(claim);
        unexplored.push((from, claim.start));
        unexplored.push((claim.start.saturating_add(claim.bytes), to));
    }
    found.sort_by_key(|claim| claim.start);
    Ok(found)
}

/// Some range in `from..to` that another open file description has locked.
fn blocker(file: &File, path: &Path, from: u64, to: u64) -> Result<Option<LiveClaim>> {
    let mut region = region(libc::F_WRLCK, from, to - from);
    control(file, libc::F_OFD_GETLK, &mut region).doing("reading the claims in", path)?;
    if i32::from(region.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let start = region.l_start.max(0) as u64;
    let bytes = if region.l_len <= 0 { END - start } else { region.l_len as u64 };
    Ok(Some(LiveClaim { start, bytes }))
}

/// `false` when another claim overlaps.
fn lock(file: &File, path: &Path, start: u64, bytes: u64) -> Result<bool> {
    let mut region = region(libc::F_WRLCK, start, bytes);
    match control(file, libc::F_OFD_SETLK, &mut region) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(Error::io("claiming space in", path, error)),
    }
}

fn unlock(file: &File, path: &Path, start: u64, bytes: u64) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let mut region = region(libc::F_UNLCK, start, bytes);
    control(file, libc::F_OFD_SETLK, &mut region).doing("giving back space in", path)
}

fn region(kind: i32, start: u64, bytes: u64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start as libc::off_t,
        l_len: bytes as libc::off_t,
        l_pid: 0,
    }
}

#[allow(unsafe_code)] // OFD locks have no safe wrapper in std or rustix.
fn control(file: &File, command: i32, region: &mut libc::flock) -> std::io::Result<()> {
    loop {
        // SAFETY: the descriptor is open for the whole call and `region` is a valid, exclusively borrowed flock.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(region)) };
        if result == 0 {
            return Ok(());
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
