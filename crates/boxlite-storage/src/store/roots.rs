//! The records as garbage collection asks for them.

use std::time::{Duration, SystemTime};

use boxlite_types::{Digest, Result};

use super::Store;
use super::names::{of_registry, only_here};
use crate::catalog::{BlobPin, BoxPin, Catalog, ImagePin, Intent, IntentKind, LayerUser, StaleNotes};

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

    fn snapshots(&self, visit: &mut dyn FnMut(&str, &str)) -> Result<()> {
        self.read(|transaction| {
            // An unreadable part of a damaged record needs no pin: no intent lets its bases go.
            let query = "SELECT boxes.id, json_extract(snapshot.value, '$.base')
                 FROM boxes, json_each(CASE WHEN json_valid(record) THEN record ELSE '{}' END, '$.snapshots') AS snapshot
                 WHERE json_extract(snapshot.value, '$.base') IS NOT NULL";
            let mut statement = transaction.prepare_cached(query)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
                visit(text(0)?, text(1)?);
            }
            Ok(())
        })
    }

    fn images(&self, visit: &mut dyn FnMut(ImagePin<'_>)) -> Result<()> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(&format!(
                "SELECT digest, (SELECT min(reference) FROM tags WHERE image = digest), max(last_used_at, pulled_at),
                 (SELECT min(reference) FROM tags WHERE image = digest AND {}), {}
                 FROM images ORDER BY digest",
                of_registry(transaction)?,
                only_here(transaction)?
            ))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
                let (reference, registry): (Option<String>, Option<String>) = (row.get(1)?, row.get(3)?);
                visit(ImagePin {
                    digest: text(0)?,
                    reference: reference.as_deref(),
                    registry: registry.as_deref(),
                    last_used: time(row.get(2)?),
                    only_here: row.get(4)?,
                });
            }
            Ok(())
        })
    }

    fn blobs(&self, visit: &mut dyn FnMut(BlobPin<'_>)) -> Result<()> {
        self.read(|transaction| {
            // Without an index, so that a damaged page of the table is never passed over.
            let query = "SELECT image, digest, diff_id FROM image_blobs ORDER BY +image, +ordinal";
            let mut statement = transaction.prepare_cached(query)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
                let diff_id: Option<String> = row.get(2)?;
                let diff_id = diff_id.map(|text| text.parse()).transpose()?;
                visit(BlobPin { image: text(0)?, blob: hex(text(1)?), diff_id });
            }
            Ok(())
        })
    }

    fn layer_users(&self, blob: &str) -> Result<Option<Vec<LayerUser>>> {
        self.read(|transaction| {
            let digests = "digest IN (?1, 'sha256:' || ?1)";
            let other = format!("SELECT EXISTS (SELECT 1 FROM image_blobs WHERE {digests} AND role != 'layer')");
            if transaction.prepare_cached(&other)?.query_row([blob], |row| row.get::<_, bool>(0))? {
                return Ok(None);
            }
            let users = format!(
                "SELECT DISTINCT image, EXISTS (SELECT 1 FROM tags WHERE tags.image = image_blobs.image AND {})
                 FROM image_blobs WHERE {digests}",
                of_registry(transaction)?
            );
            let layers = "SELECT diff_id FROM image_blobs WHERE image = ?1 AND role = 'layer' ORDER BY ordinal";
            let (mut users, mut layers) =
                (transaction.prepare_cached(&users)?, transaction.prepare_cached(layers)?);
            let mut found = Vec::new();
            let mut rows = users.query([blob])?;
            while let Some(row) = rows.next()? {
                let image: String = row.get(0)?;
                let mut diff_ids: Vec<Digest> = Vec::new();
                let mut of_image = layers.query([image])?;
                while let Some(layer) = of_image.next()? {
                    diff_ids.push(layer.get::<_, String>(0)?.parse()?);
                }
                found.push(LayerUser { of_registry: row.get(1)?, diff_ids });
            }
            Ok(Some(found))
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
