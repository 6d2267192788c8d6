//! Box records in the database.

use boxlite_types::{BoxRecord, CreationKey, Error, ErrorCause, Phase, Result};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::Store;
use super::failure::TransactionResult;

/// A box as the database has it.
#[derive(Debug)]
pub enum ListedBox {
    /// With its record.
    Whole(Box<BoxRecord>),
    /// Its record cannot be read.
    Damaged(DamagedBox),
}

/// A box whose record cannot be read, by the database's columns. Its disk image stays pinned by them.
#[derive(Debug, Clone)]
pub struct DamagedBox {
    pub id: String,
    pub name: String,
    pub image: String,
    pub disk_digest: String,
    pub created_at: Timestamp,
    /// A sentence.
    pub why: String,
}

impl ListedBox {
    /// The record, unless it is damaged.
    pub fn whole(self) -> Option<BoxRecord> {
        match self {
            Self::Whole(record) => Some(*record),
            Self::Damaged(_) => None,
        }
    }
}

impl Store {
    /// Adds a record.
    ///
    /// # Errors
    /// `Conflict` when another box has its name; `NotFound` when its image has gone from the catalogue.
    pub fn insert_box(&self, record: &BoxRecord) -> Result<()> {
        const NO_BASES: [&std::path::Path; 0] = [];
        self.insert_box_on(record, &NO_BASES)
    }

    /// Writes a record's present contents, and with a start the use of its image; the caller holds the box's state lock.
    ///
    /// # Errors
    /// `NotFound` when the box was removed meanwhile.
    pub fn update_box(&self, record: &BoxRecord) -> Result<()> {
        self.write(|transaction| {
            replace(transaction, record)?;
            if let Phase::Started { at, .. } = &record.phase {
                use_image(transaction, &record.image, *at)?;
            }
            Ok(())
        })
    }

