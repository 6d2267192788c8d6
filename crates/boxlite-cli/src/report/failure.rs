//! A failure of the command line or of the library below it.

use std::error::Error as _;
use std::fmt;
use std::io;

use super::{Exit, Topic, hint, note};

/// Why a command could not be carried out.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hints: Vec<String>,
    causes: Vec<String>,
    exit: Exit,
    silent: bool,
    of_server: bool,
}

impl Failure {
    /// A failure found on this side of the library.
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

    /// Adds what to do about it.
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
        Self { hints, causes, of_server, ..Self::local(error.chain().to_string()) }
    }

    /// Writing to standard output failed; quiet when its reader simply went away.
    pub(crate) fn output(error: &io::Error) -> Self {
        let broken = error.kind() == io::ErrorKind::BrokenPipe;
        let exit = if broken { Exit::BROKEN_PIPE } else { Exit::FAILED };
        Self { exit, silent: broken, ..Self::local(format!("writing to standard output failed: {error}")) }
    }

    /// The exit status it leads to.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether a server could not be used, so that nothing is known of what goes on there.
    pub(crate) fn is_of_server(&self) -> bool {
        self.of_server
    }

    /// Prints sentence and hints to standard error.
    pub(crate) fn print(&self) {
        if !self.silent {
            note(&self.text());
        }
        for cause in &self.causes {
            tracing::debug!("caused by: {cause}");
        }
    }

    /// Sentence and hints as they are printed.
    pub(super) fn text(&self) -> String {
        let mut text = format!("boxlite: {}", self.message);
        for hint in &self.hints {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
