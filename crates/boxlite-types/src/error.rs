//! The one public error: a small stable kind, a sentence, the path and the cause.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use serde::{Deserialize, Serialize};

/// The kind of a failure; programs decide by this and never by message text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The named thing does not exist.
    NotFound,
    /// The request contradicts the state of something that exists.
    Conflict,
    /// The request itself is malformed.
    InvalidInput,
    /// Disk bytes, inodes, memory or another bounded resource are short; see [`Error::shortage`].
    ResourceExhausted,
    /// Stored or received data is not what its digest or format claims.
    Corrupt,
    /// Another process is using it right now; trying again may succeed.
    Busy,
    /// Permissions or credentials are not sufficient.
    Denied,
    /// This host, build or backend cannot do that.
    Unsupported,
    /// A registry or another remote end could not be reached or answered wrongly.
    Unavailable,
    /// The caller gave up, or the process is shutting down.
    Cancelled,
    /// The operating system refused an operation.
    Io,
    /// boxlite itself has a fault.
    Bug,
}

impl ErrorKind {
    /// The kind's stable name, as it appears in JSON and over HTTP.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::InvalidInput => "invalid_input",
            Self::ResourceExhausted => "resource_exhausted",
            Self::Corrupt => "corrupt",
            Self::Busy => "busy",
            Self::Denied => "denied",
            Self::Unsupported => "unsupported",
            Self::Unavailable => "unavailable",
            Self::Cancelled => "cancelled",
            Self::Io => "io",
            Self::Bug => "bug",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The subject of a failure, where that decides what a person can do: finer than the kind, and as stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCause {
    /// A registry wants credentials, or refuses those that it got.
    Credentials,
    /// The image is for other processors than the platform that is wanted.
    Platform,
    /// An archive or directory of this host that was named as an image cannot be used.
    LocalImage,
    /// A volume's directory is missing, or cannot be shared.
    Volume,
    /// Another box has the named volume attached, or boxes keep it from being removed.
    VolumeInUse,
    /// A network that boxes join: it is missing, its name or addresses are taken, or boxes are in it.
    Network,
    /// The description of a filesystem in the box's memory is malformed.
    Tmpfs,
    /// A port of the host cannot be had.
    Port,
    /// A limit of boxlite's own is exceeded, which a setting can raise: the host is not short of anything.
    Limit,
    /// The box's own disk quota is used up: the host is not short of anything.
    DiskQuota,
    /// Running boxes were promised the memory that the host has for boxes.
    Memory,
    /// A run of the box is not in its log.
    LogRun,
    /// The box has no such snapshot.
    Snapshot,
    /// The settings do not say that a built disk image may be believed.
    Trust,
    /// The same request under an `Idempotency-Key` has made a box already.
    SameRequest,
    /// The box is paused by its user.
    Paused,
    /// Something that this build does not know, from a newer server.
    #[serde(other)]
    Other,
}

/// The figures behind a [`ErrorKind::ResourceExhausted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    /// Bytes (or inodes) that must be free for the operation to continue.
    pub need: u64,
    /// Bytes (or inodes) that are available to it now.
    pub have: u64,
    /// Whether the figures count inodes rather than bytes.
    pub inodes: bool,
    /// Allocated bytes (or inodes) that `boxlite gc` could free on this filesystem, where that is known.
    pub reclaimable: Option<u64>,
}

type SharedCause = Arc<dyn std::error::Error + Send + Sync>;

