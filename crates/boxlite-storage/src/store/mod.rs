//! The home's database of images, boxes and intents.
//!
//! SQLite with a rollback journal in `PERSIST` mode rather than WAL: a reader creates and writes nothing, so
//! that gc reads its roots on a disk with 0 bytes and 0 inodes free, and a writer reuses the journal's
//! allocated blocks. Commits are fsynced (`synchronous=FULL`). Writers of all processes take turns for the
//! length of one short transaction; readers see the last committed state.

mod boxes;
mod failure;
mod identity;
mod images;
mod intents;
mod layers;
mod names;
mod roots;
mod schema;

pub use crate::catalog::IntentKind;
pub use boxes::ListedBox;
pub(crate) use images::Document;
pub(crate) use names::NameOrigin;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boxlite_home::{Home, HomeIdentity, Reserve, durable};
use boxlite_types::{ErrorKind, Result};
use failure::{TransactionError, TransactionResult, sqlite_error};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use schema::{OpenedSchema, Schema};

/// How long a transaction waits for its turn, in pauses of at most [`LONGEST_PAUSE`].
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Waits for a moment after `attempts` that found the database locked; says whether to try once more.
///
/// A transaction takes a few milliseconds. SQLite's own pauses soon last 100 ms, and starts at once would wait for each other
/// where nobody writes.
fn wait_for_turn(attempts: i32) -> bool {
    let pause = |attempt: i32| Duration::from_millis(1 + attempt as u64 / 16).min(LONGEST_PAUSE);
    if pause(attempts) == LONGEST_PAUSE && LONGEST_PAUSE * attempts.unsigned_abs() > BUSY_TIMEOUT {
        return false;
    }
    std::thread::sleep(pause(attempts));
    true
}

/// A handle on the database, cheap to clone; one connection per process and home.
#[derive(Debug, Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    path: PathBuf,
    schema: Schema,
    /// The home is known to have deltas.
    has_deltas: Arc<AtomicBool>,
    /// Where the database lies; `None` for one without a home.
    home: Option<Home>,
}

impl Store {
    /// Opens the database at `path`, creating it if it is missing; writes nothing when its schema is current.
    ///
    /// # Errors
    /// `Corrupt` when it is not a database, `Unsupported` when a newer boxlite wrote it.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, None)
    }

    fn open_as(path: &Path, identity: Option<&HomeIdentity>) -> Result<Self> {
        // Options may be secrets, and SQLite would let everybody read them.
        if path.parent().is_some_and(Path::is_dir) {
            durable::ensure_file(path)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let named = |error: rusqlite::Error| sqlite_error(error).at(path).while_doing(path.display());
        make_private(path)?;
        let mut connection = Connection::open_with_flags(path, flags).map_err(named)?;
        connection.busy_handler(Some(wait_for_turn)).map_err(named)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode=PERSIST; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;
                 PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0;",
            )
            .map_err(named)?;
        let OpenedSchema { schema, has_deltas } = schema::bring_up_to_date(&mut connection, path, identity)?;
        let connection = Arc::new(Mutex::new(connection));
        let has_deltas = Arc::new(AtomicBool::new(has_deltas));
        Ok(Self { connection, path: path.to_owned(), schema, has_deltas, home: None })
    }

    /// Runs `body` in a read transaction: one consistent state throughout.
    pub(crate) fn read<T>(&self, body: impl FnOnce(&Transaction<'_>) -> TransactionResult<T>) -> Result<T> {
        self.transact(TransactionBehavior::Deferred, body)
    }

    /// Runs `body` in a write transaction and commits it durably; nothing happens when `body` fails.
    ///
    /// On a full disk the home's reserve is released and `body` runs once more: what frees space is recorded here.
    pub(crate) fn write<T>(&self, body: impl Fn(&Transaction<'_>) -> TransactionResult<T>) -> Result<T> {
        let written = self.transact(TransactionBehavior::Immediate, &body);
        match (&written, &self.home) {
            (Err(error), Some(home)) if error.kind() == ErrorKind::ResourceExhausted && released(home) => {
                self.transact(TransactionBehavior::Immediate, &body)
            }
            _ => written,
        }
    }

    fn transact<T>(
        &self,
        behavior: TransactionBehavior,
        body: impl FnOnce(&Transaction<'_>) -> TransactionResult<T>,
    ) -> Result<T> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let committed = (|| {
            let transaction = connection.transaction_with_behavior(behavior)?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        committed.map_err(|error: TransactionError| error.at(&self.path))
    }
}

/// Releases the space that is kept for the database; says whether there was any.
fn released(home: &Home) -> bool {
    Reserve::for_database(home).release().unwrap_or_else(|error| {
        tracing::warn!(error = %error.chain(), "the space kept for the database could not be given back");
        false
    })
}

/// Makes the database, which holds the environments of boxes, readable only by its owner. SQLite gives the journal
/// the database's mode when it makes one; one that is there is made private as well.
fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    for file in [path, Path::new(&journal)] {
        if std::fs::symlink_metadata(file).is_ok_and(|found| found.is_file() && found.mode() & 0o077 != 0) {
            durable::restrict(file, 0o600)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
