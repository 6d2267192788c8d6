//! `logs`.

use std::io;

use boxlite::{LogOptions, Runtime};
use futures::StreamExt;

use crate::args::LogsArgs;
use crate::render::LogWriter;
use crate::report::{Exit, Failure, Topic};

pub(super) async fn logs(runtime: &Runtime, args: LogsArgs) -> Result<Exit, Failure> {
    let options =
        LogOptions { follow: args.follow, tail: args.tail.0, since: args.since, console: args.console };
    let failed = |error: boxlite::Error| Failure::of(&error, Topic::Box);
    let mut lines = runtime.logs(&args.id, options).await.map_err(failed)?;
    let mut writer = LogWriter::new(io::stdout(), io::stderr(), args.timestamps);
    while let Some(line) = lines.next().await {
        let line = line.map_err(failed)?;
        tokio::task::block_in_place(|| writer.write(&line)).map_err(|error| Failure::output(&error))?;
    }
    Ok(Exit::OK)
}
