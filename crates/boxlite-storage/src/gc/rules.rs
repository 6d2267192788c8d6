//! The rules by which every item of a plan is judged; times in nanoseconds since 1970.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boxlite_home::Home;
use boxlite_home::settings::{KeepBlobs, Settings};
use boxlite_types::GcOptions;

use crate::catalog::Catalog;

pub(super) const A_DAY: i64 = 86_400 * 1_000_000_000;

/// The home that is looked at, its records, and the rules.
#[derive(Clone, Copy)]
pub(super) struct GcScope<'a> {
    pub(super) home: &'a Home,
    pub(super) catalog: &'a dyn Catalog,
    pub(super) rules: Rules<'a>,
}

/// Times and options of one pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) now: i64,
    pub(super) grace: i64,
    pub(super) until: Option<i64>,
    /// Catalogue entries without a box are considered too.
    pub(super) all: bool,
    /// Those of images that only this home has as well.
    pub(super) local: bool,
    /// Digests of disk images and deltas that must stay.
    pub(super) keep: &'a [String],
    /// A floor of free space is not kept, so templates are removed sooner.
    pub(super) pressed: bool,
    /// Virtual size of the disk images of images, in bytes.
    pub(super) disk_size: u64,
    pub(super) keep_blobs: KeepBlobs,
    /// Manifest digests of images that their registries have just said to have.
    pub(super) answered: &'a BTreeSet<String>,
}

/// No registry was asked.
static NOT_ASKED: BTreeSet<String> = BTreeSet::new();

impl<'a> Rules<'a> {
    /// The rules of `options` from now on.
    pub(super) fn new(settings: &Settings, options: &GcOptions, keep: &'a [String]) -> Self {
        Self {
            now: nanoseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            grace: nanoseconds(settings.grace.value),
            until: options.until.map(nanoseconds),
            all: options.all,
            local: options.local,
            keep,
            pressed: false,
            disk_size: settings.disk_size.value.0,
            keep_blobs: settings.keep_blobs.value,
            answered: &NOT_ASKED,
        }
    }

    /// How long ago that was; a time in the future counts as now.
    pub(super) fn age(&self, time: i64) -> i64 {
        self.now.saturating_sub(time).max(0)
    }

    /// Whether something modified then is too young to be collected.
    pub(super) fn is_young(&self, modified: i64) -> bool {
        self.age(modified) < self.grace
    }

    /// Whether something used then was used within `until`.
    pub(super) fn is_recent(&self, used: i64) -> bool {
        self.until.is_some_and(|until| self.age(used) < until)
    }

    /// Whether an image stays in the catalogue even without a box, because it could not be had again.
    pub(super) fn keeps_here(&self, only_here: bool) -> bool {
        only_here && !self.local
    }

    /// Whether the disk image or delta of this file name must stay.
    pub(super) fn is_protected(&self, name: &str) -> bool {
        let digest = name.strip_suffix(".ext4").or_else(|| name.strip_suffix(".qcow2"));
        self.keep.iter().any(|kept| digest == Some(kept))
    }
}

/// A duration in nanoseconds, saturating.
pub(super) fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Whole seconds of a time in nanoseconds.
pub(super) fn seconds(nanoseconds: i64) -> i64 {
    nanoseconds.div_euclid(1_000_000_000)
}
