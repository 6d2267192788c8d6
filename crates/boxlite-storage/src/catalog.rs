//! The questions that gc asks the database and registries.

use std::collections::BTreeSet;
use std::time::SystemTime;

use boxlite_types::{Digest, Result};

/// The subject of an intent, which is the durable decision to remove something that cannot be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IntentKind {
    /// The directory of a box, by the box's id.
    Box,
    /// An immutable base, by its file name.
    Base,
    /// A named volume, by its id, which no later volume of that name has.
    Volume,
}

/// The files and the image that a box record pins.
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
    /// A name under which a registry has it, if it came from one.
    pub registry: Option<&'a str>,
    /// Whether all of its names were given to it here, so that it cannot be had again from where it came.
    pub only_here: bool,
    /// When it was last used, or pulled.
    pub last_used: SystemTime,
}

/// A blob that an image refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobPin<'a> {
    /// Manifest digest of the image.
    pub image: &'a str,
    /// The blob's name: 64 hex digits.
    pub blob: &'a str,
    /// Of a layer: the digest of its uncompressed bytes.
    pub diff_id: Option<Digest>,
}

/// An image that has a blob as a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerUser {
    /// Whether it came from a registry, from which it can be had again.
    pub of_registry: bool,
    /// Digests of its uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// An intent: a decision to remove data that cannot be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent<'a> {
    /// The kind of change intended.
    pub kind: IntentKind,
    /// The box's id or the base's file name.
    pub id: &'a str,
    /// When it was written, in milliseconds since 1970.
    pub written_ms: i64,
}

/// Notes about what is gone.
#[derive(Debug, Default)]
pub struct StaleNotes {
    /// Kind, name, and when it was written, in milliseconds since 1970.
    pub intents: Vec<(IntentKind, String, i64)>,
    /// File names of bases that boxes are noted to have been put on.
    pub used_bases: Vec<String>,
}

impl StaleNotes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.intents.is_empty() && self.used_bases.is_empty()
    }
}

/// The records that gc takes its roots from. Each call sees one committed state.
pub trait Catalog: Send + Sync {
    /// Visits every box record.
    fn boxes(&self, visit: &mut dyn FnMut(BoxPin<'_>)) -> Result<()>;
    /// Visits every snapshot: the id of its box, and the file name of the base that it is kept in.
    fn snapshots(&self, _visit: &mut dyn FnMut(&str, &str)) -> Result<()> {
        Ok(())
    }
    /// Visits every image.
    fn images(&self, visit: &mut dyn FnMut(ImagePin<'_>)) -> Result<()>;
    /// Visits every blob of every image; an image's layers come lowest first.
    fn blobs(&self, visit: &mut dyn FnMut(BlobPin<'_>)) -> Result<()>;
    /// The images that have the blob (its name: 64 hex digits) as a layer now; `None` when one has it as something else.
    fn layer_users(&self, blob: &str) -> Result<Option<Vec<LayerUser>>>;
    /// Whether an image refers to the blob now.
    fn blob_is_referenced(&self, blob: &str) -> Result<bool>;
    /// Whether there is a record of the box now.
    fn has_box(&self, id: &str) -> Result<bool>;
    /// Visits what is meant to be removed.
    fn intents(&self, _visit: &mut dyn FnMut(Intent<'_>)) -> Result<()> {
        Ok(())
    }
    /// Writes down that what `id` names is to be removed because a person said so.
    fn intend(&self, _kind: IntentKind, _id: &str) -> Result<()> {
        Ok(())
    }
    /// Drops the intent for what is gone.
    fn drop_intent(&self, _kind: IntentKind, _id: &str) -> Result<()> {
        Ok(())
    }
    /// Visits the name of each base that a box is noted to have been put on.
    fn used_bases(&self, _visit: &mut dyn FnMut(&str)) -> Result<()> {
        Ok(())
    }
    /// Drops notes about what is gone, in one transaction; an intent that was written anew since stays.
    fn drop_stale(&self, _stale: &StaleNotes) -> Result<()> {
        Ok(())
    }
    /// Why these records cannot be believed about this home, if that is so.
    fn stranger(&self) -> Result<Option<String>> {
        Ok(None)
    }
    /// Takes the image away unless a box uses it or it was used after `idle_since`; says whether it did.
    fn forget_image(&self, digest: &str, idle_since: SystemTime) -> Result<bool>;
}

/// Asks registries whether they still have images.
pub trait AskRegistries: Send + Sync {
    /// The manifest digests of those of `images` (name and manifest digest) that their registries say to have now. Blocks,
    /// and not for long: no answer counts as no.
    fn having(&self, images: &[(String, String)]) -> BTreeSet<String>;
}
