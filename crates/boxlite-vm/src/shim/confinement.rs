//! The rights that shim and steward give up once the shim's children run, where the box is jailed.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use boxlite_home::Home;
use boxlite_jail::{Confinement, ForeignFiles, JailError, JailIdentity, JailReport, Seclusion};
use boxlite_types::{Error, Result};

use super::launch::LaunchSpec;

/// Bytes by which a file may pass the cap of a log: one piece of output.
const LOG_OVERHEAD: u64 = 1 << 20;

/// Leaves this process, the shim of `spec`, its open files and its `children`, as a process of `identity`.
///
/// Call it while the process has one thread, after the last child was started.
///
/// # Errors
/// `Unsupported` when that cannot be done here.
pub(super) fn seclude(spec: &LaunchSpec, identity: JailIdentity, children: Vec<u32>) -> Result<()> {
    let file_size = spec.logs.main.max(spec.logs.console).saturating_add(LOG_OVERHEAD);
    let seclusion = Seclusion { identity, children, file_size };
    tell_missing(&boxlite_jail::seclude(&seclusion).map_err(unavailable)?);
    Ok(())
}

/// Leaves this process, the steward of `spec`, the files of its home and the process groups `devices`.
///
/// Call it while the process has one thread.
///
/// # Errors
/// `Unsupported` when that cannot be done here.
pub(super) fn confine(spec: &LaunchSpec, devices: Vec<u32>) -> Result<()> {
    let home = spec.home()?;
    let mut directories = directories(&home);
    // A box may lie elsewhere than its home's link to all boxes says by now.
    directories
        .extend([Some(spec.box_dir.clone()), spec.overlay.parent().map(PathBuf::from)].into_iter().flatten());
    let foreign_files = foreign_files_of(&home);
    let confinement = Confinement { directories, groups: devices, foreign_files };
    tell_missing(&boxlite_jail::confine(&confinement).map_err(unavailable)?);
    Ok(())
}

fn tell_missing(report: &JailReport) {
    for missing in report.missing() {
        tracing::debug!(%missing, "a measure is not in force");
    }
}

/// The directories of a home, each of which may be a link that leads out of it.
fn directories(home: &Home) -> Vec<PathBuf> {
    let root = home.root().to_owned();
    let below =
        [home.boxes(), home.bases(), home.disk_images(), home.deltas(), home.blobs(), home.tmp(), home.vm()];
    let parents = below.iter().filter_map(|path| path.parent()).map(PathBuf::from).collect::<Vec<_>>();
    std::iter::once(root).chain(parents).chain(below).filter(|path| path.is_dir()).collect()
}

/// Returns the rights to another user's files that root needs to work in `home`.
pub(super) fn foreign_files_of(home: &Home) -> ForeignFiles {
    let own = rustix::process::geteuid().as_raw();
    let is_own = std::fs::metadata(home.root()).is_ok_and(|found| found.uid() == own);
    if is_own { ForeignFiles::None } else { ForeignFiles::Work }
}

pub(super) fn unavailable(error: JailError) -> Error {
    let message =
        format!("the shim cannot be confined: {error}; the setting jail = off starts boxes without a jail");
    Error::unsupported(message).because(error)
}
