//! Templates: memory and devices of a guest that came up as far as to where it waits for its box.
//!
//! A box of the same hardware is then restored in a fraction of the time of a boot, and maps the template's pages until
//! it writes to them. A template is one file among the boot files of the home, `vm/template-<devices>-<key>`: the
//! guest's memory, sparse, and behind it the state of its devices as QEMU writes it. The key names everything that went
//! into it. Like every boot file it is leased while a box uses it and collected when no box does.
//!
//! - What a guest has touched when it is kept is the same for every box: neither a disk nor the network card has a driver
//!   yet, and nothing of the box was said. The host's clock, fresh random numbers, names and addresses come with
//!   `Boot`, before anything runs. So the disks of named volumes are, like the root disk, any disks: a template knows how
//!   many there are, and which of them are read-only.
//! - Shares are plugged into a guest that waits for its box ([`super::vmm::share_port`]). The daemons that serve them map the
//!   guest's memory, so a box with shares gets a copy of the template instead of mapping it.
//! - The first start of a kind leaves an empty file, its mark; the second, which finds that, keeps what it boots; the
//!   third is restored. Hardware that boots once costs nothing.
//! - A template that QEMU does not take is discarded, and the box boots; so is one whose guest does not come up.

mod keep;
mod name;
mod restore;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use boxlite_home::Home;
use boxlite_home::admission::Thresholds;
use boxlite_home::durable::{self, Lock};
use boxlite_home::lease::Leased;
use boxlite_types::{Doing, Result};

use super::launch::{GuestOrigin, LaunchSpec, TemplateKeep};

pub(crate) use keep::{Kept, stage, tell_state};
pub(crate) use restore::restore;

/// The prefix of the names of templates.
pub(crate) use boxlite_home::boot_file::TEMPLATE as PREFIX;

/// Most templates of a home.
const MOST: usize = 8;

/// Decides how the box of `spec` comes up, and leases the template where that is how.
///
/// `room` says what a template must leave of the host's disk; without it none is made.
///
/// # Errors
/// `Io` where the home's boot files cannot be read.
pub fn origin(
    spec: &LaunchSpec,
    home: &Home,
    room: Option<Thresholds>,
) -> Result<(GuestOrigin, Option<Leased>)> {
    let path = home.vm().join(name::of(spec)?);
    let Some(lease) = Leased::acquire(&path)? else {
        if room.is_some() {
            durable::ensure_file(&path)?;
        }
        return Ok((GuestOrigin::Boot, None));
    };
    lease.touch()?;
    let length = lease.file().metadata().doing("examining", &path)?.len();
    if length > spec.memory_bytes {
        return Ok((GuestOrigin::Template(path), Some(lease)));
    }
    match room {
        Some(room) if make_place(home)? => Ok((GuestOrigin::BootAndKeep(TemplateKeep { path, room }), None)),
        _ => Ok((GuestOrigin::Boot, None)),
    }
}

/// Whether there may be one more template, for which the least recently used go that no box uses: among them those of an
/// earlier kernel, agent or run of the host.
fn make_place(home: &Home) -> Result<bool> {
    let mut found = templates(&home.vm())?;
    found.sort();
    let mut left = found.len();
    for (_, path) in found {
        if left < MOST {
            break;
        }
        if let Some(lock) = Lock::try_exclusive(&path)? {
            durable::discard_locked(&lock, &home.tmp())?.map_or(Ok(()), durable::Trash::delete)?;
            left -= 1;
        }
    }
    Ok(left < MOST)
}

/// Templates in `directory` that are more than a mark, each with the time of its last use.
fn templates(directory: &Path) -> Result<Vec<(SystemTime, PathBuf)>> {
    let doing = "listing the boot files in";
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).doing(doing, directory)? {
        let entry = entry.doing(doing, directory)?;
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        if let Ok(metadata) = entry.metadata()
            && metadata.len() > 0
        {
            found.push((metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
