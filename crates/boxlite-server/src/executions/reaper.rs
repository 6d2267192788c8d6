//! What becomes of executions that nobody is attached to.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::command::Abandoned;
use super::registry::Executions;

/// How long a public client may stay away, and how long an ended execution is kept.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a command that would run on waits for a client that lost its connection.
const LETTING_GO: Duration = Duration::from_secs(60);
/// Between HUP, TERM, KILL and giving up.
const INSISTENCE: Duration = Duration::from_secs(30);
/// How often to look.
const INTERVAL: Duration = Duration::from_secs(5);

/// What to do with an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    Signal(i32),
    Drop,
}

/// Judges at `now`, having last judged at `last`, an execution unattended and ended since then.
pub(super) fn fate(
    abandoned: Abandoned,
    unattended: Option<Instant>,
    ended: Option<Instant>,
    last: Instant,
    now: Instant,
) -> Fate {
    let Some(unattended) = unattended else { return Fate::Keep };
    let passed = |since: Instant, after: Duration| now.duration_since(since) >= after;
    if let Some(ended) = ended {
        let since = ended.max(unattended);
        return if passed(since, PATIENCE) { Fate::Drop } else { Fate::Keep };
    }
    if abandoned == Abandoned::LetGo {
        return if passed(unattended, LETTING_GO) { Fate::Drop } else { Fate::Keep };
    }
    if passed(unattended, PATIENCE + 3 * INSISTENCE) {
        return Fate::Drop;
    }
    // Each signal is sent once: by the first look after its moment.
    let due = |after: Duration| passed(unattended, after) && unattended + after > last;
    let stages = [
        (PATIENCE + 2 * INSISTENCE, libc::SIGKILL),
        (PATIENCE + INSISTENCE, libc::SIGTERM),
        (PATIENCE, libc::SIGHUP),
    ];
    stages.into_iter().find(|(after, _)| due(*after)).map_or(Fate::Keep, |(_, signal)| Fate::Signal(signal))
}

/// Looks after `executions` for ever.
pub(crate) async fn reap(executions: Arc<Executions>) {
    let mut last = Instant::now();
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = Instant::now();
        executions.reap(last, now);
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens to an execution, second by second in steps of `INTERVAL`, that is unattended from second 7 on.
    fn story(abandoned: Abandoned, ended: Option<u64>) -> Vec<(u64, Fate)> {
        let zero = Instant::now();
        let at = |second: u64| zero + Duration::from_secs(second);
        let mut story = Vec::new();
        for second in (10..1000).step_by(5) {
            let fate = fate(abandoned, Some(at(7)), ended.map(at), at(second - 5), at(second));
            if fate != Fate::Keep {
                story.push((second, fate));
            }
            if fate == Fate::Drop {
                break;
            }
        }
        story
    }

    /// Mutation tried: without the comparison with `last`, HUP is sent again and again.
    #[test]
    fn an_abandoned_command_is_asked_told_and_ended() {
        let signals =
            [(310, Fate::Signal(1)), (340, Fate::Signal(15)), (370, Fate::Signal(9)), (400, Fate::Drop)];
        assert_eq!(story(Abandoned::HungUp, None), signals);
        assert_eq!(story(Abandoned::LetGo, None), [(70, Fate::Drop)]);
    }

    #[test]
    fn an_ended_command_is_kept_for_a_while() {
        for abandoned in [Abandoned::HungUp, Abandoned::LetGo] {
            assert_eq!(story(abandoned, Some(100)), [(400, Fate::Drop)]);
        }
        let now = Instant::now();
        assert_eq!(fate(Abandoned::HungUp, None, Some(now), now, now + 10 * PATIENCE), Fate::Keep);
    }
}
