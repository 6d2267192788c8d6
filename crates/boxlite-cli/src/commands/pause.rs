//! Notices about a box that is paused while a command waits for it.

use std::convert::Infallible;
use std::time::Duration;

use boxlite::{BoxInfo, BoxState, PauseCause, Runtime};

use crate::report::{note, note_raw};
use crate::terminal::Wiring;

/// How long a box may take to answer before it is asked whether it is paused.
const NOTICE_DELAY: Duration = Duration::from_millis(300);

/// How often to look whether the box was paused or goes on; of a server each look is a request.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Says on standard error when a box is paused and when it goes on, each once.
pub(super) struct PauseNotices<'a> {
    runtime: &'a Runtime,
    id: &'a str,
    /// The last notice said that the box is paused.
    paused: bool,
}

/// The event that a command waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// The box's first answer, for which `--no-wait` does not wait.
    Answer,
    /// The end of what has begun; `raw` while our terminal is in raw mode.
    End { raw: bool },
}

impl<'a> PauseNotices<'a> {
    /// Notices about the box `id`, which is not known to be paused.
    pub(super) fn of(runtime: &'a Runtime, id: &'a str) -> Self {
        Self { runtime, id, paused: false }
    }

    /// Awaits the box's first answer, with notices if it takes its time.
    pub(super) async fn before<T>(&mut self, answer: impl Future<Output = T>) -> T {
        self.telling(answer, Awaited::Answer).await
    }

    /// Awaits the end of a session with the box or of a copy, with notices.
    pub(super) async fn during<T>(&mut self, session: impl Future<Output = T>, wiring: Wiring) -> T {
        self.telling(session, Awaited::End { raw: wiring.is_raw() }).await
    }

    /// Says that the box is paused, if it is by this description.
    pub(super) fn look_at(&mut self, info: &BoxInfo) {
        self.tell(info, Awaited::Answer);
    }

    async fn telling<T>(&mut self, work: impl Future<Output = T>, awaited: Awaited) -> T {
        tokio::select! {
            biased;
            done = work => done,
            never = self.watch(awaited) => match never {},
        }
    }

    async fn watch(&mut self, awaited: Awaited) -> Infallible {
        tokio::time::sleep(NOTICE_DELAY).await;
        loop {
            if let Ok(info) = self.runtime.inspect(self.id).await {
                self.tell(&info, awaited);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn tell(&mut self, info: &BoxInfo, awaited: Awaited) {
        let paused = info.state == BoxState::Paused;
        // The end of a box that has ended is told otherwise.
        if !info.state.is_up() || paused == self.paused {
            return;
        }
        self.paused = paused;
        let text =
            if paused { sentence(info, awaited) } else { format!("boxlite: box {} goes on", info.name) };
        if awaited == (Awaited::End { raw: true }) { note_raw(&text) } else { note(&text) }
    }
}

fn sentence(info: &BoxInfo, awaited: Awaited) -> String {
    let name = &info.name;
    let reason = info.reason.as_deref().unwrap_or("its host's disk is full");
    let by_hand = info
        .pause
        .as_ref()
        .is_some_and(|pause| matches!(pause.cause, PauseCause::DiskQuota | PauseCause::User));
    let when = if by_hand { "then" } else { "by itself" };
    match awaited {
        Awaited::Answer => format!(
            "boxlite: box {name} is paused ({reason}); waiting for it to resume, as it does {when} (--no-wait fails instead)"
        ),
        Awaited::End { .. } => format!("boxlite: box {name} is paused ({reason}); it resumes {when}"),
    }
}
