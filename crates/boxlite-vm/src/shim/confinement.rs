//! What the shim gives up about itself once its children run, where the box is jailed.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use boxlite_home::Home;
use boxlite_jail::{Confinement, ForeignFiles, JailError};
use boxlite_types::{Error, Result};

use super::child::ChildSpawner;
use super::launch::LaunchSpec;

/// Leaves this process the files of its home and its children.
///
/// Call it while the process has one thread, after the last child was started.
///
/// # Errors
/// `Unsupported` when that cannot be done here.
pub(super) fn confine(spec: &LaunchSpec, spawner: &ChildSpawner) -> Result<()> {
    let home = spec.home()?;
    let mut directories = directories(&home);
    // A box may lie elsewhere than its home's link to all boxes says by now.
    directories
        .extend([Some(spec.box_dir.clone()), spec.overlay.parent().map(PathBuf::from)].into_iter().flatten());
    let foreign_files = match foreign_files_of(&home) {
        ForeignFiles::None if !spec.shares.volumes.is_empty() => ForeignFiles::Find,
        of_home => of_home,
    };
    let confinement = Confinement { directories, children: spawner.spawned(), foreign_files };
    let report = boxlite_jail::confine(&confinement).map_err(unavailable)?;
    for missing in report.missing() {
        tracing::debug!(%missing, "a measure of the shim's confinement is not in force");
    }
    Ok(())
}

/// The directories of a home, each of which may be a link that leads out of it.
fn directories(home: &Home) -> Vec<PathBuf> {
    let root = home.root().to_owned();
    let below =
        [home.boxes(), home.bases(), home.disk_images(), home.deltas(), home.blobs(), home.tmp(), home.vm()];
    let parents = below.iter().filter_map(|path| path.parent()).map(PathBuf::from).collect::<Vec<_>>();
    std::iter::once(root).chain(parents).chain(below).filter(|path| path.is_dir()).collect()
}

/// What root needs of another user's files to work in `home`.
pub(super) fn foreign_files_of(home: &Home) -> ForeignFiles {
    let own = rustix::process::geteuid().as_raw();
    let is_own = std::fs::metadata(home.root()).is_ok_and(|found| found.uid() == own);
    if is_own { ForeignFiles::None } else { ForeignFiles::Work }
}

fn unavailable(error: JailError) -> Error {
    let message =
        format!("the shim cannot be confined: {error}; the setting jail = off starts boxes without a jail");
    Error::unsupported(message).because(error)
}
