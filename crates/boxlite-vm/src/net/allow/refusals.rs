//! Refusals, kept for people to see.

use std::collections::VecDeque;

use boxlite_proto::{NetworkRefusals, RefusalKind, RefusedDestination};

/// The latest destinations that are shown.
const MAX_LATEST: usize = 16;

/// Counts by kind, and the latest destinations.
#[derive(Debug, Default)]
pub(in crate::net) struct Refusals {
    counts: [u64; RefusalKind::ALL.len()],
    latest: VecDeque<RefusedDestination>,
}

impl Refusals {
    /// Notes one; returns whether it is the first of its kind.
    pub(in crate::net) fn note(&mut self, kind: RefusalKind, destination: String) -> bool {
        let count = &mut self.counts[kind as usize];
        *count += 1;
        let is_first = *count == 1;
        let same = |shown: &RefusedDestination| shown.kind == kind && shown.destination == destination;
        let before = self.latest.iter().position(same).and_then(|at| self.latest.remove(at));
        if self.latest.len() >= MAX_LATEST {
            self.latest.pop_front();
        }
        let times = before.map_or(0, |shown| shown.times) + 1;
        self.latest.push_back(RefusedDestination { kind, destination, times });
        is_first
    }

    /// The present figures, the latest destination first.
    pub(in crate::net) fn figures(&self) -> NetworkRefusals {
        let counts = RefusalKind::ALL.into_iter().map(|kind| (kind, self.counts[kind as usize]));
        NetworkRefusals {
            total: self.counts.iter().sum(),
            counts: counts.filter(|(_, count)| *count > 0).collect(),
            latest: self.latest.iter().rev().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Mutations tried: without `pop_front`, and without removing what is shown already.
    #[test]
    fn the_latest_destinations_are_shown_once_each_and_few_of_them() {
        let mut refusals = Refusals::default();
        assert!(refusals.note(RefusalKind::Name, "evil.org".into()));
        assert!(!refusals.note(RefusalKind::Name, "evil.org".into()));
        for number in (0..40).chain([39]) {
            refusals.note(RefusalKind::Address, format!("192.0.2.1:{number}"));
        }
        let figures = refusals.figures();
        assert_eq!((figures.total, figures.counts[&RefusalKind::Name]), (43, 2));
        assert_eq!(figures.counts.get(&RefusalKind::Ping), None);
        assert_eq!(figures.latest.len(), MAX_LATEST);
        assert_eq!(
            figures.latest[0],
            RefusedDestination { kind: RefusalKind::Address, destination: "192.0.2.1:39".into(), times: 2 }
        );
    }
}
