//! Catalogues that records do not have to be written for.

use std::time::SystemTime;

use boxlite_storage::gc::{BlobPin, BoxPin, Catalog, ImagePin, LayerUser};
use boxlite_types::Result;

/// Boxes alone, by number: `name` says the id and the disk image's digest of each. Nothing is kept in memory.
pub(crate) struct NumberedBoxes {
    pub(crate) boxes: usize,
    pub(crate) name: fn(usize) -> (String, String),
}

impl NumberedBoxes {
    /// No record at all, so that nothing but leases and overlays protects an image.
    #[allow(dead_code, reason = "the bench, which shares this file, has records")]
    pub(crate) fn none() -> Self {
        Self { boxes: 0, name: |_| unreachable!("there are no boxes") }
    }
}

impl Catalog for NumberedBoxes {
    fn boxes(&self, visit: &mut dyn FnMut(BoxPin<'_>)) -> Result<()> {
        for index in 0..self.boxes {
            let (id, digest) = (self.name)(index);
            visit(BoxPin { id: &id, image: "sha256:0", disk_digest: &digest });
        }
        Ok(())
    }
    fn images(&self, _: &mut dyn FnMut(ImagePin<'_>)) -> Result<()> {
        Ok(())
    }
    fn blobs(&self, _: &mut dyn FnMut(BlobPin<'_>)) -> Result<()> {
        Ok(())
    }
    fn layer_users(&self, _: &str) -> Result<Option<Vec<LayerUser>>> {
        Ok(None)
    }
    fn blob_is_referenced(&self, _: &str) -> Result<bool> {
        Ok(false)
    }
    fn has_box(&self, _: &str) -> Result<bool> {
        Ok(self.boxes > 0)
    }
    fn forget_image(&self, _: &str, _: SystemTime) -> Result<bool> {
        Ok(false)
    }
}
