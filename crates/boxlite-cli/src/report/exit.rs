//! Exit statuses.

use std::process::ExitCode;

/// The status that the process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit(u8);

impl Exit {
    /// Done.
    pub(crate) const OK: Self = Self(0);
    /// boxlite did what was asked as far as it could, and reported what it could not.
    pub(crate) const INCOMPLETE: Self = Self(1);
    /// boxlite itself failed.
    pub(crate) const FAILED: Self = Self(125);
    /// The reader of our output went away, as a program that SIGPIPE ended would report it.
    pub(crate) const BROKEN_PIPE: Self = Self(128 + 13);

    /// The status of a command in a box; only the low eight bits exist, as everywhere on Unix.
    pub(crate) fn of_command(code: i32) -> Self {
        Self(code as u8)
    }

    /// The status of a program that `signal` ended.
    pub(crate) fn of_signal(signal: i32) -> Self {
        Self::of_command(128 + signal)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}
