//! The tables, their version, and the versions that this build may open.

use std::path::Path;

use boxlite_home::HomeIdentity;
use boxlite_types::{Error, ErrorKind, Result};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

/// Counts up with every change of the tables; kept in `PRAGMA user_version`.
const VERSION: i64 = 2;

/// Before the home's identity and intents.
const WITHOUT_INTENTS: i64 = 1;

/// The one feature that a build must know before it opens a home which has it: images are stored with deltas.
pub(super) const DELTAS: &str = "deltas";

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

/// The additions of version 2. `base_users` says which boxes were put on a base that this home made: a base from
/// before has no rows, and nothing is known about it.
const INTENTS: &str = "
CREATE TABLE intents (
    kind       TEXT NOT NULL,
    id         TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    what       TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE base_users (
    base TEXT NOT NULL,
    box  TEXT NOT NULL,
    PRIMARY KEY (base, box)
) STRICT, WITHOUT ROWID;
CREATE INDEX base_users_by_box ON base_users(box);
";

/// A database that is up to date.
#[derive(Debug)]
pub(super) struct OpenedSchema {
    pub(super) schema: Schema,
    /// The home has the feature [`DELTAS`], which it never loses.
    pub(super) has_deltas: bool,
}

/// The tables that a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    /// All that this build knows.
    Current,
    /// Those of version 1, because the disk was too full to add the others.
    WithoutIntents,
}

/// Creates the tables in an empty database, adds what an older one lacks, and refuses one from the future.
///
/// The database gets an id in the same transaction: that of `identity`, the home's, where it is created; a new one
/// where an old home has none yet; and none where an old database was put into a home that has one.
pub(super) fn bring_up_to_date(
    connection: &mut Connection,
    path: &Path,
    identity: Option<&HomeIdentity>,
) -> Result<OpenedSchema> {
    let named =
        |error: rusqlite::Error| super::failure::sqlite_error(error).at(path).while_doing(path.display());
    let mut schema = Schema::Current;
    if version(connection).map_err(named)? < VERSION {
        match migrate(connection, path, identity, &named) {
            Err(error) if error.kind() == ErrorKind::ResourceExhausted => {
                if version(connection).map_err(named)? != WITHOUT_INTENTS {
                    return Err(error);
                }
                tracing::warn!(%error, "the disk is too full to bring the home's database up to date; later");
                schema = Schema::WithoutIntents;
            }
            other => other?,
        }
    }
    let found = version(connection).map_err(named)?;
    let features = meta(connection, "incompatible_features").map_err(named)?.unwrap_or_default();
    if (found != VERSION && schema == Schema::Current) || !(features.is_empty() || features == DELTAS) {
        let message = format!(
            "{} has schema version {found} with features '{features}', and this boxlite knows version {VERSION} \
             without any or with '{DELTAS}'; use the boxlite that wrote it",
            path.display()
        );
        return Err(Error::unsupported(message).at(path));
    }
    Ok(OpenedSchema { schema, has_deltas: features == DELTAS })
}

fn migrate(
    connection: &mut Connection,
    path: &Path,
    identity: Option<&HomeIdentity>,
    named: &dyn Fn(rusqlite::Error) -> Error,
) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(named)?;
    let found = version(&transaction).map_err(named)?;
    let id = match (found, identity) {
        (0, Some(identity)) => identity.id.clone(),
        (WITHOUT_INTENTS, Some(_)) => String::new(),
        _ => HomeIdentity::new_id(),
    };
    if found == 0 {
        refuse_lost(path)?;
        transaction.execute_batch(TABLES).map_err(named)?;
    }
    if found < VERSION {
        transaction.execute_batch(INTENTS).map_err(named)?;
        transaction.execute("INSERT INTO meta VALUES ('home_id', ?1)", [id]).map_err(named)?;
        transaction.pragma_update(None, "user_version", VERSION).map_err(named)?;
    }
    transaction.commit().map_err(named)
}

/// A value that the database keeps about itself.
pub(super) fn meta(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    let mut query = connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    query.query_row([key], |row| row.get(0)).optional()
}

/// A database is made before the first box. Boxes beside an empty one mean that the database was lost, and gc, which
/// would find none of their records, must not see the empty one.
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A database as the build before intents left it, with the record of one box.
    pub(in crate::store) fn make_version_1(path: &Path) {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch(TABLES).unwrap();
        connection
            .execute("INSERT INTO boxes VALUES ('1', 'web', 'sha256:i', 'sha256:d', 1000, '{}')", [])
            .unwrap();
        connection.pragma_update(None, "user_version", WITHOUT_INTENTS).unwrap();
    }
}
