//! Plan: what may go, from figures alone.

use std::time::Duration;

use boxlite_types::gc::Skip;

use super::census::Stored;
use super::mark::Holders;

/// What every item of a pass is judged by; times in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) now: i64,
    pub(super) grace: i64,
    pub(super) until: Option<i64>,
    /// Digests of disk images that must stay.
    pub(super) keep: &'a [String],
    /// Something could not be read.
    pub(super) blind: bool,
}

/// What becomes of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is needed.
    Keep,
    /// It is not, but stays.
    Skip(Skip),
    /// It may go.
    Remove,
}

impl Rules<'_> {
    /// Whether something modified then is too young to be collected.
    pub(super) fn is_young(&self, modified: i64) -> bool {
        self.now.saturating_sub(modified) < self.grace
    }

    /// Judges a base or a disk image. Never by age or size alone: what is needed stays whatever its age.
    pub(super) fn decide(&self, item: &Stored, holders: &Holders) -> Decision {
        if !holders.is_empty() {
            Decision::Keep
        } else if self.blind {
            Decision::Skip(Skip::Unknown)
        } else if self.keep.iter().any(|digest| item.name.strip_suffix(".ext4") == Some(digest)) {
            Decision::Skip(Skip::Protected)
        } else if self.is_young(item.modified) {
            Decision::Skip(Skip::Grace)
        } else if self.until.is_some_and(|until| self.now.saturating_sub(item.used) < until) {
            Decision::Skip(Skip::Recent)
        } else {
            Decision::Remove
        }
    }
}

/// What bounds the removal of disk images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) bytes: u64,
    pub(super) items: u64,
}

/// How many of the candidates, least recently used first, to take next: enough for what is wanted, at most `most`.
pub(super) fn batch(allocated: impl Iterator<Item = u64>, wanted: Wanted, most: usize) -> usize {
    let (mut bytes, mut items) = (0_u64, 0);
    for size in allocated.take(most) {
        if bytes >= wanted.bytes && items >= wanted.items {
            break;
        }
        bytes = bytes.saturating_add(size);
        items += 1;
    }
    items as usize
}

/// A duration in nanoseconds, saturating.
pub(super) fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
