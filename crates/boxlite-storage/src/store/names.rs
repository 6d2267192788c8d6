//! The names of images, and which of them were given here.
//!
//! A name such as `docker.io/library/web:latest` says where an image would be, not that it is there: an image that was
//! loaded, committed or tagged has such names as well. Those are noted, because what no registry has cannot be fetched
//! again, and gc must know.

use boxlite_types::{Digest, Error, Image, Result};
use rusqlite::Transaction;

use super::Store;
use super::failure::TransactionResult;

/// Where a name of an image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameOrigin {
    /// The image was found under it: in a registry, or among files of this host.
    Source,
    /// As `Source`, for somebody who may not move a name that was given here.
    SourceUnlessGiven,
    /// It was given to the image here.
    Here,
}

/// Made with the first such name: builds from before know nothing of it.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS local_names (
    reference TEXT PRIMARY KEY REFERENCES tags(reference) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
";

impl Store {
    /// Lets the canonical `reference` name the image from now on, even if it named another before.
    ///
    /// # Errors
    /// `NotFound` when the image is gone.
    pub(crate) fn tag_image(&self, digest: Digest, reference: &str) -> Result<Image> {
        let named = self.write(|transaction| {
            let known = "SELECT EXISTS (SELECT 1 FROM images WHERE digest = ?1)";
            let digest = digest.to_string();
            if !transaction.query_row(known, [&digest], |row| row.get::<_, bool>(0))? {
                return Ok(false);
            }
            name_image(transaction, reference, &digest, NameOrigin::Here)?;
            Ok(true)
        })?;
        let gone = || Error::not_found(format!("image {digest} was removed meanwhile"));
        if named { self.image(digest)?.ok_or_else(gone) } else { Err(gone()) }
    }

    /// Notes that a registry has the image under the canonical `reference`, if that still names it.
    pub(crate) fn note_pushed(&self, digest: Digest, reference: &str) -> Result<()> {
        self.write(|transaction| {
            if has_local_names(transaction)? {
                transaction.execute(
                    "DELETE FROM local_names WHERE reference = ?1
                     AND EXISTS (SELECT 1 FROM tags WHERE reference = ?1 AND image = ?2)",
                    [reference, &digest.to_string()],
                )?;
            }
            Ok(())
        })
    }

    /// A name under which a registry has the image, if it came from one.
    pub(crate) fn registry_name(&self, digest: Digest) -> Result<Option<String>> {
        self.read(|transaction| {
            let query =
                format!("SELECT min(reference) FROM tags WHERE image = ?1 AND {}", of_registry(transaction)?);
            Ok(transaction.prepare_cached(&query)?.query_row([digest.to_string()], |row| row.get(0))?)
        })
    }

    /// The names, at any registry, of the images that are made of the blob and were found there.
    pub(crate) fn registry_names_of_blob(&self, blob: Digest) -> Result<Vec<String>> {
        self.read(|transaction| {
            let query = format!(
                "SELECT DISTINCT reference FROM tags JOIN image_blobs ON tags.image = image_blobs.image
                 WHERE image_blobs.digest = ?1 AND {} ORDER BY reference LIMIT 64",
                of_registry(transaction)?
            );
            let mut statement = transaction.prepare_cached(&query)?;
            let rows = statement.query_map([blob.to_string()], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }
}

/// Lets `reference` name the image `digest`. A name under which it was found, and which is given to it once more, stays
/// one under which it was found.
pub(super) fn name_image(
    transaction: &Transaction<'_>,
    reference: &str,
    digest: &str,
    origin: NameOrigin,
) -> TransactionResult<()> {
    let same = "SELECT EXISTS (SELECT 1 FROM tags WHERE reference = ?1 AND image = ?2)";
    if origin == NameOrigin::Here
        && transaction.query_row(same, [reference, digest], |row| row.get::<_, bool>(0))?
    {
        return Ok(());
    }
    if origin == NameOrigin::SourceUnlessGiven && is_given_to_another(transaction, reference, digest)? {
        let message = format!(
            "{reference} is the name of another image, which was given to it here; only the operator may pull over it"
        );
        return Err(Error::conflict(message).into());
    }
    transaction.execute(
        "INSERT INTO tags VALUES (?1, ?2) ON CONFLICT (reference) DO UPDATE SET image = ?2",
        [reference, digest],
    )?;
    match origin {
        NameOrigin::Here => {
            transaction.execute_batch(TABLE)?;
            transaction.execute("INSERT OR IGNORE INTO local_names VALUES (?1)", [reference])?;
        }
        NameOrigin::Source | NameOrigin::SourceUnlessGiven if has_local_names(transaction)? => {
            transaction.execute("DELETE FROM local_names WHERE reference = ?1", [reference])?;
        }
        NameOrigin::Source | NameOrigin::SourceUnlessGiven => {}
    }
    Ok(())
}

/// The condition on a row of `tags` that a registry had the image under that name.
pub(super) fn of_registry(transaction: &Transaction<'_>) -> rusqlite::Result<&'static str> {
    Ok(if has_local_names(transaction)? {
        "reference NOT LIKE 'oci:%' AND reference NOT LIKE 'oci-archive:%' AND reference NOT LIKE 'docker-archive:%'
         AND reference NOT IN (SELECT reference FROM local_names)"
    } else {
        "reference NOT LIKE 'oci:%' AND reference NOT LIKE 'oci-archive:%' AND reference NOT LIKE 'docker-archive:%'"
    })
}

/// The condition on a row of `images` that it has names, all of which were given to it here.
pub(super) fn only_here(transaction: &Transaction<'_>) -> rusqlite::Result<&'static str> {
    Ok(if has_local_names(transaction)? {
        "EXISTS (SELECT 1 FROM tags WHERE image = digest) AND NOT EXISTS (SELECT 1 FROM tags
         WHERE image = digest AND reference NOT IN (SELECT reference FROM local_names))"
    } else {
        "FALSE"
    })
}

fn is_given_to_another(
    transaction: &Transaction<'_>,
    reference: &str,
    digest: &str,
) -> rusqlite::Result<bool> {
    let given = "SELECT EXISTS (SELECT 1 FROM local_names JOIN tags USING (reference)
                 WHERE reference = ?1 AND image != ?2)";
    Ok(has_local_names(transaction)?
        && transaction.query_row(given, [reference, digest], |row| row.get(0))?)
}

/// Whether the name was given to its image here.
pub(super) fn is_local_name(transaction: &Transaction<'_>, reference: &str) -> rusqlite::Result<bool> {
    let given = "SELECT EXISTS (SELECT 1 FROM local_names WHERE reference = ?1)";
    Ok(has_local_names(transaction)? && transaction.query_row(given, [reference], |row| row.get(0))?)
}

fn has_local_names(transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
    let table = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'local_names')";
    transaction.query_row(table, [], |row| row.get(0))
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
