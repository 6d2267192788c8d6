//! Blobs, and the images that refer to them.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use boxlite_home::{Home, durable};
use boxlite_types::{Digest, Doing, Error, Result};

use super::Caches;
use crate::catalog::Catalog;
use crate::disk::qcow2::chain::nanoseconds;
use crate::image;

/// A blob; times in nanoseconds since 1970.
#[derive(Debug)]
pub(in crate::gc) struct BlobFile {
    pub(in crate::gc) name: String,
    pub(in crate::gc) allocated: u64,
    pub(in crate::gc) modified: i64,
    /// The images that refer to it: places in [`Caches::images`], ascending.
    pub(in crate::gc) users: Vec<usize>,
}

/// An image in the catalogue; times in nanoseconds since 1970.
#[derive(Debug)]
pub(in crate::gc) struct CatalogImage {
    pub(in crate::gc) digest: String,
    pub(in crate::gc) reference: Option<String>,
    pub(in crate::gc) last_used: i64,
    /// How many boxes use it.
    pub(in crate::gc) boxes: u64,
    /// A name under which a registry has it.
    pub(in crate::gc) registry: Option<String>,
    /// All of its names were given to it here.
    pub(in crate::gc) only_here: bool,
    /// Its layers, lowest first.
    pub(in crate::gc) layers: Vec<ImageLayer>,
}

/// A layer of an image in the catalogue.
#[derive(Debug)]
pub(in crate::gc) struct ImageLayer {
    /// The name of its blob.
    pub(in crate::gc) blob: String,
    pub(in crate::gc) diff_id: Digest,
}

impl CatalogImage {
    /// Names its disk image.
    pub(in crate::gc) fn disk_digest(&self, virtual_size: u64) -> String {
        let diff_ids: Vec<Digest> = self.layers.iter().map(|layer| layer.diff_id).collect();
        image::disk_digest(&diff_ids, virtual_size)
    }
}

impl Caches {
    /// Reads the catalogue and lists the blobs. Where either cannot be read, there is no blob that may be removed.
    pub(super) fn list_blobs(&mut self, home: &Home, catalog: &dyn Catalog) {
        let users = match read_catalogue(&mut self.images, catalog) {
            Ok(users) => users,
            Err(error) => {
                self.images.clear();
                return self.trouble(&home.database(), error);
            }
        };
        match list(&home.blobs()) {
            Ok(blobs) => self.blobs = blobs,
            Err(error) => return self.trouble(&home.blobs(), error),
        }
        for blob in &mut self.blobs {
            blob.users = users.get(&blob.name).cloned().unwrap_or_default();
            blob.users.sort_unstable();
            blob.users.dedup();
        }
    }
}

/// Reads the images, least recently used first, and which blobs they refer to.
fn read_catalogue(
    images: &mut Vec<CatalogImage>,
    catalog: &dyn Catalog,
) -> Result<HashMap<String, Vec<usize>>> {
    catalog.images(&mut |pin| {
        let since = pin.last_used.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        images.push(CatalogImage {
            digest: pin.digest.to_owned(),
            reference: pin.reference.map(ToOwned::to_owned),
            last_used: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            boxes: 0,
            registry: pin.registry.map(ToOwned::to_owned),
            only_here: pin.only_here,
            layers: Vec::new(),
        });
    })?;
    images.sort_by(|one, other| (one.last_used, &one.digest).cmp(&(other.last_used, &other.digest)));
    let mut places: HashMap<String, usize> =
        images.iter().enumerate().map(|(place, image)| (image.digest.clone(), place)).collect();
    catalog.boxes(&mut |pin| {
        if let Some(place) = places.get(pin.image) {
            images[*place].boxes += 1;
        }
    })?;
    let mut users: HashMap<String, Vec<usize>> = HashMap::new();
    let mut later = images.len();
    catalog.blobs(&mut |pin| {
        let place = *places.entry(pin.image.to_owned()).or_insert_with(|| {
            // Recorded since the images were read: nothing that it needs may be removed.
            later += 1;
            later - 1
        });
        users.entry(pin.blob.to_owned()).or_default().push(place);
        if let (Some(image), Some(diff_id)) = (images.get_mut(place), pin.diff_id) {
            image.layers.push(ImageLayer { blob: pin.blob.to_owned(), diff_id });
        }
    })?;
    Ok(users)
}

/// The blobs: regular files whose names are digests. Everything else there is not gc's business.
fn list(directory: &Path) -> Result<Vec<BlobFile>> {
    let doing = "listing";
    let mut blobs = Vec::new();
    for entry in std::fs::read_dir(directory).doing(doing, directory)? {
        let entry = entry.doing(doing, directory)?;
        let Some(name) = entry.file_name().to_str().map(ToOwned::to_owned) else { continue };
        if !crate::disk::is_digest(name.as_bytes()) {
            continue;
        }
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("examining", entry.path(), error)),
        };
        if metadata.is_file() {
            let modified = nanoseconds(metadata.mtime(), metadata.mtime_nsec());
            let allocated = durable::allocated(&metadata);
            blobs.push(BlobFile { name, allocated, modified, users: Vec::new() });
        }
    }
    blobs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(blobs)
}
