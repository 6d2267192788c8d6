//! What gc asks of the database.

use std::time::{Duration, SystemTime};

use crate::error::Result;
use crate::store::Store;

/// What a box record pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoxPin<'a> {
    /// The box's id, which is the name of its directory.
    pub id: &'a str,
    /// Manifest digest of its image.
    pub image: &'a str,
    /// Digest that names its disk image.
    pub disk_digest: &'a str,
}

/// An image in the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImagePin<'a> {
    /// Manifest digest.
    pub digest: &'a str,
    /// One of its names, if it has any.
    pub reference: Option<&'a str>,
    /// When it was last used, or pulled.
    pub last_used: SystemTime,
}

/// The records that gc takes its roots from. Each call sees one committed state; none writes but the last.
pub trait Catalog: Send + Sync {
    /// Visits every box record.
    fn boxes(&self, visit: &mut dyn FnMut(BoxPin<'_>)) -> Result<()>;
    /// Visits every image.
    fn images(&self, visit: &mut dyn FnMut(ImagePin<'_>)) -> Result<()>;
    /// Visits every pair of an image's manifest digest and a blob (its name: 64 hex digits) it refers to.
    fn blobs(&self, visit: &mut dyn FnMut(&str, &str)) -> Result<()>;
    /// Whether an image refers to the blob now.
    fn blob_is_referenced(&self, blob: &str) -> Result<bool>;
    /// Whether there is a record of the box now.
    fn has_box(&self, id: &str) -> Result<bool>;
    /// Takes the image away unless a box uses it or it was used after `idle_since`; says whether it did.
    fn forget_image(&self, digest: &str, idle_since: SystemTime) -> Result<bool>;
}

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
