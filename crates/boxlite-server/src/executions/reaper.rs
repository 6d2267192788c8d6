//! The decision about an execution that no client is attached to.

use std::time::Duration;

use tokio::time::Instant;

use super::execution::UnattendedPolicy;

/// How long a public client may stay away, and how long an ended execution is kept.
const UNATTENDED_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a command that would keep running waits for a client that lost its connection.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between HUP, TERM, KILL and giving up.
const SIGNAL_INTERVAL: Duration = Duration::from_secs(30);

/// The step that the reaper takes with an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReapAction {
    Keep,
    Signal(i32),
    Drop,
}

/// Decides at `now`, after the last decision at `last`, about an execution without a client since `unattended` that ended
/// at `ended`.
pub(super) fn action(
    policy: UnattendedPolicy,
    unattended: Option<Instant>,
    ended: Option<Instant>,
    last: Instant,
    now: Instant,
) -> ReapAction {
    let Some(unattended) = unattended else { return ReapAction::Keep };
    let passed = |since: Instant, after: Duration| now.duration_since(since) >= after;
    if let Some(ended) = ended {
        let since = ended.max(unattended);
        return if passed(since, UNATTENDED_TIMEOUT) { ReapAction::Drop } else { ReapAction::Keep };
    }
    if policy == UnattendedPolicy::Release {
        return if passed(unattended, RELEASE_TIMEOUT) { ReapAction::Drop } else { ReapAction::Keep };
    }
    if passed(unattended, UNATTENDED_TIMEOUT + 3 * SIGNAL_INTERVAL) {
        return ReapAction::Drop;
    }
    // Each signal is sent once, by the first decision after its moment.
    let due = |after: Duration| passed(unattended, after) && unattended + after > last;
    let stages = [
        (UNATTENDED_TIMEOUT + 2 * SIGNAL_INTERVAL, libc::SIGKILL),
        (UNATTENDED_TIMEOUT + SIGNAL_INTERVAL, libc::SIGTERM),
        (UNATTENDED_TIMEOUT, libc::SIGHUP),
    ];
    stages
        .into_iter()
        .find(|(after, _)| due(*after))
        .map_or(ReapAction::Keep, |(_, signal)| ReapAction::Signal(signal))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what happens to an execution that is unattended from second 7 on, in steps of five seconds.
    fn story(policy: UnattendedPolicy, ended: Option<u64>) -> Vec<(u64, ReapAction)> {
        let zero = Instant::now();
        let at = |second: u64| zero + Duration::from_secs(second);
        let mut story = Vec::new();
        for second in (10..1000).step_by(5) {
            let action = action(policy, Some(at(7)), ended.map(at), at(second - 5), at(second));
            if action != ReapAction::Keep {
                story.push((second, action));
            }
            if action == ReapAction::Drop {
                break;
            }
        }
        story
    }

    /// Mutation tried: without the comparison with `last`, HUP is sent again and again.
    #[test]
    fn an_unattended_command_gets_hup_term_and_kill() {
        let signals = [
            (310, ReapAction::Signal(1)),
            (340, ReapAction::Signal(15)),
            (370, ReapAction::Signal(9)),
            (400, ReapAction::Drop),
        ];
        assert_eq!(story(UnattendedPolicy::HangUp, None), signals);
        assert_eq!(story(UnattendedPolicy::Release, None), [(70, ReapAction::Drop)]);
    }

    #[test]
    fn an_ended_command_is_kept_for_a_while() {
        for policy in [UnattendedPolicy::HangUp, UnattendedPolicy::Release] {
            assert_eq!(story(policy, Some(100)), [(400, ReapAction::Drop)]);
        }
        let now = Instant::now();
        assert_eq!(
            action(UnattendedPolicy::HangUp, None, Some(now), now, now + 10 * UNATTENDED_TIMEOUT),
            ReapAction::Keep
        );
    }
}
