//! A second derivation of every chain, through `qemu-img`, that must agree before anything is removed.
//!
//! The derivation shares nothing with [`Chains`](crate::disk::qcow2::Chains) but the list of overlays: `qemu-img info`
//! reads the headers and says which files a chain has. Each of these, and the file of this home that has the same
//! name, must be among those that the marks reached, and must not be a candidate. Only chains that our own reader
//! found whole are shown to `qemu-img`, so that it opens nothing but local files.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use boxlite_home::Home;
use boxlite_home::durable::FileId;
use boxlite_types::gc::{Skip, Unreadable};
use boxlite_types::{Error, Result};

use super::plan::{GcPlan, skipped};
use super::rules::GcScope;
use crate::disk::qcow2::ChainLink;

impl GcPlan {
    /// Drops every candidate unless `qemu-img` derives the same chains.
    ///
    /// # Errors
    /// `Unsupported` when `qemu-img` is not installed.
    pub(super) fn verify(&mut self, scope: &GcScope<'_>) -> Result<()> {
        let mut disagreements = Vec::new();
        let removed: HashSet<FileId> = self.candidates.iter().filter_map(|planned| planned.id).collect();
        for (path, backing) in self.holders(scope.home) {
            let mut below: HashSet<FileId> = HashSet::new();
            let end = self.census.chains.visit_below(backing, |id| below.extend([id]));
            if end != ChainLink::End {
                continue;
            }
            match derive(&path)? {
                Err(reason) => disagreements.push(Unreadable { path, reason }),
                Ok(chain) => {
                    for file in chain.iter().flat_map(|file| meanings(scope.home, file)) {
                        let Some(id) = identity(&file) else { continue };
                        if !below.contains(&id) || (removed.contains(&id) && self.stays(&path)) {
                            let reason = format!("qemu-img says that {} stands on it", path.display());
                            disagreements.push(Unreadable { path: file, reason });
                        }
                    }
                }
            }
        }
        if !disagreements.is_empty() {
            self.unreadable.append(&mut disagreements);
            let candidates = std::mem::take(&mut self.candidates);
            self.settled.extend(candidates.into_iter().map(|planned| planned.with(skipped(Skip::Unknown))));
        }
        Ok(())
    }

    /// Overlays and bases, and what our reader says they stand on.
    fn holders(&self, home: &Home) -> Vec<(PathBuf, ChainLink)> {
        let bases = self.census.files.iter().filter(|file| file.kind.stands_on_others());
        let mut holders: Vec<_> = bases.map(|file| (file.path(home), file.backing)).collect();
        for (index, entry) in self.census.boxes.iter().enumerate() {
            let overlays = self.census.overlays_of(index);
            let disks = home.of_box(&entry.id).disks();
            for found in std::fs::read_dir(&disks).into_iter().flatten().flatten() {
                let id = identity(&found.path());
                let overlay = overlays.iter().find(|overlay| Some(overlay.id) == id);
                holders.extend(overlay.map(|overlay| (found.path(), overlay.backing)));
            }
        }
        holders
    }

    /// Whether the holder at `path` stays, so that what it stands on must.
    fn stays(&self, path: &Path) -> bool {
        !self.candidates.iter().any(|planned| path.starts_with(&planned.item.path))
    }
}

/// The files below `top` by `qemu-img`'s account, or why it cannot tell.
fn derive(top: &Path) -> Result<std::result::Result<Vec<PathBuf>, String>> {
    let arguments = ["info", "-U", "--backing-chain", "--output=json", "--"].map(OsStr::new);
    let output = match Command::new("qemu-img").args(arguments).arg(top).output() {
        Ok(output) => output,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            let message = "verifying needs `qemu-img`, which is not installed; install qemu-utils";
            return Err(Error::unsupported(message).because(source));
        }
        Err(source) => return Err(Error::io("running", "qemu-img", source)),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Ok(Err(format!("qemu-img cannot read its chain: {}", said.trim())));
    }
    Ok(parse(&output.stdout, top).ok_or_else(|| "qemu-img says something else than a chain".to_owned()))
}

fn parse(output: &[u8], top: &Path) -> Option<Vec<PathBuf>> {
    let chain: serde_json::Value = serde_json::from_slice(output).ok()?;
    let directory = top.parent()?;
    let below = chain.as_array()?.iter().skip(1);
    below.map(|node| Some(directory.join(node.get("filename")?.as_str()?))).collect()
}

/// The file that `qemu-img` names, and the one of this home that a start opens by its name.
fn meanings(home: &Home, file: &Path) -> Vec<PathBuf> {
    let name = file.file_name().unwrap_or_default();
    vec![file.to_owned(), home.bases().join(name), home.disk_images().join(name)]
}

fn identity(path: &Path) -> Option<FileId> {
    std::fs::metadata(path).ok().map(|found| FileId::of(&found))
}
