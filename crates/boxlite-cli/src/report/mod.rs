//! Failures for people: a sentence, hints on what to do, and an exit status. Also the log on standard error.

mod failure;
mod foreign;
mod hint;
mod log;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

pub(crate) use failure::CommandFailure;
pub(crate) use hint::Topic;
pub(crate) use log::trace;

/// The status that the process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit(u8);

impl Exit {
    /// Everything was done.
    pub(crate) const OK: Self = Self(0);
    /// boxlite did what it could and reported the rest.
    pub(crate) const INCOMPLETE: Self = Self(1);
    /// Boxes should not be placed on this host.
    const UNFIT: Self = Self(2);
    /// Refused for lack of space, inodes or memory; the same command may succeed later (`EX_TEMPFAIL`).
    pub(crate) const NO_ROOM: Self = Self(75);
    /// boxlite itself failed.
    pub(crate) const FAILED: Self = Self(125);
    /// The reader of our output left: the status of a program that SIGPIPE ended.
    pub(crate) const BROKEN_PIPE: Self = Self(128 + 13);

    /// Returns the status of a command in a box. Only its low eight bits count, as everywhere on Unix.
    pub(crate) fn of_command(code: i32) -> Self {
        Self(code as u8)
    }

    /// Returns the status of a check of this host.
    pub(crate) fn of_verdict(verdict: boxlite::Verdict) -> Self {
        match verdict {
            boxlite::Verdict::Ok => Self::OK,
            boxlite::Verdict::Warn => Self::INCOMPLETE,
            boxlite::Verdict::Reject => Self::UNFIT,
        }
    }

    /// Returns the status of a program that `signal` ended.
    pub(crate) fn of_signal(signal: i32) -> Self {
        Self::of_command(128 + signal)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// Prints a failure to standard error and returns its exit status.
pub(crate) fn fatal(failure: &CommandFailure) -> ExitCode {
    failure.print();
    failure.exit().into()
}

/// Prints clap's answer: help to standard output, usage errors to standard error.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if let Some(text) = foreign_word(error) {
        note(&text);
        return Exit::FAILED.into();
    }
    if error.use_stderr() {
        let text = error.render().to_string();
        match text.strip_prefix("error: ") {
            Some(complaint) => note(&format!("boxlite: {}", complaint.trim_end())),
            None => note(text.trim_end()),
        }
        return Exit::FAILED.into();
    }
    // `--help | head` may close the pipe early.
    let _ = error.print();
    Exit::OK.into()
}

/// Returns what to say of a command or an option that other tools have, in place of names that look like it.
fn foreign_word(error: &clap::Error) -> Option<String> {
    let (word, hint) = if let Some(ContextValue::String(command)) = error.get(ContextKind::InvalidSubcommand)
    {
        let hint = foreign::instead_of(command)?;
        // Only images have none.
        (if command == "prune" { "image prune" } else { command.as_str() }, hint)
    } else if let (ErrorKind::UnknownArgument, Some(ContextValue::String(option))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    {
        let option = option.split('=').next().unwrap_or_default();
        (option, foreign::instead_of_option(option)?)
    } else {
        return None;
    };
    Some(format!("boxlite: boxlite has no `{word}`\nhint: {hint}"))
}

/// Prints a note of one line or several to standard error, even if that is closed.
pub(crate) fn note(text: &str) {
    let lines: Vec<String> = text.split('\n').map(visible).collect();
    let _ = writeln!(io::stderr(), "{}", lines.join("\n"));
}

/// Prints a note of one line to a terminal in raw mode, where a line feed alone does not return to the first column.
pub(crate) fn note_raw(text: &str) {
    let _ = write!(io::stderr(), "{}", raw_line(text));
}

fn raw_line(text: &str) -> String {
    format!("\r{}\r\n", visible(text))
}

/// Returns `text` as it is safe to print: one line, whose control characters and marks of direction are escaped.
///
/// Text of boxes, images, archives and servers passes through here on its way to a terminal or a log. Otherwise it
/// could move the cursor, hide what was printed, or look like another line.
pub(crate) fn visible(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) && c != '\t' {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Whether a character steers a terminal instead of showing something.
pub(crate) fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests;
