//! `exec`.

use boxlite::Runtime;

use super::host_env;
use crate::args::ExecArgs;
use crate::report::{Exit, Failure, Topic};
use crate::terminal::{End, Wiring, conclude, connect, let_go, window_size_or_usual};

pub(super) async fn exec(runtime: &Runtime, args: ExecArgs) -> Result<Exit, Failure> {
    let detach = args.detach;
    let (id, options) = args.options(host_env, window_size_or_usual())?;
    let wiring = Wiring { tty: options.tty.is_some(), stdin: options.stdin };
    if !detach {
        wiring.check()?;
    }
    let failed = |error: boxlite::Error| Failure::of(&error, Topic::RunningBox);
    let execution = runtime.exec(&id, options).await.map_err(failed)?;
    if !detach {
        return connect(execution, wiring).await.map(End::exit);
    }
    if execution.control.started().await.map_err(failed)? {
        let_go(&*execution.control).await;
        return Ok(Exit::OK);
    }
    let status = execution.control.wait().await.map_err(failed)?;
    Ok(conclude(&status))
}