/// Any failure of the library.
///
/// `Display` is one sentence with the figures a person needs and leaves the cause to [`std::error::Error::source`];
/// [`Error::chain`] displays both, as does the alternate form `{:#}`. A clone shares its cause.
#[derive(Debug, Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    cause: Option<ErrorCause>,
    path: Option<PathBuf>,
    shortage: Option<Shortage>,
    server: Option<String>,
    source: Option<SharedCause>,
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` whose sentence is `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Inner {
            kind,
            message,
            cause: None,
            path: None,
            shortage: None,
            server: None,
            source: None,
        }))
    }

    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// [`ErrorKind::InvalidInput`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// [`ErrorKind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// [`ErrorKind::Bug`]: an invariant of boxlite itself does not hold.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, message)
    }

    /// [`ErrorKind::ResourceExhausted`] with its figures.
    pub fn exhausted(message: impl Into<String>, shortage: Shortage) -> Self {
        let mut error = Self::new(ErrorKind::ResourceExhausted, message);
        error.0.shortage = Some(shortage);
        error
    }

    /// An operating-system error met while `doing` something at `path`.
    ///
    /// A full disk or quota becomes [`ErrorKind::ResourceExhausted`], missing permission [`ErrorKind::Denied`].
    pub fn io(doing: &str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::ResourceExhausted,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("{doing} {} failed", path.display())).at(path).because(source)
    }

    /// Names the path that the error is about.
    #[must_use]
    pub fn at(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path = Some(path.into());
        self
    }

    /// Says what it is about, where that decides what a person can do.
    #[must_use]
    pub fn about(mut self, cause: ErrorCause) -> Self {
        self.0.cause = Some(cause);
        self
    }

    /// Says that the server at `url` itself could not be used.
    #[must_use]
    pub fn of_server(mut self, url: impl Into<String>) -> Self {
        self.0.server = Some(url.into());
        self
    }

    /// Attaches the cause, which the sentence then need not repeat.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Attaches a chain of causes of which only the deepest is informative, as with HTTP clients: [`Error::chain`]
    /// shows that one, and [`std::error::Error::source`] leads through all of them.
    #[must_use]
    pub fn because_deepest(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.because(DeepestCause(Box::new(source)))
    }

    /// Puts `context` and a colon before the sentence, keeping everything else.
    #[must_use]
    pub fn while_doing(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// Displays the sentence and what caused it, each after a colon: errors of boxlite down to the first that is not,
    /// whose own causes mostly repeat it. Causes that the text already quotes are left out.
    pub fn chain(&self) -> impl fmt::Display {
        let mut text = self.0.message.clone();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let sentence = cause.to_string();
            if !text.contains(&sentence) {
                text.push_str(": ");
                text.push_str(&sentence);
            }
            source = if cause.is::<Self>() { cause.source() } else { None };
        }
        text
    }

    /// The stable kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns its subject, where that decides what a person can do.
    pub fn cause(&self) -> Option<ErrorCause> {
        self.0.cause
    }

    /// The path the error is about, if it is about one.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The URL of the server that could not be reached, refused the key or gave an answer that was not understood;
    /// absent for errors that a server reported itself.
    pub fn server(&self) -> Option<&str> {
        self.0.server.as_deref()
    }

    /// The figures of a resource shortage.
    pub fn shortage(&self) -> Option<&Shortage> {
        self.0.shortage.as_ref()
    }
}

/// Displays as the deepest of a chain of causes.
#[derive(Debug)]
struct DeepestCause(Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for DeepestCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause: &dyn std::error::Error = &*self.0;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        fmt::Display::fmt(cause, f)
    }
}

impl std::error::Error for DeepestCause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() { self.chain().fmt(f) } else { f.write_str(&self.0.message) }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|cause| &**cause as &(dyn std::error::Error + 'static))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

/// Adds to a failed `io::Result` what was being done, and where.
pub trait Doing<T> {
    /// Turns the error into [`Error::io`].
    fn doing(self, doing: &str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::io(doing, path, source))
    }
}

impl<T> Doing<T> for std::result::Result<T, rustix::io::Errno> {
    fn doing(self, doing: &str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|errno| Error::io(doing, path, errno.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_leaves_its_cause_to_the_chain() {
        let io = Error::io("opening", "/x", io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(io.to_string(), "opening /x failed");
        assert_eq!(io.chain().to_string(), "opening /x failed: entity not found");
        let above = Error::corrupt("the home is damaged").because(io.clone());
        assert_eq!(format!("{above:#}"), "the home is damaged: opening /x failed: entity not found");
        // A clone still has kind, path and cause.
        let below = std::error::Error::source(&above).unwrap().downcast_ref::<Error>().unwrap();
        assert_eq!((below.kind(), below.path()), (io.kind(), io.path()));
    }

    #[test]
    fn what_is_quoted_is_not_said_twice_and_foreign_layers_are_not_repeated() {
        let quoted = Error::invalid("the size 'x' is not a number").because("'x' is not a number");
        assert_eq!(quoted.chain().to_string(), "the size 'x' is not a number");
        let deep = io::Error::other(io::Error::other("refused"));
        let error = Error::new(ErrorKind::Unavailable, "no answer").because_deepest(deep);
        assert_eq!(error.chain().to_string(), "no answer: refused");
    }
}
