//! Boot files that were made before: found by name, leased while a box starts from them, made anew when what they
//! came from has changed.
//!
//! Like a disk image, a boot file is used under a shared `flock`, checked to be the one at its path, and each use is
//! noted in its access time: gc discards what nobody has used for a day (`gc::boot_files`).

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use boxlite_home::durable::{self, Staged};
use boxlite_home::lease::Leased;
use boxlite_types::{Doing, Error, ErrorKind, Result};
use sha2::{Digest, Sha256};

use super::cpio;

/// Name of the list of inputs within an initramfs, whose first member it is.
pub(super) const INPUTS: &str = "inputs";

/// How long to wait before asking again for a boot file that another process is making.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Longest list of inputs that is read back, in bytes.
const LONGEST_LIST: usize = 64 << 10;

/// A file below the tree of modules whose contents went into an initramfs, and what told that state of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BootInput {
    path: PathBuf,
    state: String,
}

impl BootInput {
    /// Notes the state of the file at `path`; to be called before it is read.
    pub(super) fn of(tree: &Path, path: &Path) -> Self {
        Self { path: path.strip_prefix(tree).unwrap_or(path).to_owned(), state: state(path) }
    }

    /// The list that [`made_of`] compares.
    pub(super) fn list(inputs: &[Self]) -> String {
        let line = |input: &Self| format!("{} {}\n", input.state, input.path.display());
        inputs.iter().map(line).collect()
    }
}

/// A digest that changes with the file's state; that of nothing where there is no such file.
fn state(path: &Path) -> String {
    let found = std::fs::metadata(path).map(|found| fingerprint(&found)).unwrap_or_default();
    key(&[&found])
}

/// Whether the initramfs was made of the files below `tree` as they are now. Reads no more than its first bytes.
pub(super) fn made_of(initramfs: &File, tree: &Path) -> bool {
    let mut start = vec![0; LONGEST_LIST];
    let Ok(length) = initramfs.read_at(&mut start, 0) else { return false };
    let Some(list) = cpio::first_file(&start[..length], INPUTS) else { return false };
    let Ok(list) = std::str::from_utf8(list) else { return false };
    !list.is_empty()
        && list
            .lines()
            .all(|line| line.split_once(' ').is_some_and(|(noted, path)| state(&tree.join(path)) == noted))
}

/// Leases the boot file at `path`, making it (by way of `staging`) where it is missing or not `usable`.
///
/// Concurrent callers, in any process, make it once between them.
pub(super) fn lease_or_make(
    path: &Path,
    staging: &Path,
    usable: &dyn Fn(&File) -> bool,
    make: &dyn Fn() -> Result<Vec<u8>>,
) -> Result<Leased> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("boot-file");
    let find = || Leased::acquire(path).map(|found| found.filter(|leased| usable(leased.file())));
    loop {
        let mut found = find()?;
        if found.is_none() {
            let Some(staged) = Staged::take_over(staging, &format!("{name}.partial"))? else {
                pause_before_retry();
                continue;
            };
            found = match find()? {
                Some(found) => Some(found),
                None => write(&staged, make).and_then(|()| Leased::of_published(staged.publish(path)?))?,
            };
        }
        if let Some(leased) = found {
            make_readable(leased.file(), path)?;
            leased.touch()?;
            return Ok(leased);
        }
    }
}

/// Lets every user read the boot file, as far as its home lets one reach it: what each host with boxlite has is no secret,
/// and QEMU, which is another user's, finds it in the root of its jail.
fn make_readable(file: &File, path: &Path) -> Result<()> {
    let mode = file.metadata().doing("examining the boot file", path)?.mode();
    if mode & 0o044 == 0o044 { Ok(()) } else { durable::restrict(path, 0o644) }
}

/// Lets some time pass before the next look at what another process is making.
pub(super) fn pause_before_retry() {
    std::thread::sleep(RETRY_INTERVAL);
}

fn write(staged: &Staged, make: &dyn Fn() -> Result<Vec<u8>>) -> Result<()> {
    let bytes = make()?;
    let doing = "writing the boot file";
    staged.file().set_len(0).doing(doing, staged.path())?;
    staged.file().write_all_at(&bytes, 0).doing(doing, staged.path())
}

/// Returns a text that tells one state of a file from another without reading it.
pub(super) fn identity(path: &Path, what: &str) -> Result<String> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(fingerprint(&found)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            let message = format!("{what} is missing at {}; run scripts/setup", path.display());
            Err(Error::new(ErrorKind::NotFound, message).at(path).because(source))
        }
        Err(source) => Err(Error::io("examining", path, source)),
    }
}

fn fingerprint(m: &Metadata) -> String {
    format!(
        "{}:{}:{}:{}.{}:{}.{}",
        m.dev(),
        m.ino(),
        m.len(),
        m.mtime(),
        m.mtime_nsec(),
        m.ctime(),
        m.ctime_nsec()
    )
}

/// The part of a cache name that stands for `identities`: 24 hex digits.
pub(super) fn key(identities: &[&str]) -> String {
    let mut hash = Sha256::new();
    hash.update(super::FORMAT.to_le_bytes());
    for identity in identities {
        hash.update(identity.as_bytes());
        hash.update([0]);
    }
    hex::encode(&hash.finalize()[..12])
}
