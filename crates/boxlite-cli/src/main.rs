//! The `boxlite` command line: a thin shell over [`boxlite::Runtime`].
//!
//! A command reads its arguments, asks the runtime, and prints the answer. It holds no domain logic: every operation is a
//! method of the runtime, which works on a home of this host or on the home of a server alike.
//!
//! # Modules
//!
//! Imports go downwards only.
//!
//! | module | what it does |
//! | --- | --- |
//! | `commands` | the command line itself; one file per command, arguments beside behaviour |
//! | `args` | arguments that several commands share |
//! | `render` | results on standard output: tables for people, JSON for programs |
//! | `terminal` | our standard streams, connected to a command in a box |
//! | `copy` | tar streams to and from the user's files, for `cp` |
//! | `node` | this host under a cluster's scheduler: bounded checks, what is drained and resumed |
//! | `template` | templates of output, for `--format` |
//! | `service` | what a service manager hands over to `serve`, and is told |
//! | `environment` | the user's environment, read once and passed on as options |
//! | `report` | failures on standard error, with hints and exit statuses; the log |
//!
//! `boxlite serve` hands over to the crate `boxlite-server`. The second program of this package, `boxlite-shim`, owns one
//! running box and is started by the library.
//!
//! # Output
//!
//! Results go to standard output, everything else to standard error. The exit status is the one of the command in the box
//! where there is one, 125 when boxlite itself failed, 75 when it refused for lack of space, inodes or memory, and 1
//! when `gc`, `info` or `system df` finished but found trouble.

mod args;
mod commands;
mod copy;
mod environment;
mod node;
mod render;
mod report;
mod service;
mod template;
mod terminal;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use commands::Cli;
use environment::Environment;

/// How long unfinished work may delay the exit.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    match commands::completion::answer() {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return report::usage(&error),
    }
    let cli = match Cli::try_parse_from(commands::grouped::in_own_words(std::env::args_os().collect())) {
        Ok(cli) => cli,
        Err(error) => return report::usage(&error),
    };
    let environment = Environment::collect();
    report::trace(cli.global.debug, environment.log_filter().as_deref());
    let tokio = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(tokio) => tokio,
        Err(error) => {
            return report::fatal(&report::CommandFailure::local(format!("starting up failed: {error}")));
        }
    };
    let outcome = tokio.block_on(commands::run(cli, &environment));
    // Cancelled work may finish its current step and clean up, for a limited time.
    tokio.shutdown_timeout(SHUTDOWN_TIMEOUT);
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => report::fatal(&failure),
    }
}
