//! `attach`.

use std::ops::ControlFlow::{Break, Continue};

use boxlite::{BoxState, Runtime};
use clap::Args;

use super::pause::PauseNotices;
use crate::report::{CommandFailure, Exit, Topic, note};
use crate::terminal::{DetachArgs, Interruptions, SessionExit, Wiring, connect};

/// `attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Do not pass standard input on
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    detach: DetachArgs,
    /// Fail while the box is paused, instead of waiting until it resumes
    #[arg(long)]
    no_wait: bool,
    /// Name, id or unique beginning of an id
    #[arg(value_name = "BOX")]
    id: String,
}

pub(super) async fn attach(runtime: &Runtime, args: AttachArgs) -> Result<Exit, CommandFailure> {
    let mut interruptions = Interruptions::watch()?;
    let failed = |error: boxlite::Error| CommandFailure::of(&error, Topic::RunningBox);
    let info = match interruptions.before(runtime.inspect(&args.id)).await {
        Continue(found) => found.map_err(|error| CommandFailure::of(&error, Topic::Box))?,
        Break(exit) => return Ok(exit),
    };
    if args.no_wait {
        info.refuse_while_paused().map_err(failed)?;
    }
    let mut notices = PauseNotices::of(runtime, &info.id);
    notices.look_at(&info);
    let wiring = Wiring {
        tty: info.options.tty,
        stdin: info.options.stdin && !args.no_stdin,
        keys: args.detach.detach_keys,
    };
    match interruptions.before(runtime.attach(&info.id)).await {
        Continue(attached) => {
            let attached = attached.map_err(failed)?;
            if matches!(info.state, BoxState::Stopped | BoxState::Failed) {
                note(&format!(
                    "boxlite: note: box {} does not run; this is what its last run wrote, and how that ended",
                    info.name
                ));
            }
            let session = connect(attached, wiring, interruptions);
            notices.during(session, wiring).await.map(SessionExit::exit)
        }
        Break(exit) => Ok(exit),
    }
}
