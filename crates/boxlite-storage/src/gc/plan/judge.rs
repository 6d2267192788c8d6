//! Decisions, and the fates they lead to.

use std::path::Path;

use boxlite_types::Error;
use boxlite_types::gc::{Fate, Holder, HolderKind, RemovalFailure, Skip};

use crate::gc::attempt::Probe;
use crate::gc::census::{Census, Holders};

/// The judgement on one item.
#[derive(Debug)]
pub(super) enum Judgement {
    /// It stays.
    Settled(Fate),
    /// It may be removed, for this reason.
    Removable(&'static str),
    /// It could not be examined, and stays.
    Failed(Error),
    /// It has vanished.
    Gone,
}

impl Judgement {
    pub(super) fn removes(&self) -> bool {
        matches!(self, Self::Removable(_))
    }

    pub(super) fn skip(why: Skip) -> Self {
        Self::Settled(skipped(why))
    }

    /// Removable for `reason` unless a lock on the file is held.
    pub(super) fn unless_locked(path: &Path, reason: &'static str) -> Self {
        match Probe::of(path) {
            Ok(Probe::Free) => Self::Removable(reason),
            Ok(Probe::Busy) => Self::skip(Skip::InUse),
            Ok(Probe::Gone) => Self::Gone,
            Err(error) => Self::Failed(error),
        }
    }
}

/// The fate of something needed.
pub(super) fn kept(census: &Census, holders: &Holders) -> Fate {
    let name = |(index, kind): &(u32, HolderKind)| Holder {
        name: match kind {
            HolderKind::Base | HolderKind::Delta => census.files[*index as usize].name.to_string(),
            HolderKind::Record | HolderKind::Chain | HolderKind::Description | HolderKind::Snapshot => {
                census.boxes[*index as usize].id.to_string()
            }
        },
        kind: *kind,
    };
    Fate::Kept { by: holders.first.iter().map(name).collect(), holders: holders.total }
}

pub(in crate::gc) fn skipped(why: Skip) -> Fate {
    Fate::Skipped { why }
}

/// Records a failed removal and returns its fate.
pub(in crate::gc) fn failed(
    failures: &mut Vec<RemovalFailure>,
    path: &Path,
    reason: impl std::fmt::Display,
) -> Fate {
    let reason = format!("{reason:#}");
    failures.push(RemovalFailure { path: path.to_owned(), reason: reason.clone() });
    Fate::Failed { reason }
}
