//! `attach`.

use boxlite::Runtime;

use crate::args::AttachArgs;
use crate::report::{Exit, Failure, Topic};
use crate::terminal::{End, Wiring, connect};

pub(super) async fn attach(runtime: &Runtime, args: AttachArgs) -> Result<Exit, Failure> {
    let failed = |error: boxlite::Error| Failure::of(&error, Topic::RunningBox);
    let info = runtime.inspect(&args.id).await.map_err(|error| Failure::of(&error, Topic::Box))?;
    let wiring = Wiring { tty: info.options.tty, stdin: info.options.stdin && !args.no_stdin };
    let execution = runtime.attach(&info.id).await.map_err(failed)?;
    connect(execution, wiring).await.map(End::exit)
}
