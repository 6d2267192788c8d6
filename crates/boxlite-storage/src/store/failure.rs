//! Why a transaction failed, in SQLite's terms or in ours.

use std::path::Path;

use boxlite_types::{Error, ErrorKind};

/// The result of a transaction's body.
pub(crate) type TransactionResult<T> = Result<T, TransactionError>;

/// A failure inside a transaction, which is then rolled back.
#[derive(Debug)]
pub(crate) enum TransactionError {
    /// SQLite failed.
    Sqlite(rusqlite::Error),
    /// The request contradicts what the database holds, or a record is damaged.
    Refused(Error),
}

impl From<rusqlite::Error> for TransactionError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for TransactionError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl TransactionError {
    /// The public error, for the database at `path`.
    pub(super) fn at(self, path: &Path) -> Error {
        match self {
            Self::Sqlite(error) => sqlite_error(error).at(path),
            Self::Refused(error) => error,
        }
    }
}

/// The public error for a failure of SQLite.
pub(super) fn sqlite_error(source: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    let kind = match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ErrorKind::ResourceExhausted,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Busy,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => ErrorKind::Denied,
        _ => ErrorKind::Io,
    };
    Error::new(kind, "the home's database failed").because(source)
}
