//! What commands that need a running guest say of a paused one.

use std::time::Duration;

use boxlite::{BoxInfo, BoxState, PauseCause, Runtime};

use crate::report::note;

/// How long a request may take before it looks as if it waited for a paused box.
const NOTICE_DELAY: Duration = Duration::from_millis(300);

/// Says that the box is paused, if it is.
pub(super) fn note_pause(info: &BoxInfo) {
    if info.state == BoxState::Paused {
        let reason = info.reason.as_deref().unwrap_or("its host's disk is full");
        let by_quota = info.pause.as_ref().is_some_and(|pause| pause.cause == PauseCause::DiskQuota);
        let when = if by_quota { "then" } else { "by itself" };
        note(&format!(
            "boxlite: box {} is paused ({reason}); waiting for it to resume, as it does {when} (--no-wait fails instead)",
            info.name
        ));
    }
}

/// Awaits the answer of the box `id`, and says so where it takes its time because the box is paused.
pub(super) async fn noting_pause<T>(runtime: &Runtime, id: &str, answer: impl Future<Output = T>) -> T {
    tokio::pin!(answer);
    if let Ok(answered) = tokio::time::timeout(NOTICE_DELAY, &mut answer).await {
        return answered;
    }
    let look = async {
        if let Ok(info) = runtime.inspect(id).await {
            note_pause(&info);
        }
    };
    tokio::select! {
        answered = &mut answer => return answered,
        () = look => {}
    }
    answer.await
}
