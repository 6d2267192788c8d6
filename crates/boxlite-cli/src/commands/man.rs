//! `man`: the manual pages, for packages.

use std::path::Path;

use clap::CommandFactory;

use super::Cli;
use crate::report::{CommandFailure, Exit};

pub(super) fn man(directory: &Path) -> Result<Exit, CommandFailure> {
    clap_mangen::generate_to(Cli::command(), directory).map(|()| Exit::OK).map_err(|error| {
        CommandFailure::local(format!("writing the manual pages to {} failed: {error}", directory.display()))
    })
}
