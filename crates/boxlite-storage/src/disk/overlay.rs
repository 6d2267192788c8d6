//! Copy-on-write overlays, which hold what boxes write.

use std::ffi::OsString;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use boxlite_home::Home;
use boxlite_home::durable::Staged;
use boxlite_home::lease::Leased;
use boxlite_types::{Doing, Error, Result};

use super::qcow2::chain::{DEEPEST, open_at, read_start};
use super::qcow2::header::BOUND;
use super::qcow2::{self, BackingDirectories, BackingFormat, CLUSTER, Qcow2Header, overlay_header};

/// Creates an empty overlay of `virtual_size` bytes (virtual) at `destination`, above the leased `backing` file.
///
/// The overlay is durable when this returns: from then on its header pins the backing file, and the lease may be
/// released. It allocates 12 KiB. The caller ensures that `virtual_size` is not below the backing file's.
///
/// # Errors
/// `Conflict` when something is at `destination` already, which is left alone; callers that may race hold the
/// box's state lock. `InvalidInput` for a backing path beyond qcow2's 1 023 bytes.
pub fn create(
    home: &Home,
    backing: &Leased,
    format: BackingFormat,
    destination: &Path,
    virtual_size: u64,
) -> Result<()> {
    match std::fs::symlink_metadata(destination) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("examining", destination, error)),
        Ok(_) => {
            let message = format!("there is an overlay at {} already", destination.display());
            return Err(Error::conflict(message).at(destination));
        }
    }
    stage(home, backing.path(), format, destination, virtual_size)?.publish(destination).map(drop)
}

/// Replaces the overlay at `destination` by an empty one above the base `backing`, in one rename.
///
/// `backing` must hold what the replaced overlay held, and the caller the box's state lock.
pub fn replace(home: &Home, destination: &Path, backing: &Path, virtual_size: u64) -> Result<()> {
    let staged = stage(home, backing, BackingFormat::Qcow2, destination, virtual_size)?;
    staged.publish(destination).map(drop)
}

fn stage(
    home: &Home,
    backing: &Path,
    format: BackingFormat,
    destination: &Path,
    virtual_size: u64,
) -> Result<Staged> {
    let header = overlay_header(backing, format, virtual_size)?;
    let staged = Staged::create(&home.tmp(), "overlay")?;
    let file = staged.file();
    let doing = "writing the overlay";
    file.write_all_at(&header.head, 0).doing(doing, destination)?;
    file.write_all_at(&header.refcount_table, CLUSTER).doing(doing, destination)?;
    file.write_all_at(&header.refcount_block, 2 * CLUSTER).doing(doing, destination)?;
    file.set_len(header.length).doing(doing, destination)?;
    Ok(staged)
}

/// The files that one of a home's own overlays stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Below {
    /// Its virtual size in bytes.
    pub virtual_size: u64,
    /// The bases between it and the disk image, nearest first.
    pub bases: Vec<PathBuf>,
    /// File name of the disk image; `None` for one that stands on none.
    pub disk_image: Option<OsString>,
}

/// Reads what the overlay of a box of `home` stands on. Bases are found by name, so a home may have been moved.
///
/// # Errors
/// `Corrupt` when a header cannot be read or a base is missing.
pub fn below(home: &Home, overlay: &Path) -> Result<Below> {
    let (virtual_size, mut next) = read(home, overlay)?;
    let mut bases = Vec::new();
    while let Some((BackingFormat::Qcow2, base)) = next {
        if bases.len() == DEEPEST {
            return Err(unreadable(overlay, &format!("it stands on more than {DEEPEST} bases")));
        }
        next = read(home, &base)?.1;
        bases.push(base);
    }
    let disk_image = next.and_then(|(_, image)| image.file_name().map(ToOwned::to_owned));
    Ok(Below { virtual_size, bases, disk_image })
}

/// Whether nothing was ever written to the overlay, whose header [`below`] has read.
///
/// # Errors
/// `Corrupt` when it cannot be read.
pub fn is_pristine(overlay: &Leased) -> Result<bool> {
    qcow2::is_pristine(overlay.file()).map_err(|error| unreadable(overlay.path(), &error.to_string()))
}

/// The virtual size of an overlay or base, and the format and path of the file of this home that it stands on.
fn read(home: &Home, path: &Path) -> Result<(u64, Option<(BackingFormat, PathBuf)>)> {
    let opened = open_at(rustix::fs::CWD, path);
    let file = opened.map_err(|errno| unreadable(path, &errno.to_string()).because(errno))?;
    let mut start = [0; BOUND];
    let filled = read_start(&file, &mut start).doing("reading", path)?;
    let header = Qcow2Header::parse(&start[..filled]).map_err(|bad| unreadable(path, &bad.to_string()))?;
    let Some(backing) = header.backing else { return Ok((header.virtual_size, None)) };
    let own = BackingDirectories::of_home(home).own(backing.name, backing.format);
    let own = own.ok_or_else(|| unreadable(path, "its backing file has no name"))?;
    Ok((header.virtual_size, Some((backing.format, own))))
}

fn unreadable(path: &Path, why: &str) -> Error {
    Error::corrupt(format!("the disk {} cannot be read: {why}", path.display())).at(path)
}
