//! The records as garbage collection asks for them.

use std::time::{Duration, SystemTime};

use boxlite_types::Result;

use super::Store;
use crate::catalog::{BoxPin, Catalog, ImagePin, Intent, IntentKind, StaleNotes};

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

fn time(milliseconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds.max(0) as u64)
}

impl Catalog for Store {
    fn boxes(&self, visit: &mut dyn FnMut(BoxPin<'_>)) -> Result<()> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached("SELECT id, image, disk_digest FROM boxes")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
                visit(BoxPin { id: text(0)?, image: text(1)?, disk_digest: hex(text(2)?) });
            }
            Ok(())
        })
    }

    fn images(&self, visit: &mut dyn FnMut(ImagePin<'_>)) -> Result<()> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT digest, (SELECT min(reference) FROM tags WHERE image = digest), max(last_used_at, pulled_at)
                 FROM images ORDER BY digest",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
                let reference: Option<String> = row.get(1)?;
                visit(ImagePin {
                    digest: text(0)?,
                    reference: reference.as_deref(),
                    last_used: time(row.get(2)?),
                });
            }
            Ok(())
        })
    }

    fn blobs(&self, visit: &mut dyn FnMut(&str, &str)) -> Result<()> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached("SELECT image, digest FROM image_blobs")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
                visit(text(0)?, hex(text(1)?));
            }
            Ok(())
        })
    }

    fn blob_is_referenced(&self, blob: &str) -> Result<bool> {
        self.read(|transaction| {
            let query = "SELECT EXISTS (SELECT 1 FROM image_blobs WHERE digest IN (?1, 'sha256:' || ?1))";
            Ok(transaction.prepare_cached(query)?.query_row([blob], |row| row.get(0))?)
        })
    }

    fn has_box(&self, id: &str) -> Result<bool> {
        self.read(|transaction| {
            let query = "SELECT EXISTS (SELECT 1 FROM boxes WHERE id = ?1)";
            Ok(transaction.prepare_cached(query)?.query_row([id], |row| row.get(0))?)
        })
    }

    fn intents(&self, visit: &mut dyn FnMut(Intent<'_>)) -> Result<()> {
        self.visit_intents(visit)
    }

    fn intend(&self, kind: IntentKind, id: &str) -> Result<()> {
        Self::intend(self, kind, id, "a person purged it")
    }

    fn drop_intent(&self, kind: IntentKind, id: &str) -> Result<()> {
        Self::drop_intent(self, kind, id)
    }

    fn used_bases(&self, visit: &mut dyn FnMut(&str)) -> Result<()> {
        self.visit_used_bases(visit)
    }

    fn drop_stale(&self, stale: &StaleNotes) -> Result<()> {
        Self::drop_stale(self, stale)
    }

    fn stranger(&self) -> Result<Option<String>> {
        Self::stranger(self)
    }

    fn forget_image(&self, digest: &str, idle_since: SystemTime) -> Result<bool> {
        let idle_since = idle_since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.write(|transaction| {
            let forgotten = transaction.execute(
                "DELETE FROM images WHERE digest = ?1 AND max(last_used_at, pulled_at) <= ?2
                 AND NOT EXISTS (SELECT 1 FROM boxes WHERE boxes.image = ?1)",
                rusqlite::params![digest, idle_since.as_millis() as i64],
            )?;
            Ok(forgotten > 0)
        })
    }
}
