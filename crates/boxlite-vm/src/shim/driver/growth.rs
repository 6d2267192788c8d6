//! How much a box has taken of the host's disk of late.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The time that counts as of late: longer than between two of the writes by which a guest's kernel empties its cache.
const GROWTH_WINDOW: Duration = Duration::from_secs(6);

/// The allocated bytes of a box's files over the last seconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct GrowthMeter {
    samples: VecDeque<(Instant, u64)>,
}

impl GrowthMeter {
    /// Notes that `allocated` bytes are taken at `now`; returns by how much that is more than the least of late.
    pub(crate) fn grown(&mut self, now: Instant, allocated: u64) -> u64 {
        while self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > GROWTH_WINDOW) {
            self.samples.pop_front();
        }
        self.samples.push_back((now, allocated));
        let least = self.samples.iter().map(|(_, bytes)| *bytes).min();
        least.map_or(0, |least| allocated - least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutations tried: without forgetting, a box that once wrote counts as a writer for ever; with the difference to the
    /// last sample only, a burst counts for one look.
    #[test]
    fn what_was_written_counts_for_some_seconds() {
        let (mut meter, begin) = (GrowthMeter::default(), Instant::now());
        let mut at = |seconds: u64, bytes| meter.grown(begin + Duration::from_secs(seconds), bytes);
        assert_eq!(at(0, 100), 0);
        assert_eq!(at(1, 400), 300);
        assert_eq!(at(2, 400), 300);
        assert_eq!(at(6, 400), 300);
        assert_eq!(at(7, 400), 0);
        assert_eq!(at(8, 50), 0, "what was given back");
        assert_eq!(at(9, 60), 10);
    }
}
