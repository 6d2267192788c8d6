//! The failure of a command, found by the command line or by the library below it.

use std::error::Error as _;
use std::fmt;
use std::io;

use super::{Exit, Topic, hint, note, visible};

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct CommandFailure {
    message: String,
    hints: Vec<String>,
    causes: Vec<String>,
    exit: Exit,
    silent: bool,
    of_server: bool,
}

impl CommandFailure {
    /// A failure that the command line found itself.
    pub(crate) fn local(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hints: Vec::new(),
            causes: Vec::new(),
            exit: Exit::FAILED,
            silent: false,
            of_server: false,
        }
    }

    /// Adds a hint on what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// A failure of the library in a command about `topic`.
    pub(crate) fn of(error: &boxlite::Error, topic: Topic) -> Self {
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        let (hints, of_server) = (hint::hints(error, topic), error.server().is_some());
        let no_room = error.kind() == boxlite::ErrorKind::ResourceExhausted;
        let exit = if no_room { Exit::NO_ROOM } else { Exit::FAILED };
        Self { hints, causes, exit, of_server, ..Self::local(error.chain().to_string()) }
    }

    /// A failure to write to standard output; silent when its reader left.
    pub(crate) fn output(error: &io::Error) -> Self {
        let broken = error.kind() == io::ErrorKind::BrokenPipe;
        let exit = if broken { Exit::BROKEN_PIPE } else { Exit::FAILED };
        Self { exit, silent: broken, ..Self::local(format!("writing to standard output failed: {error}")) }
    }

    /// A failure of the operating system in what `doing` says; a full disk has an exit status of its own.
    pub(crate) fn io(doing: &str, error: &io::Error) -> Self {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let exit = if full { Exit::NO_ROOM } else { Exit::FAILED };
        Self { exit, ..Self::local(format!("{doing}: {error}")) }
    }

    /// Returns the exit status that it leads to.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Tells whether a server could not be used, which leaves the state of its boxes unknown.
    pub(crate) fn is_of_server(&self) -> bool {
        self.of_server
    }

    /// Prints the sentence and the hints to standard error.
    pub(crate) fn print(&self) {
        if !self.silent {
            note(&self.text());
        }
        for cause in &self.causes {
            tracing::debug!("caused by: {cause}");
        }
    }

    /// Returns the sentence and the hints as they are printed.
    pub(super) fn text(&self) -> String {
        let mut text = format!("boxlite: {}", visible(&self.message));
        for hint in &self.hints {
            text.push_str("\nhint: ");
            text.push_str(&visible(hint));
        }
        text
    }
}

impl fmt::Display for CommandFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
