//! The catalogue of images in the database.

use boxlite_types::{Digest, Error, Image, Layer, Removal, Result};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::Store;
use super::failure::TransactionResult;
use super::names::{NameOrigin, is_local_name, name_image};
use crate::reference::Reference;

/// A blob that an image refers to besides its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Document {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
}

impl Store {
    /// Records an image and lets `references` name it from now on, even if they named others before.
    ///
    /// The caller holds a lease on each of its blobs. An image that is recorded already keeps its other names.
    pub(crate) fn insert_image(
        &self,
        image: &Image,
        manifest: Document,
        config: Document,
        origin: NameOrigin,
    ) -> Result<()> {
        self.write(|transaction| {
            let digest = image.digest.to_string();
            transaction.execute(
                "INSERT INTO images VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (digest) DO UPDATE SET pulled_at = ?4, last_used_at = ?5",
                params![
                    digest,
                    encode(&image.config, "config", image.digest)?,
                    encode(&image.platform, "platform", image.digest)?,
                    image.pulled_at.as_millisecond(),
                    image.last_used_at.as_millisecond(),
                ],
            )?;
            transaction.execute("DELETE FROM image_blobs WHERE image = ?1", [&digest])?;
            let mut insert =
                transaction.prepare_cached("INSERT INTO image_blobs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
            for (ordinal, layer) in image.layers.iter().enumerate() {
                insert.execute(params![
                    digest,
                    ordinal as i64,
                    layer.digest.to_string(),
                    "layer",
                    layer.media_type,
                    layer.length as i64,
                    layer.diff_id.to_string(),
                ])?;
            }
            for (ordinal, role, document) in [(-2, "manifest", manifest), (-1, "config", config)] {
                let blob = document.digest.to_string();
                insert.execute(params![
                    digest,
                    ordinal,
                    blob,
                    role,
                    "",
                    document.length as i64,
                    None::<String>
                ])?;
            }
            for reference in &image.references {
                name_image(transaction, reference, &digest, origin)?;
            }
            Ok(())
        })
    }

    /// Whether the image is recorded as it is here, under each of its names, and found under them rather than given them
    /// here. When it was pulled and used does not count.
    pub(crate) fn has_image(&self, image: &Image) -> Result<bool> {
        self.read(|transaction| {
            let recorded = select(transaction, "WHERE digest = ?1", &[&image.digest.to_string()])?;
            let same = recorded.first().is_some_and(|recorded| {
                recorded.config == image.config
                    && recorded.platform == image.platform
                    && recorded.layers == image.layers
                    && image.references.iter().all(|name| recorded.references.contains(name))
            });
            for name in image.references.iter().filter(|_| same) {
                if is_local_name(transaction, name)? {
                    return Ok(false);
                }
            }
            Ok(same)
        })
    }

    /// All images, the one pulled last first.
    pub fn images(&self) -> Result<Vec<Image>> {
        self.read(|transaction| select(transaction, "ORDER BY pulled_at DESC, digest", &[]))
    }

    /// The image with this manifest digest.
    pub(crate) fn image(&self, digest: Digest) -> Result<Option<Image>> {
        let found =
            self.read(|transaction| select(transaction, "WHERE digest = ?1", &[&digest.to_string()]))?;
        Ok(found.into_iter().next())
    }

    /// The manifest and the config of an image, as they are stored.
    ///
    /// # Errors
    /// `NotFound` when it is gone.
    pub(crate) fn image_documents(&self, digest: Digest) -> Result<(Document, Document)> {
        self.read(|transaction| {
            let mut query = transaction.prepare_cached(
                "SELECT digest, length FROM image_blobs WHERE image = ?1 AND role = ?2 LIMIT 1",
            )?;
            let image = digest.to_string();
            let mut document = |role: &str| -> TransactionResult<Document> {
                let row = query.query_row([image.as_str(), role], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
                });
                let Some((blob, length)) = row.optional()? else {
                    return Err(Error::not_found(format!("image {digest} was removed meanwhile")).into());
                };
                Ok(Document { digest: digest_in(&blob, &image)?, length: length as u64 })
            };
            Ok((document("manifest")?, document("config")?))
        })
    }

    /// The image that the canonical `reference` names.
    pub(crate) fn image_named(&self, reference: &str) -> Result<Option<Image>> {
        let clause = "WHERE digest = (SELECT image FROM tags WHERE reference = ?1)";
        Ok(self.read(|transaction| select(transaction, clause, &[&reference]))?.into_iter().next())
    }

    /// At most two of the images whose digest begins with the hex digits `prefix`.
    pub(crate) fn images_beginning(&self, prefix: &str) -> Result<Vec<Image>> {
        let whole = format!("sha256:{prefix}");
        let clause = "WHERE substr(digest, 1, length(?1)) = ?1 ORDER BY digest LIMIT 2";
        self.read(|transaction| select(transaction, clause, &[&whole]))
    }

