//! The boxes and bases that need an item.

use boxlite_types::gc::HolderKind;

/// How many holders of an item are remembered by name.
const MAX_NAMED: usize = 8;

/// The boxes and bases that need an item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::gc) struct Holders {
    /// The first few: index of a box, or for [`HolderKind::Base`] of a file, in the census.
    pub(in crate::gc) first: Vec<(u32, HolderKind)>,
    pub(in crate::gc) total: u64,
}

impl Holders {
    pub(in crate::gc) fn is_empty(&self) -> bool {
        self.total == 0
    }

    pub(in crate::gc) fn add(&mut self, holder: u32, kind: HolderKind) {
        self.total += 1;
        if self.first.len() < MAX_NAMED {
            self.first.push((holder, kind));
        }
    }
}
