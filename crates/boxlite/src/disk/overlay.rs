//! Copy-on-write overlays: what a box writes.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::lease::Leased;
use super::qcow2::{BackingFormat, CLUSTER, overlay_header};
use crate::durable::Staged;
use crate::error::{Doing, Error, Result};
use crate::home::Home;

/// Creates an empty overlay of `virtual_size` bytes (virtual) at `destination`, above the leased `backing` file.
///
/// The overlay is durable when this returns: from then on its header pins the backing file, and the lease may be
/// let go. It allocates 12 KiB. The caller sees to it that `virtual_size` is not below the backing file's.
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
    let header = overlay_header(backing.path(), format, virtual_size)?;
    match std::fs::symlink_metadata(destination) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("examining", destination, error)),
        Ok(_) => {
            let message = format!("there is an overlay at {} already", destination.display());
            return Err(Error::conflict(message).at(destination));
        }
    }
    let staged = Staged::create(&home.tmp(), "overlay")?;
    let file = staged.file();
    let doing = "writing the overlay";
    file.write_all_at(&header.head, 0).doing(doing, destination)?;
    file.write_all_at(&header.refcount_table, CLUSTER).doing(doing, destination)?;
    file.write_all_at(&header.refcount_block, 2 * CLUSTER).doing(doing, destination)?;
    file.set_len(header.length).doing(doing, destination)?;
    staged.publish(destination).map(drop)
}
