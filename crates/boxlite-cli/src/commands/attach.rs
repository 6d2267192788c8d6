//! `attach`.

use boxlite::Runtime;
use clap::Args;

use super::pause::note_pause;
use crate::report::{CommandFailure, Exit, Topic};
use crate::terminal::{SessionExit, Wiring, connect};

/// `attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Do not pass standard input on
    #[arg(long)]
    no_stdin: bool,
    /// Fail while the box is paused, instead of waiting until it resumes
    #[arg(long)]
    no_wait: bool,
    /// Name, id or unique beginning of an id
    #[arg(value_name = "BOX")]
    id: String,
}

pub(super) async fn attach(runtime: &Runtime, args: AttachArgs) -> Result<Exit, CommandFailure> {
    let failed = |error: boxlite::Error| CommandFailure::of(&error, Topic::RunningBox);
    let info = runtime.inspect(&args.id).await.map_err(|error| CommandFailure::of(&error, Topic::Box))?;
    if args.no_wait {
        info.refuse_while_paused().map_err(failed)?;
    }
    note_pause(&info);
    let wiring = Wiring { tty: info.options.tty, stdin: info.options.stdin && !args.no_stdin };
    let execution = runtime.attach(&info.id).await.map_err(failed)?;
    connect(execution, wiring).await.map(SessionExit::exit)
}
