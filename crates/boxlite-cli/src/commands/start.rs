//! `start`.

use boxlite::Runtime;

use super::each::each;
use crate::args::StartArgs;
use crate::render::progress;
use crate::report::{Exit, Failure, Topic};
use crate::terminal::{End, Wiring, connect};

pub(super) async fn start(runtime: &Runtime, args: StartArgs) -> Result<Exit, Failure> {
    if args.attach || args.interactive {
        let [id] = args.boxes.as_slice() else {
            return Err(Failure::local("only one box can be started with -a or -i"));
        };
        return attached(runtime, id, args.interactive).await;
    }
    each(&args.boxes, Topic::Start, async |id: &str| {
        runtime.start(id, progress(false)).await?;
        Ok(Some(id.to_owned()))
    })
    .await
}

async fn attached(runtime: &Runtime, id: &str, interactive: bool) -> Result<Exit, Failure> {
    let failed = |error: boxlite::Error| Failure::of(&error, Topic::Start);
    let info = runtime.start(id, progress(false)).await.map_err(failed)?;
    let execution = runtime.attach(&info.id).await.map_err(failed)?;
    connect(execution, Wiring { tty: info.options.tty, stdin: interactive && info.options.stdin })
        .await
        .map(End::exit)
}
