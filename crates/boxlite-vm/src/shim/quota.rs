//! When a box has used up its disk quota.

use serde::{Deserialize, Serialize};

/// The bytes that a box's overlay may have allocated on the host before its guest is paused.
///
/// A guest passes it a little: by what it writes between two looks, and by what it flushes when it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiskQuota(pub u64);

impl DiskQuota {
    /// The smallest one: a guest that comes up writes some of it.
    pub const MIN: Self = Self(16 << 20);

    /// A guest that goes on needs at least some clusters to make any progress.
    pub const LEAST_ROOM: u64 = 1 << 20;

    /// Whether a guest is paused whose overlay has `used` bytes allocated.
    pub fn is_reached(self, used: u64) -> bool {
        used >= self.0
    }

    /// Whether a guest with such an overlay may begin to run, or go on.
    pub fn has_room(self, used: u64) -> bool {
        used.saturating_add(Self::LEAST_ROOM) <= self.0
    }
}

/// Whether the disk quota lets the guest run: a pure decision over measurements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QuotaPolicy {
    quota: Option<DiskQuota>,
    used_up: bool,
}

impl QuotaPolicy {
    /// That of a guest that runs.
    pub(super) fn new(quota: Option<DiskQuota>) -> Self {
        Self { quota, used_up: false }
    }

    /// The quota that is in force.
    pub(super) fn quota(&self) -> Option<DiskQuota> {
        self.quota
    }

    /// Puts another quota in force, which the next measurement is judged by.
    pub(super) fn set(&mut self, quota: Option<DiskQuota>) {
        self.quota = quota;
    }

    /// Judges a measurement of the overlay; returns whether the quota is used up. One that fails changes nothing.
    pub(super) fn measured(&mut self, used: Option<u64>) -> bool {
        match (self.quota, used) {
            (None, _) => self.used_up = false,
            (Some(_), None) => {}
            (Some(quota), Some(used)) if self.used_up => self.used_up = !quota.has_room(used),
            (Some(quota), Some(used)) => self.used_up = quota.is_reached(used),
        }
        self.used_up
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn policy(quota: u64) -> QuotaPolicy {
        QuotaPolicy::new(Some(DiskQuota(quota)))
    }

    /// Mutation tried: going on below the quota, however little, fails the third line.
    #[test]
    fn a_quota_is_used_up_at_its_figure_and_has_room_a_little_below_it() {
        let mut policy = policy(64 * MIB);
        assert!(!policy.measured(Some(64 * MIB - 1)));
        assert!(policy.measured(Some(64 * MIB)));
        assert!(policy.measured(Some(64 * MIB - 1)), "a guest that went on would be paused at once");
        assert!(!policy.measured(Some(63 * MIB)));
    }

    /// Mutation tried: a guest that goes on without a measurement fails the line about the unknown.
    #[test]
    fn another_quota_counts_from_the_next_measurement_on() {
        let mut policy = policy(64 * MIB);
        assert!(policy.measured(Some(70 * MIB)));
        policy.set(Some(DiskQuota(70 * MIB)));
        assert!(policy.measured(Some(70 * MIB)), "that leaves no room");
        policy.set(Some(DiskQuota(71 * MIB)));
        assert!(policy.measured(None), "nothing is known of the overlay");
        assert!(!policy.measured(Some(70 * MIB)));
        policy.set(Some(DiskQuota(70 * MIB)));
        assert!(policy.measured(Some(70 * MIB)));
        policy.set(None);
        assert!(!policy.measured(Some(u64::MAX)), "a box without a quota has room");
    }

    proptest! {
        /// A guest that is let go on is not paused again before it has written.
        #[test]
        fn room_is_never_found_where_the_quota_is_used_up(quota: u64, used: u64) {
            let quota = DiskQuota(quota);
            prop_assert!(!(quota.has_room(used) && quota.is_reached(used)));
        }

        #[test]
        fn a_higher_quota_pauses_no_more(uses in proptest::collection::vec(0..100u64, 1..20), quota in 0..100u64, more in 0..100u64) {
            let (mut lower, mut higher) = (policy(quota * MIB), policy((quota + more) * MIB));
            for used in uses {
                let (low, high) = (lower.measured(Some(used * MIB)), higher.measured(Some(used * MIB)));
                prop_assert!(low || !high);
            }
        }
    }
}