    /// As [`Store::update_box`], of a record that has another name than before.
    ///
    /// # Errors
    /// `Conflict` when another box has the name.
    pub fn rename_box(&self, record: &BoxRecord) -> Result<()> {
        self.write(|transaction| {
            let taken: Option<String> = transaction
                .query_row(
                    "SELECT id FROM boxes WHERE name = ?1 AND id <> ?2",
                    [&record.name, &record.id],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(id) = taken {
                return Err(
                    Error::conflict(format!("the name '{}' is taken by box {id}", record.name)).into()
                );
            }
            let values = params![record.id, record.name, encode(record)?];
            if transaction.execute("UPDATE boxes SET name = ?2, record = ?3 WHERE id = ?1", values)? == 0 {
                return Err(Error::not_found(format!("box {} was removed meanwhile", record.id)).into());
            }
            Ok(())
        })
    }

    /// All boxes, oldest first. A record that cannot be read hides no other.
    pub fn boxes(&self) -> Result<Vec<ListedBox>> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT id, record, name, image, disk_digest, created_at FROM boxes ORDER BY created_at, id",
            )?;
            Ok(statement.query_map([], listed)?.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The boxes that are removed some time after they have stopped.
    pub fn boxes_with_ttl(&self) -> Result<Vec<ListedBox>> {
        self.read(|transaction| {
            // An option that is not set is not written. In a string of the record the quotes would be escaped.
            let mut statement = transaction.prepare_cached(
                r#"SELECT id, record, name, image, disk_digest, created_at FROM boxes
                   WHERE instr(record, '"ttl":') > 0 ORDER BY created_at, id"#,
            )?;
            Ok(statement.query_map([], listed)?.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The id of the box that `wanted` names, whether or not its record can be read; as [`Store::find_box`].
    pub fn find_box_id(&self, wanted: &str) -> Result<String> {
        let found = self.read(|transaction| {
            let exact = ids(transaction, "name = ?1 OR id = ?1", wanted)?;
            let begun = || ids(transaction, "?1 <> '' AND substr(id, 1, length(?1)) = ?1", wanted);
            if exact.is_empty() { begun() } else { Ok(exact) }
        })?;
        match <[String; 1]>::try_from(found) {
            Ok([id]) => Ok(id),
            Err(_) => self.find_box(wanted).map(|record| record.id),
        }
    }

    /// The record that `wanted` names: a name, an id, or a prefix that only one id has.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` when several ids begin with it.
    pub fn find_box(&self, wanted: &str) -> Result<BoxRecord> {
        let mut found = self.read(|transaction| {
            let exact = select(transaction, "WHERE name = ?1 OR id = ?1", &[&wanted])?;
            if !exact.is_empty() || wanted.is_empty() || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Ok(exact);
            }
            select(transaction, "WHERE substr(id, 1, length(?1)) = ?1 ORDER BY id LIMIT 2", &[&wanted])
        })?;
        match found.len() {
            0 => Err(Error::not_found(format!("there is no box '{wanted}'"))),
            1 => Ok(found.remove(0)),
            _ => Err(Error::invalid(format!(
                "'{wanted}' is ambiguous: boxes {} and {} both begin with it",
                found[0].id, found[1].id
            ))),
        }
    }
}

/// Adds a record whose image is in the catalogue.
pub(super) fn insert(transaction: &Transaction<'_>, record: &BoxRecord) -> TransactionResult<()> {
    add(transaction, record)?;
    if use_image(transaction, &record.image, record.created_at)? {
        return Ok(());
    }
    // gc or `rmi` took the image between its resolution and now: the box could never start.
    let message = format!("the image {} was removed meanwhile; try again", record.image_reference);
    Err(Error::not_found(message).into())
}

/// Writes a record's present contents.
pub(super) fn replace(transaction: &Transaction<'_>, record: &BoxRecord) -> TransactionResult<()> {
    let changed = transaction
        .execute("UPDATE boxes SET record = ?2 WHERE id = ?1", params![record.id, encode(record)?])?;
    if changed == 0 {
        return Err(Error::not_found(format!("box {} was removed meanwhile", record.id)).into());
    }
    Ok(())
}

/// Adds a record, whether or not its image is in the catalogue.
pub(super) fn add(transaction: &Transaction<'_>, record: &BoxRecord) -> TransactionResult<()> {
    let taken: Option<String> = transaction
        .query_row("SELECT id FROM boxes WHERE name = ?1", [&record.name], |row| row.get(0))
        .optional()?;
    if let Some(id) = taken {
        let message = format!("the name '{}' is taken by box {id}", record.name);
        return Err(Error::conflict(message).into());
    }
    if let Some(id) = made_by_the_same(transaction, record)? {
        let message = format!("the same request has made box {id} already");
        return Err(Error::conflict(message).about(ErrorCause::SameRequest).into());
    }
    let values = params![
        record.id,
        record.name,
        record.image,
        record.disk_digest,
        record.created_at.as_millisecond(),
        encode(record)?
    ];
    transaction.execute("INSERT INTO boxes VALUES (?1, ?2, ?3, ?4, ?5, ?6)", values)?;
    Ok(())
}

/// The box that was made not long before by the request that is to make this one.
fn made_by_the_same(transaction: &Transaction<'_>, record: &BoxRecord) -> TransactionResult<Option<String>> {
    let Some(CreationKey { request, .. }) = &record.options.creation_key else { return Ok(None) };
    let since = record.created_at.as_millisecond() - CreationKey::TIMEOUT.as_millis() as i64;
    // In a string of the record the quotes would be escaped.
    let text = format!(r#""creation_key":{{"request":"{request}""#);
    let query = "SELECT id FROM boxes WHERE created_at > ?1 AND instr(record, ?2) > 0";
    Ok(transaction.query_row(query, params![since, text], |row| row.get(0)).optional()?)
}

fn ids(transaction: &Transaction<'_>, condition: &str, wanted: &str) -> TransactionResult<Vec<String>> {
    let query = format!("SELECT id FROM boxes WHERE {condition} LIMIT 2");
    let mut statement = transaction.prepare_cached(&query)?;
    Ok(statement.query_map([wanted], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Notes that the image was used; false when it is not in the catalogue.
pub(super) fn use_image(
    transaction: &Transaction<'_>,
    image: &str,
    at: Timestamp,
) -> TransactionResult<bool> {
    let update = "UPDATE images SET last_used_at = max(last_used_at, ?2) WHERE digest = ?1";
    Ok(transaction.execute(update, params![image, at.as_millisecond()])? > 0)
}

fn select(
    transaction: &Transaction<'_>,
    clause: &str,
    parameters: &[&dyn rusqlite::ToSql],
) -> TransactionResult<Vec<BoxRecord>> {
    let mut statement = transaction.prepare_cached(&format!("SELECT id, record FROM boxes {clause}"))?;
    let rows = statement.query_map(parameters, decode)?;
    let records: Result<_> = rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().collect();
    Ok(records?)
}

/// Reads the columns `id` and `record`.
fn decode(row: &Row<'_>) -> rusqlite::Result<Result<BoxRecord>> {
    let (id, record) = (text(row, 0)?, row.get_ref(1)?.as_bytes()?);
    Ok(serde_json::from_slice(record).map_err(|source| {
        let message =
            format!("the record of box {id} cannot be read ({source}); `boxlite rm -f` removes the box");
        Error::corrupt(message).because(source)
    }))
}

fn listed(row: &Row<'_>) -> rusqlite::Result<ListedBox> {
    Ok(match decode(row)? {
        Ok(record) => ListedBox::Whole(Box::new(record)),
        Err(error) => ListedBox::Damaged(DamagedBox {
            id: text(row, 0)?,
            name: text(row, 2)?,
            image: text(row, 3)?,
            disk_digest: text(row, 4)?,
            created_at: Timestamp::from_millisecond(row.get(5)?).unwrap_or_default(),
            why: error.chain().to_string(),
        }),
    })
}

/// A column's text; what a damaged file made of it is shown rather than failed upon.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(String::from_utf8_lossy(row.get_ref(column)?.as_bytes()?).into_owned())
}

fn encode(record: &BoxRecord) -> Result<String> {
    serde_json::to_string(record)
        .map_err(|source| Error::bug(format!("box {} cannot be written down: {source}", record.id)))
}

#[cfg(test)]
#[path = "boxes_tests.rs"]
mod tests;
