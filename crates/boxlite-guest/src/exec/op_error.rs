//! The error of an operation other than an exec.

use std::io;

use boxlite_proto::{OpEvent, OpFailure};

/// Why an operation failed: its kind, and one sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpError {
    pub(super) kind: OpFailure,
    pub(super) message: String,
}

impl OpError {
    pub(super) fn new(kind: OpFailure, message: String) -> Self {
        Self { kind, message }
    }

    pub(super) fn invalid(message: String) -> Self {
        Self::new(OpFailure::Invalid, message)
    }

    /// An error of the operating system while `doing` something.
    pub(super) fn io<E>(doing: &str, error: &E) -> Self
    where
        E: std::fmt::Display + Clone + Into<io::Error>,
    {
        let kind = kind_of(&error.clone().into());
        Self::new(kind, format!("{doing} failed: {error}"))
    }

    /// Like [`Self::io`], for an error that cannot be cloned.
    pub(super) fn std_io(doing: &str, error: &io::Error) -> Self {
        Self::new(kind_of(error), format!("{doing} failed: {error}"))
    }

    pub(super) fn into_event(self, id: u32) -> OpEvent {
        OpEvent::Failed { id, kind: self.kind, message: self.message }
    }
}

fn kind_of(error: &io::Error) -> OpFailure {
    match error.kind() {
        io::ErrorKind::NotFound => OpFailure::NotFound,
        io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::DirectoryNotEmpty => OpFailure::WrongKind,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpFailure::NoSpace,
        io::ErrorKind::InvalidInput => OpFailure::Invalid,
        _ => OpFailure::Io,
    }
}
