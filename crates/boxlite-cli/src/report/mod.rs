//! What went wrong, for people: a sentence, what to do about it, and an exit status.

mod exit;
mod failure;
mod hint;
mod log;

use std::io::{self, Write};
use std::process::ExitCode;

pub(crate) use exit::Exit;
pub(crate) use failure::Failure;
pub(crate) use hint::Topic;
pub(crate) use log::trace;

/// Prints a failure to standard error; the exit status is boxlite's own.
pub(crate) fn fatal(failure: &Failure) -> ExitCode {
    failure.print();
    failure.exit().into()
}

/// Prints what clap has to say: help to standard output, complaints to standard error.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        let text = error.render().to_string();
        match text.strip_prefix("error: ") {
            Some(complaint) => note(&format!("boxlite: {}", complaint.trim_end())),
            None => note(text.trim_end()),
        }
        return Exit::FAILED.into();
    }
    // A closed pipe behind `--help | head` is nobody's problem.
    let _ = error.print();
    Exit::OK.into()
}

/// Prints one line to standard error, which may be closed.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests;
