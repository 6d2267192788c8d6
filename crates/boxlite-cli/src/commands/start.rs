//! `start`.

use std::ops::ControlFlow::{Break, Continue};

use boxlite::Runtime;
use clap::Args;

use super::each::each;
use super::pause::PauseNotices;
use crate::render::progress;
use crate::report::{CommandFailure, Exit, Topic};
use crate::terminal::{DetachArgs, DetachKeys, Interruptions, SessionExit, Wiring, connect};

/// `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Connect to the main process and end with its exit status
    #[arg(short, long)]
    attach: bool,
    /// Pass standard input to the main process
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    detach: DetachArgs,
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

pub(super) async fn start(runtime: &Runtime, args: StartArgs) -> Result<Exit, CommandFailure> {
    if args.attach || args.interactive {
        let [id] = args.boxes.as_slice() else {
            return Err(CommandFailure::local("only one box can be started with -a or -i"));
        };
        return attached(runtime, id, args.interactive, args.detach.detach_keys).await;
    }
    each(&args.boxes, Topic::Start, async |id: &str| {
        runtime.start(id, progress(false)).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}

async fn attached(
    runtime: &Runtime,
    id: &str,
    interactive: bool,
    keys: DetachKeys,
) -> Result<Exit, CommandFailure> {
    let mut interruptions = Interruptions::watch()?;
    let attaching = async {
        let info = runtime.start(id, progress(false)).await?;
        let execution = runtime.attach(&info.id).await?;
        Ok((execution, info.options))
    };
    let (execution, options) = match interruptions.before(attaching).await {
        Continue(attached) => {
            attached.map_err(|error: boxlite::Error| CommandFailure::of(&error, Topic::Start))?
        }
        Break(exit) => return Ok(exit),
    };
    let wiring = Wiring { tty: options.tty, stdin: interactive && options.stdin, keys };
    let session = connect(execution, wiring, interruptions);
    PauseNotices::of(runtime, id).during(session, wiring).await.map(SessionExit::exit)
}
