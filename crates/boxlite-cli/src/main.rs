//! The `boxlite` command line: a thin shell over [`boxlite::Runtime`].

mod args;
mod commands;
mod copy;
mod render;
mod report;
mod terminal;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use args::Cli;

/// How long unfinished work may delay the exit.
const PARTING: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return report::usage(&error),
    };
    report::trace(&cli.global);
    let tokio = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(tokio) => tokio,
        Err(error) => return report::fatal(&report::Failure::local(format!("starting up failed: {error}"))),
    };
    let outcome = tokio.block_on(commands::run(cli));
    // What was given up finishes what it is in the middle of and cleans up behind it, but not for long.
    tokio.shutdown_timeout(PARTING);
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => report::fatal(&failure),
    }
}
