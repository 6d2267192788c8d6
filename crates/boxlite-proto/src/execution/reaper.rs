//! The decision about an execution that no client is attached to.

use std::time::Duration;

use super::UnattendedPolicy;

/// How long a client may stay away, and how long an ended execution is kept.
pub const KEPT_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a command that would keep running waits for a client that lost its connection.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between HUP, TERM, KILL and giving up.
const SIGNAL_INTERVAL: Duration = Duration::from_secs(30);

/// The step to take with an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReapAction {
    /// None.
    Keep,
    /// Send this signal.
    Signal(i32),
    /// Forget it; a command that runs is released.
    Drop,
}

/// Decides about an execution without a client since `unattended` that ended at `ended`; the last decision was made at
/// `last`, this one is made at `now`. All times count from the same beginning; `unattended` is `None` while a client is
/// attached.
pub fn reap_action(
    policy: UnattendedPolicy,
    unattended: Option<Duration>,
    ended: Option<Duration>,
    last: Duration,
    now: Duration,
) -> ReapAction {
    let Some(unattended) = unattended else { return ReapAction::Keep };
    let passed = |since: Duration, after: Duration| now.saturating_sub(since) >= after;
    if let Some(ended) = ended {
        let since = ended.max(unattended);
        return if passed(since, KEPT_TIMEOUT) { ReapAction::Drop } else { ReapAction::Keep };
    }
    match policy {
        UnattendedPolicy::HangUp => {}
        UnattendedPolicy::Release if passed(unattended, RELEASE_TIMEOUT) => return ReapAction::Drop,
        UnattendedPolicy::Release | UnattendedPolicy::Discard => return ReapAction::Keep,
    }
    if passed(unattended, KEPT_TIMEOUT + 3 * SIGNAL_INTERVAL) {
        return ReapAction::Drop;
    }
    // Each signal is sent once, by the first decision after its moment.
    let due = |after: Duration| passed(unattended, after) && unattended + after > last;
    let stages = [
        (KEPT_TIMEOUT + 2 * SIGNAL_INTERVAL, SIGKILL),
        (KEPT_TIMEOUT + SIGNAL_INTERVAL, SIGTERM),
        (KEPT_TIMEOUT, SIGHUP),
    ];
    stages
        .into_iter()
        .find(|(after, _)| due(*after))
        .map_or(ReapAction::Keep, |(_, signal)| ReapAction::Signal(signal))
}

const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what happens to an execution that is unattended from second 7 on, in steps of five seconds.
    fn story(policy: UnattendedPolicy, ended: Option<u64>) -> Vec<(u64, ReapAction)> {
        let at = Duration::from_secs;
        let mut story = Vec::new();
        for second in (10..1000).step_by(5) {
            let action = reap_action(policy, Some(at(7)), ended.map(at), at(second - 5), at(second));
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
        assert_eq!(story(UnattendedPolicy::Discard, None), []);
    }

    #[test]
    fn an_ended_command_is_kept_for_a_while() {
        for policy in [UnattendedPolicy::HangUp, UnattendedPolicy::Release, UnattendedPolicy::Discard] {
            assert_eq!(story(policy, Some(100)), [(400, ReapAction::Drop)]);
        }
        let now = Duration::from_secs(1000);
        let later = now + 10 * KEPT_TIMEOUT;
        assert_eq!(
            reap_action(UnattendedPolicy::HangUp, None, Some(now), now, later),
            ReapAction::Keep,
            "a client is attached"
        );
    }
}
