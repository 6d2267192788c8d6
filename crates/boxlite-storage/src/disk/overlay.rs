//! Copy-on-write overlays, which hold what boxes write.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use boxlite_home::Home;
use boxlite_home::durable::Staged;
use boxlite_home::lease::Leased;
use boxlite_types::{Doing, Error, Result};

use super::qcow2::chain::{DEEPEST, open_at, read_start};
use super::qcow2::header::BOUND;
use super::qcow2::{self, BackingDirectories, BackingFormat, CLUSTER, Qcow2Header, is_delta, overlay_header};

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
    /// The bases between it and the files of its image, nearest first.
    pub bases: Vec<PathBuf>,
    /// The files of its image, nearest first: deltas, then a disk image. Empty for one that stands on none.
    pub image: Vec<PathBuf>,
}

impl Below {
    /// The file that the overlay itself names, and its format.
    pub fn nearest(&self) -> Option<(&Path, BackingFormat)> {
        self.bases.iter().chain(&self.image).next().map(|path| (path.as_path(), format_of(path)))
    }
}

/// The format of a disk image, a delta or a base.
pub fn format_of(path: &Path) -> BackingFormat {
    let is_raw = path.extension().is_some_and(|extension| extension == "ext4");
    if is_raw { BackingFormat::Raw } else { BackingFormat::Qcow2 }
}

/// Reads what the overlay of a box of `home` stands on. Files are found by name, so a home may have been moved.
///
/// # Errors
/// `Corrupt` when a header cannot be read, or a base or delta is missing.
pub fn below(home: &Home, overlay: &Path) -> Result<Below> {
    let (mut below, mut next) = to_image(home, overlay)?;
    while let Some((format, path)) = next {
        if below.image.len() == DEEPEST {
            return Err(unreadable(overlay, &format!("it stands on more than {DEEPEST} deltas")));
        }
        next = if format == BackingFormat::Qcow2 { read(home, &path)?.1 } else { None };
        below.image.push(path);
    }
    Ok(below)
}

/// The file of its image that a box's overlay, or the lowest of its bases, names; it need not exist.
///
/// # Errors
/// `Corrupt` when a header cannot be read or a base is missing.
pub fn image_below(home: &Home, overlay: &Path) -> Result<Option<PathBuf>> {
    Ok(to_image(home, overlay)?.1.map(|(_, path)| path))
}

/// The file of this home that the overlay, base or delta at `path` names; it need not exist.
///
/// # Errors
/// `Corrupt` when its header cannot be read.
pub(crate) fn backing(home: &Home, path: &Path) -> Result<Option<PathBuf>> {
    Ok(read(home, path)?.1.map(|(_, backing)| backing))
}

/// Follows bases down to the first file of the image.
fn to_image(home: &Home, overlay: &Path) -> Result<(Below, Option<(BackingFormat, PathBuf)>)> {
    let (virtual_size, mut next) = read(home, overlay)?;
    let mut below = Below { virtual_size, bases: Vec::new(), image: Vec::new() };
    while let Some((BackingFormat::Qcow2, base)) = &next {
        if base.file_name().is_some_and(is_delta) {
            break;
        }
        if below.bases.len() == DEEPEST {
            return Err(unreadable(overlay, &format!("it stands on more than {DEEPEST} bases")));
        }
        let base = base.clone();
        next = read(home, &base)?.1;
        below.bases.push(base);
    }
    Ok((below, next))
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
