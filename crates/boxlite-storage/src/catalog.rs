//! The questions that gc asks the database.

use std::time::SystemTime;

use boxlite_types::Result;

/// The subject of an intent, which is the durable decision to remove something that cannot be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IntentKind {
    /// The directory of a box, by the box's id.
    Box,
    /// An immutable base, by its file name.
    Base,
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
    /// When it was last used, or pulled.
    pub last_used: SystemTime,
}

/// An intent: a decision to remove data that cannot be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent<'a> {
    /// What it is about.
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
    /// Visits every image.
    fn images(&self, visit: &mut dyn FnMut(ImagePin<'_>)) -> Result<()>;
    /// Visits every pair of an image's manifest digest and a blob (its name: 64 hex digits) it refers to.
    fn blobs(&self, visit: &mut dyn FnMut(&str, &str)) -> Result<()>;
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
