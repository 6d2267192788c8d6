//! The action of a health check on a node, decided from figures alone.
//!
//! A node is drained as soon as a start would be refused, and resumed only once free space is above the floors by a margin,
//! so that it does not flutter. Only a node that was drained here is ever resumed: its reason begins with [`PREFIX`].

use boxlite::{NodeCheck, Verdict};

use super::slurm::{NodeState, PREFIX};

/// One step about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HealthStep {
    /// Drain the node: no further job begins here, for this reason.
    Drain(String),
    /// Let jobs begin here again.
    Resume,
    /// Collect garbage.
    Collect(CollectGoal),
}

/// How much a collection is to free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CollectGoal {
    /// So many bytes.
    Bytes(u64),
    /// All that there is, since inodes are short.
    Everything,
}

/// Decides about a node; the steps are taken in their order.
///
/// It is drained before anything is collected: that may take a while, and jobs would begin meanwhile.
pub(crate) fn steps(node: &NodeState, check: &NodeCheck) -> Vec<HealthStep> {
    let mut steps = Vec::new();
    let short = shortage(check);
    if check.verdict == Verdict::Reject && !node.drains {
        steps.push(HealthStep::Drain(reason(check)));
    }
    if node.is_drained_by_us() && check.verdict != Verdict::Reject && short.is_none() && check.space.is_some()
    {
        steps.push(HealthStep::Resume);
    }
    steps.extend(short.map(HealthStep::Collect));
    steps
}

/// The reason of a drain.
pub(crate) fn reason(check: &NodeCheck) -> String {
    format!("{PREFIX}{}", check.reason.as_deref().unwrap_or("boxes cannot start here"))
}

/// Returns the amount that gc is to free until the floors are kept with a margin; `None` where they are, and where
/// nothing is known.
pub(crate) fn shortage(check: &NodeCheck) -> Option<CollectGoal> {
    let space = check.space.as_ref()?;
    match (space.lacking(), space.lacking_inodes()) {
        (0, 0) => None,
        (bytes, 0) => Some(CollectGoal::Bytes(bytes)),
        _ => Some(CollectGoal::Everything),
    }
}

#[cfg(test)]
mod tests {
    use boxlite::{FreeSpace, NodeSpace};

    use super::*;

    fn check(verdict: Verdict, bytes: u64, inodes: u64) -> NodeCheck {
        let free = FreeSpace { bytes, bytes_total: 10_000, inodes, inodes_total: 1_000 };
        let space = NodeSpace { free, claimed: 0, hard_floor: 1_000, soft_floor: 2_000, inode_floor: 10 };
        NodeCheck {
            verdict,
            reason: Some("full".into()),
            home: "/h".into(),
            space: Some(space),
            memory: None,
            reclaimable: None,
        }
    }

    fn node(drains: bool, reason: &str) -> NodeState {
        NodeState { drains, reason: (!reason.is_empty()).then(|| reason.to_owned()) }
    }

    #[test]
    fn a_node_is_drained_at_once_and_resumed_late_and_only_if_the_drain_is_ours() {
        let fine = node(false, "");
        let ours = node(true, "boxlite: 1 GiB free");
        let other = node(true, "disk is being replaced");
        let drain = || HealthStep::Drain("boxlite: full".into());

        let full = check(Verdict::Reject, 500, 500);
        assert_eq!(steps(&fine, &full), [drain(), HealthStep::Collect(CollectGoal::Bytes(1_700))]);
        assert_eq!(steps(&ours, &full), [HealthStep::Collect(CollectGoal::Bytes(1_700))]);
        assert_eq!(steps(&other, &full), [HealthStep::Collect(CollectGoal::Bytes(1_700))]);

        let at_floor = check(Verdict::Ok, 2_199, 500);
        assert_eq!(steps(&ours, &at_floor), [HealthStep::Collect(CollectGoal::Bytes(1))]);
        let clear = check(Verdict::Ok, 2_200, 500);
        assert_eq!(steps(&ours, &clear), [HealthStep::Resume]);
        assert_eq!(steps(&other, &clear), []);
        assert_eq!(steps(&fine, &clear), []);
    }

    #[test]
    fn a_small_share_of_a_large_disk_keeps_no_node_drained() {
        let share = check(Verdict::Warn, 2_200, 500);
        assert_eq!(steps(&node(true, "boxlite: x"), &share), [HealthStep::Resume]);
        assert_eq!(steps(&node(false, ""), &share), []);
    }

    #[test]
    fn short_inodes_are_collected_without_a_bound() {
        let steps = steps(&node(false, ""), &check(Verdict::Warn, 9_000, 15));
        assert_eq!(steps, [HealthStep::Collect(CollectGoal::Everything)]);
    }

    #[test]
    fn a_stuck_home_is_drained_and_nothing_unmeasured_is_resumed() {
        let stuck = NodeCheck { space: None, ..check(Verdict::Reject, 0, 0) };
        assert_eq!(steps(&node(false, ""), &stuck), [HealthStep::Drain("boxlite: full".into())]);
        let unmeasured = NodeCheck { space: None, ..check(Verdict::Warn, 0, 0) };
        assert_eq!(steps(&node(true, "boxlite: full"), &unmeasured), []);
    }
}
