//! Intents: decisions to remove something, written down before the removal. gc deletes data that cannot be made again
//! only on such an intent.
//!
//! `rm` writes the intent for a box's directory in the transaction that takes its record away, and with the last box
//! that was put on a base the intent for that base. A box that is being cloned has an intent until it is recorded, so
//! that gc may remove what a kill leaves of it. An intent is dropped when the thing that it names is gone, that of a box which
//! removed itself by the next removal.

use std::path::Path;

use boxlite_types::{BoxRecord, Error, Result};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::Store;
use super::boxes::insert;
use super::failure::TransactionResult;
use super::schema::Schema;
use crate::catalog::{Intent, IntentKind, StaleNotes};

/// Why there is an intent for the directory of a box that was removed.
const REMOVED: &str = "it was removed";

/// A base's name in the database: its file name.
fn base_name(base: &Path) -> String {
    base.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Store {
    /// Writes down that what `id` names is to be removed, and why. Durable when this returns.
    pub fn intend(&self, kind: IntentKind, id: &str, why: &str) -> Result<()> {
        self.write_intents(|transaction| write_intent(transaction, kind, id, why))
    }

    /// Drops the intent for what is gone.
    pub fn drop_intent(&self, kind: IntentKind, id: &str) -> Result<()> {
        self.write_intents(|transaction| {
            transaction
                .execute("DELETE FROM intents WHERE kind = ?1 AND id = ?2", params![column(kind), id])?;
            Ok(())
        })
    }

    /// Whether there is an intent for what `id` names.
    pub fn has_intent(&self, kind: IntentKind, id: &str) -> Result<bool> {
        let query = "SELECT EXISTS (SELECT 1 FROM intents WHERE kind = ?1 AND id = ?2)";
        self.read_intents(|transaction| {
            Ok(transaction.prepare_cached(query)?.query_row([column(kind), id], |row| row.get(0))?)
        })
    }

    /// Visits every intent.
    pub(super) fn visit_intents(&self, visit: &mut dyn FnMut(Intent<'_>)) -> Result<()> {
        self.read_intents(|transaction| {
            let mut statement = transaction.prepare_cached("SELECT kind, id, created_at FROM intents")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
                let kind = match text(0)? {
                    "box" => IntentKind::Box,
                    "base" => IntentKind::Base,
                    "volume" => IntentKind::Volume,
                    _ => continue,
                };
                visit(Intent { kind, id: text(1)?, written_ms: row.get(2)? });
            }
            Ok(())
        })
    }

    /// Visits the name of each base that has users, each once.
    pub(super) fn visit_used_bases(&self, visit: &mut dyn FnMut(&str)) -> Result<()> {
        self.read_intents(|transaction| {
            let mut statement = transaction.prepare_cached("SELECT DISTINCT base FROM base_users")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                visit(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?);
            }
            Ok(())
        })
    }

    /// Drops intents, unless they were written anew since, and all uses of bases that are gone.
    pub(super) fn drop_stale(&self, stale: &StaleNotes) -> Result<()> {
        self.write_intents(|transaction| {
            for (kind, id, written_ms) in &stale.intents {
                let seen = params![column(*kind), id, written_ms];
                transaction
                    .execute("DELETE FROM intents WHERE kind = ?1 AND id = ?2 AND created_at = ?3", seen)?;
            }
            for base in &stale.used_bases {
                transaction.execute("DELETE FROM base_users WHERE base = ?1", [base])?;
            }
            Ok(())
        })
    }

    /// Notes that the box `id` is about to stand on `base`, which this home is about to make of its overlay.
    pub fn note_base(&self, base: &Path, id: &str) -> Result<()> {
        self.write_intents(|transaction| use_base(transaction, &base_name(base), id))
    }

    /// Adds the record of a box that stands on `bases`, as [`Store::insert_box`] does.
    ///
    /// # Errors
    /// As for [`Store::insert_box`].
    pub fn insert_box_on(&self, record: &BoxRecord, bases: &[impl AsRef<Path>]) -> Result<()> {
        self.write(|transaction| {
            insert(transaction, record)?;
            self.explain(transaction, &record.id, bases)
        })
    }

    /// Gives a box its record back; its image need not be in the catalogue any more.
    ///
    /// # Errors
    /// `Conflict` when another box has its name, or the box has a record.
    pub fn adopt_box(&self, record: &BoxRecord, bases: &[impl AsRef<Path>]) -> Result<()> {
        self.write(|transaction| {
            let taken = transaction
                .query_row("SELECT 1 FROM boxes WHERE id = ?1", [&record.id], |_| Ok(()))
                .optional()?;
            if taken.is_some() {
                return Err(Error::conflict(format!("box {} has a record", record.id)).into());
            }
            super::boxes::add(transaction, record)?;
            self.explain(transaction, &record.id, bases)
        })
    }

    /// From now on the record explains the directory and the bases of the box `id`.
    fn explain(
        &self,
        transaction: &Transaction<'_>,
        id: &str,
        bases: &[impl AsRef<Path>],
    ) -> TransactionResult<()> {
        if self.schema == Schema::WithoutIntents {
            return Ok(());
        }
        transaction.execute("DELETE FROM intents WHERE kind = 'box' AND id = ?1", [id])?;
        for base in bases {
            let base = base_name(base.as_ref());
            // For a base without a recorded user it is unknown who else stood on it; an intent says that all who did
            // were removed.
            let known: bool = transaction.query_row(
                "SELECT EXISTS (SELECT 1 FROM base_users WHERE base = ?1)
                 OR EXISTS (SELECT 1 FROM intents WHERE kind = 'base' AND id = ?1)",
                [&base],
                |row| row.get(0),
            )?;
            if known {
                use_base(transaction, &base, id)?;
            }
            transaction.execute("DELETE FROM intents WHERE kind = 'base' AND id = ?1", [&base])?;
        }
        Ok(())
    }

    /// The ids of at most `limit` boxes with an intent that their removal has written.
    pub fn removed_boxes(&self, limit: usize) -> Result<Vec<String>> {
        let query = "SELECT id FROM intents WHERE kind = 'box' AND what = ?1 LIMIT ?2";
        self.read_intents(|transaction| {
            let mut statement = transaction.prepare_cached(query)?;
            let rows = statement.query_map(params![REMOVED, limit as i64], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Writes a record of a box whose overlay and snapshots stand on the bases `kept` by now, and on no others: that it
    /// left those is their intent, where it was the last box on them.
    ///
    /// # Errors
    /// `NotFound` when the box was removed meanwhile.
    pub fn update_box_on(&self, record: &BoxRecord, kept: &[impl AsRef<Path>]) -> Result<()> {
        let kept: Vec<String> = kept.iter().map(|base| base_name(base.as_ref())).collect();
        self.write(|transaction| {
            super::boxes::replace(transaction, record)?;
            if self.schema == Schema::Current {
                leave(
                    transaction,
                    &record.id,
                    &kept,
                    "the last box on it went back to a snapshot, or gave one up",
                )?;
            }
            Ok(())
        })
    }

    /// Removes a record and writes the intents to remove the box's directory, and the bases that no other box was put
    /// on, in one transaction; a record that is gone already is a success. The same transaction drops the intents for the
    /// directories of the boxes `gone`.
    pub fn delete_box(&self, id: &str, gone: &[String]) -> Result<()> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM boxes WHERE id = ?1", [id])?;
            if self.schema == Schema::Current {
                let mut drop =
                    transaction.prepare_cached("DELETE FROM intents WHERE kind = 'box' AND id = ?1")?;
                for gone in gone {
                    drop.execute([gone])?;
                }
                release(transaction, id)?;
            }
            Ok(())
        })
    }

    fn write_intents(&self, body: impl Fn(&Transaction<'_>) -> TransactionResult<()>) -> Result<()> {
        match self.schema {
            Schema::Current => self.write(body),
            Schema::WithoutIntents => Ok(()),
        }
    }

    fn read_intents<T: Default>(
        &self,
        body: impl FnOnce(&Transaction<'_>) -> TransactionResult<T>,
    ) -> Result<T> {
        match self.schema {
            Schema::Current => self.read(body),
            Schema::WithoutIntents => Ok(T::default()),
        }
    }
}

fn column(kind: IntentKind) -> &'static str {
    match kind {
        IntentKind::Box => "box",
        IntentKind::Base => "base",
        IntentKind::Volume => "volume",
    }
}

fn release(transaction: &Transaction<'_>, id: &str) -> TransactionResult<()> {
    write_intent(transaction, IntentKind::Box, id, REMOVED)?;
    leave(transaction, id, &[], "the last box on it was removed")
}

/// Notes that the box `id` stands on none but the bases `kept`; each that it was the last to leave is to be removed.
fn leave(transaction: &Transaction<'_>, id: &str, kept: &[String], why: &str) -> TransactionResult<()> {
    let mut statement = transaction.prepare_cached(
        "SELECT base, EXISTS (SELECT 1 FROM base_users AS other WHERE other.base = mine.base AND other.box <> ?1)
         FROM base_users AS mine WHERE box = ?1",
    )?;
    let used: Vec<(String, bool)> =
        statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    for (base, has_others) in used.into_iter().filter(|(base, _)| !kept.contains(base)) {
        if !has_others {
            write_intent(transaction, IntentKind::Base, &base, why)?;
        }
        transaction.execute("DELETE FROM base_users WHERE base = ?1 AND box = ?2", [base.as_str(), id])?;
    }
    Ok(())
}

fn write_intent(
    transaction: &Transaction<'_>,
    kind: IntentKind,
    id: &str,
    why: &str,
) -> TransactionResult<()> {
    let values = params![column(kind), id, Timestamp::now().as_millisecond(), why];
    transaction.execute("INSERT OR REPLACE INTO intents VALUES (?1, ?2, ?3, ?4)", values)?;
    Ok(())
}

fn use_base(transaction: &Transaction<'_>, base: &str, id: &str) -> TransactionResult<()> {
    transaction.execute("INSERT OR IGNORE INTO base_users VALUES (?1, ?2)", [base, id])?;
    Ok(())
}

#[cfg(test)]
#[path = "intents_tests.rs"]
mod tests;
