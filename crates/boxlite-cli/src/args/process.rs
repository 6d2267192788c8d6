//! What `run`, `create` and `exec` ask alike of the process that they begin.

use std::path::PathBuf;

use clap::Args;

use super::env;
use crate::report::Failure;

/// Streams, environment, directory and user of a process.
#[derive(Debug, Args)]
pub(crate) struct ProcessArgs {
    /// Connect the process's standard input
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set an environment variable; without a value, pass the host's on
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory in the box
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User that the process runs as
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
}

impl ProcessArgs {
    /// The environment as `NAME=value`; `host` looks up the host's.
    pub(crate) fn environment(&self, host: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, Failure> {
        env::environment(&self.env_file, &self.env, host)
    }
}
