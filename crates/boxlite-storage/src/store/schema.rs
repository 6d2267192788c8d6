//! The tables, their version, and what this build may open.

use std::path::Path;

use boxlite_types::{Error, Result};
use rusqlite::{Connection, TransactionBehavior};

/// Counts up with every change of the tables; kept in `PRAGMA user_version`.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT INTO meta VALUES ('incompatible_features', '');
CREATE TABLE images (
    digest       TEXT PRIMARY KEY,
    config       TEXT NOT NULL,
    platform     TEXT NOT NULL,
    pulled_at    INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL
) STRICT;
CREATE TABLE tags (
    reference TEXT PRIMARY KEY,
    image     TEXT NOT NULL REFERENCES images(digest) ON DELETE CASCADE
) STRICT;
CREATE TABLE image_blobs (
    image      TEXT NOT NULL REFERENCES images(digest) ON DELETE CASCADE,
    ordinal    INTEGER NOT NULL,
    digest     TEXT NOT NULL,
    role       TEXT NOT NULL,
    media_type TEXT NOT NULL,
    length     INTEGER NOT NULL,
    diff_id    TEXT,
    PRIMARY KEY (image, ordinal)
) STRICT;
CREATE INDEX image_blobs_by_digest ON image_blobs(digest);
CREATE TABLE boxes (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    image       TEXT NOT NULL,
    disk_digest TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    record      TEXT NOT NULL
) STRICT;
";

/// Creates the tables in an empty database and refuses one from the future.
pub(super) fn bring_up_to_date(connection: &mut Connection, path: &Path) -> Result<()> {
    let named =
        |error: rusqlite::Error| super::failure::sqlite_error(error).at(path).while_doing(path.display());
    if version(connection).map_err(named)? == 0 {
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(named)?;
        if version(&transaction).map_err(named)? == 0 {
            refuse_lost(path)?;
            transaction.execute_batch(TABLES).map_err(named)?;
            transaction.pragma_update(None, "user_version", VERSION).map_err(named)?;
        }
        transaction.commit().map_err(named)?;
    }
    let found = version(connection).map_err(named)?;
    let features: String = connection
        .query_row("SELECT value FROM meta WHERE key = 'incompatible_features'", [], |row| row.get(0))
        .map_err(named)?;
    if found != VERSION || !features.is_empty() {
        let message = format!(
            "{} has schema version {found} with features '{features}', and this boxlite knows version {VERSION} \
             without any; use the boxlite that wrote it",
            path.display()
        );
        return Err(Error::unsupported(message).at(path));
    }
    Ok(())
}

/// A database is made before the first box: boxes beside an empty one mean that it was lost, and gc, which would find
/// none of their records, must not see it.
fn refuse_lost(path: &Path) -> Result<()> {
    let boxes = path.with_file_name("boxes");
    let is_box = |entry: &std::fs::DirEntry| entry.file_name().len() == 32;
    let found = std::fs::read_dir(&boxes).is_ok_and(|entries| entries.flatten().any(|entry| is_box(&entry)));
    if !found {
        return Ok(());
    }
    let message = format!(
        "{} holds boxes, and the database {} that records them is missing or empty; restore it, or move the boxes away",
        boxes.display(),
        path.display()
    );
    Err(Error::corrupt(message).at(path))
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}
