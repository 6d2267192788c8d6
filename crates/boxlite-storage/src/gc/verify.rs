//! A second derivation of every chain, by another reader of headers, that must agree before anything is removed.
//!
//! The derivation shares nothing with [`Chains`](crate::disk::qcow2::Chains) but the list of overlays: a
//! [`HeaderReader`] says what each file stands on, and each of the two files that a name means, the literal one and the
//! home's own ([`BackingDirectories`](crate::disk::qcow2::BackingDirectories)), must be among those that the marks
//! reached, and must not be a candidate while what stands on it stays. Only chains that our own reader found whole are
//! derived again, so that the other one opens nothing but local files.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use boxlite_home::Home;
use boxlite_home::durable::FileId;
use boxlite_types::gc::{Skip, Unreadable};
use boxlite_types::{ErrorKind, Result};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use super::plan::{GcPlan, skipped};
use super::rules::GcScope;
use crate::disk::qcow2::ChainLink;

/// Another reader of disk headers: it is told a file and its format, if that is known, and says where the file below it
/// is by the header, and in which format.
///
/// It fails with `Corrupt` on a file that it cannot read; any other failure ends the pass before it removes anything.
pub type HeaderReader<'a> = &'a dyn Fn(&Path, Option<&str>) -> Result<Option<(PathBuf, Option<String>)>>;

impl GcPlan {
    /// Drops every candidate unless `reader` derives the same chains.
    ///
    /// # Errors
    /// Whatever keeps `reader` from reading anything.
    pub(super) fn verify(&mut self, scope: &GcScope<'_>, reader: HeaderReader<'_>) -> Result<()> {
        let mut derivation = Derivation { home: scope.home, reader, known: HashMap::new() };
        let mut disagreements = Vec::new();
        let removed: HashSet<FileId> = self.candidates.iter().filter_map(|planned| planned.id).collect();
        for (top, backing) in self.holders(scope.home) {
            let mut below: HashSet<FileId> = HashSet::new();
            let end = self.census.chains.visit_below(backing, |id| below.extend([id]));
            if end != ChainLink::End {
                continue;
            }
            match derivation.below(&top)? {
                Err(disagreement) => disagreements.push(disagreement),
                Ok(files) => {
                    for (path, id) in files {
                        if !below.contains(&id) || (removed.contains(&id) && self.stays(&top)) {
                            let reason = format!("by the second reading {} stands on it", top.display());
                            disagreements.push(Unreadable { path, reason });
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

    /// Overlays, bases and deltas, and what our reader says they stand on.
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

type BelowByHeader = Option<(PathBuf, Option<String>)>;

struct Derivation<'a> {
    home: &'a Home,
    reader: HeaderReader<'a>,
    /// Headers that were read before: bases are shared.
    known: HashMap<PathBuf, BelowByHeader>,
}

impl Derivation<'_> {
    /// The files below the qcow2 file `top`, or what keeps them from being derived.
    fn below(&mut self, top: &Path) -> Result<std::result::Result<Vec<(PathBuf, FileId)>, Unreadable>> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let mut unread = vec![(top.to_owned(), Some("qcow2".to_owned()))];
        while let Some((file, format)) = unread.pop() {
            let (name, format) = match self.read(&file, format.as_deref()) {
                Ok(Some(below)) => below,
                Ok(None) => continue,
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    let reason = error.chain().to_string();
                    return Ok(Err(Unreadable { path: file, reason }));
                }
                Err(error) => return Err(error),
            };
            let meanings = meanings(self.home, &name, format.as_deref());
            let there: Vec<_> =
                meanings.into_iter().filter_map(|path| identity(&path).map(|id| (path, id))).collect();
            if there.is_empty() {
                let reason =
                    format!("by the second reading {} stands on it, and it is missing", file.display());
                return Ok(Err(Unreadable { path: name, reason }));
            }
            for (path, id) in there {
                if seen.insert(id) {
                    // A raw file stands on nothing, whatever a guest wrote into it.
                    if format.as_deref() != Some("raw") {
                        unread.push((path.clone(), format.clone()));
                    }
                    found.push((path, id));
                }
            }
        }
        Ok(Ok(found))
    }

    fn read(&mut self, file: &Path, format: Option<&str>) -> Result<BelowByHeader> {
        if let Some(known) = self.known.get(file) {
            return Ok(known.clone());
        }
        let below = keeping_access_time(file, || (self.reader)(file, format))?;
        self.known.insert(file.to_owned(), below.clone());
        Ok(below)
    }
}

/// To look at a file is not to use it, and the reader may be a program that cannot look without leaving a trace. A use in
/// between is lost, and costs the file its place among the recently used.
fn keeping_access_time<T>(file: &Path, look: impl FnOnce() -> T) -> T {
    let before = rustix::fs::stat(file);
    let found = look();
    if let Ok(before) = before {
        let last_access = Timespec { tv_sec: before.st_atime, tv_nsec: before.st_atime_nsec as i64 };
        let last_modification = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access, last_modification };
        if let Err(error) = rustix::fs::utimensat(CWD, file, &times, AtFlags::empty()) {
            tracing::debug!(%error, file = %file.display(), "the verification counts as a use");
        }
    }
    found
}

/// The file that a header names, and those of this home that a start may open by that name.
fn meanings(home: &Home, path: &Path, format: Option<&str>) -> Vec<PathBuf> {
    let name = path.file_name().unwrap_or_default();
    let is_raw = match format {
        Some(format) => format == "raw",
        None => path.extension().is_some_and(|extension| extension == "ext4"),
    };
    let own = if is_raw { vec![home.disk_images()] } else { vec![home.deltas(), home.bases()] };
    std::iter::once(path.to_owned()).chain(own.into_iter().map(|directory| directory.join(name))).collect()
}

fn identity(path: &Path) -> Option<FileId> {
    std::fs::metadata(path).ok().map(|found| FileId::of(&found))
}
