//! The database's knowledge of layers and deltas.

use std::sync::atomic::Ordering;

use boxlite_types::{Digest, Result};
use rusqlite::{OptionalExtension, params};

use super::Store;
use super::schema::{DELTAS, meta};

/// Made with the first size, and not with the other tables: builds before there were deltas know nothing of it.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS layer_sizes (
    diff_id TEXT PRIMARY KEY,
    bytes   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

impl Store {
    /// The uncompressed sizes of layers in bytes, by their `diff_id`, as far as they were counted.
    pub(crate) fn layer_sizes(&self, diff_ids: &[Digest]) -> Result<Vec<Option<u64>>> {
        self.read(|transaction| {
            let table = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'layer_sizes')";
            if !transaction.prepare_cached(table)?.query_row([], |row| row.get::<_, bool>(0))? {
                return Ok(vec![None; diff_ids.len()]);
            }
            let mut query = transaction.prepare_cached("SELECT bytes FROM layer_sizes WHERE diff_id = ?1")?;
            let mut sizes = Vec::new();
            for diff_id in diff_ids {
                let found: Option<i64> = query.query_row([diff_id.hex()], |row| row.get(0)).optional()?;
                sizes.push(found.map(|bytes| bytes as u64));
            }
            Ok(sizes)
        })
    }

    /// Remembers the uncompressed sizes of layers.
    pub(crate) fn note_layer_sizes(&self, sizes: &[(Digest, u64)]) -> Result<()> {
        self.write(|transaction| {
            transaction.execute_batch(TABLE)?;
            let mut insert =
                transaction.prepare_cached("INSERT OR REPLACE INTO layer_sizes VALUES (?1, ?2)")?;
            for (diff_id, bytes) in sizes {
                insert.execute(params![diff_id.hex(), *bytes as i64])?;
            }
            Ok(())
        })
    }

    /// Notes that the home has deltas from now on, so that no build opens it that would not find what they stand on.
    pub(crate) fn allow_deltas(&self) -> Result<()> {
        if self.has_deltas.load(Ordering::Acquire) {
            return Ok(());
        }
        let features = |connection: &rusqlite::Connection| meta(connection, "incompatible_features");
        // Another process may have been first.
        if self.read(|transaction| Ok(features(transaction)?))?.is_none_or(|found| found != DELTAS) {
            self.write(|transaction| {
                let update = "INSERT OR REPLACE INTO meta VALUES ('incompatible_features', ?1)";
                transaction.execute(update, [DELTAS])?;
                Ok(())
            })?;
        }
        self.has_deltas.store(true, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use boxlite_types::ErrorKind;

    use super::*;

    /// Mutation tried: `allow_deltas` without its update; the build without deltas would open the home.
    #[test]
    fn a_home_with_deltas_is_closed_to_builds_that_do_not_know_them() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("boxlite.db");
        let store = Store::open(&path).unwrap();
        let features = || store.read(|transaction| Ok(meta(transaction, "incompatible_features")?)).unwrap();
        assert_eq!(features().as_deref(), Some(""));
        for _ in 0..2 {
            store.allow_deltas().unwrap();
            assert_eq!(features().as_deref(), Some(DELTAS));
        }
        Store::open(&path).unwrap();
        let sql = "UPDATE meta SET value = 'deltas,more' WHERE key = 'incompatible_features'";
        store.write(|transaction| Ok(transaction.execute(sql, [])?)).unwrap();
        assert_eq!(Store::open(&path).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn counted_sizes_are_remembered() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::open(&scratch.path().join("boxlite.db")).unwrap();
        let [one, two] = [b"one", b"two"].map(|name| Digest::of(name));
        assert_eq!(store.layer_sizes(&[one, two]).unwrap(), [None, None]);
        store.note_layer_sizes(&[(one, 10)]).unwrap();
        store.note_layer_sizes(&[(one, 10)]).unwrap();
        assert_eq!(store.layer_sizes(&[two, one]).unwrap(), [None, Some(10)]);
    }
}