    /// Removes the canonical `reference`, or all names, from the image, and the image itself with its last name.
    ///
    /// # Errors
    /// `NotFound` when it is gone already. Without `force`: `Conflict` when a box uses an image that would be removed,
    /// or when `reference` is absent and the image has several names.
    pub(crate) fn remove_image(
        &self,
        digest: Digest,
        reference: Option<&str>,
        force: bool,
    ) -> Result<Vec<Removal>> {
        self.write(|transaction| {
            let Some(image) = select(transaction, "WHERE digest = ?1", &[&digest.to_string()])?.pop() else {
                return Err(Error::not_found(format!("image {digest} was removed meanwhile")).into());
            };
            let untagged = |name: &String| Removal::Untagged(familiar(name));
            if let Some(reference) = reference
                && image.references.iter().any(|name| name != reference)
            {
                transaction.execute("DELETE FROM tags WHERE reference = ?1", [reference])?;
                return Ok(vec![untagged(&reference.to_owned())]);
            }
            if image.references.len() > 1 && !force {
                let names: Vec<String> = image.references.iter().map(|name| familiar(name)).collect();
                return Err(Error::conflict(format!(
                    "image {} has several names ({}); remove them one by one, or all of them with --force",
                    image.short_id(),
                    names.join(", ")
                ))
                .into());
            }
            if let Some((id, name)) = user_of(transaction, digest)?
                && !force
            {
                return Err(Error::conflict(format!(
                    "image {} is used by box {name} ({}); remove the box first, or the image with --force",
                    image.short_id(),
                    id.get(..12).unwrap_or(&id),
                ))
                .into());
            }
            transaction.execute("DELETE FROM images WHERE digest = ?1", [digest.to_string()])?;
            let names = image.references.iter().map(untagged);
            Ok(names.chain([Removal::Deleted(digest)]).collect())
        })
    }
}

fn familiar(canonical: &str) -> String {
    canonical.parse().map_or_else(|_| canonical.to_owned(), |reference: Reference| reference.familiar())
}

fn user_of(transaction: &Transaction<'_>, digest: Digest) -> TransactionResult<Option<(String, String)>> {
    let mut statement = transaction.prepare_cached("SELECT id, name FROM boxes WHERE image = ?1 LIMIT 1")?;
    let found = statement.query_row([digest.to_string()], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(found.optional()?)
}

fn select(
    transaction: &Transaction<'_>,
    clause: &str,
    parameters: &[&dyn rusqlite::ToSql],
) -> TransactionResult<Vec<Image>> {
    let columns = "digest, config, platform, pulled_at, last_used_at";
    let mut statement = transaction.prepare_cached(&format!("SELECT {columns} FROM images {clause}"))?;
    let mut rows = statement.query(parameters)?;
    let mut images = Vec::new();
    while let Some(row) = rows.next()? {
        let digest: String = row.get(0)?;
        let names =
            strings(transaction, "SELECT reference FROM tags WHERE image = ?1 ORDER BY reference", &digest)?;
        let layers = layers(transaction, &digest)?;
        images.push(decode(row, &digest, names, layers)?);
    }
    Ok(images)
}

fn strings(transaction: &Transaction<'_>, query: &str, digest: &str) -> TransactionResult<Vec<String>> {
    let mut statement = transaction.prepare_cached(query)?;
    let rows = statement.query_map([digest], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn layers(transaction: &Transaction<'_>, image: &str) -> TransactionResult<Vec<Layer>> {
    let mut statement = transaction.prepare_cached(
        "SELECT digest, diff_id, media_type, length FROM image_blobs
         WHERE image = ?1 AND role = 'layer' ORDER BY ordinal",
    )?;
    let mut rows = statement.query([image])?;
    let mut layers = Vec::new();
    while let Some(row) = rows.next()? {
        layers.push(Layer {
            digest: digest_in(&row.get::<_, String>(0)?, image)?,
            diff_id: digest_in(&row.get::<_, String>(1)?, image)?,
            media_type: row.get(2)?,
            length: row.get::<_, i64>(3)? as u64,
        });
    }
    Ok(layers)
}

fn decode(
    row: &Row<'_>,
    digest: &str,
    references: Vec<String>,
    layers: Vec<Layer>,
) -> TransactionResult<Image> {
    let json = |text: &str, source: serde_json::Error| {
        Error::corrupt(format!("the record of image {digest} cannot be read ({text})")).because(source)
    };
    let (config, platform): (String, String) = (row.get(1)?, row.get(2)?);
    Ok(Image {
        digest: digest_in(digest, digest)?,
        references,
        platform: serde_json::from_str(&platform).map_err(|source| json(&platform, source))?,
        config: serde_json::from_str(&config).map_err(|source| json("its config", source))?,
        layers,
        pulled_at: time(row.get(3)?),
        last_used_at: time(row.get(4)?),
    })
}

fn digest_in(text: &str, image: &str) -> Result<Digest> {
    text.parse().map_err(|error: Error| {
        Error::corrupt(format!("the record of image {image} holds a malformed digest")).because(error)
    })
}

fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or_default()
}

fn encode(value: &impl serde::Serialize, what: &str, digest: Digest) -> Result<String> {
    serde_json::to_string(value).map_err(|source| {
        Error::bug(format!("the {what} of image {digest} cannot be written down: {source}"))
    })
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
