//! Images: named by references, pulled from their sources, kept as blobs and described in the catalogue.

mod blobs;
mod changes;
mod commit;
mod history;
mod ingest;
mod load;
pub(crate) mod manifest;
mod pull;
mod push;
mod save;
mod source;
mod space;

use std::path::PathBuf;
use std::sync::Arc;

use boxlite_ext4::{BUILDER_VERSION, SEGMENT_RULE};
use boxlite_home::admission::Collector;
use boxlite_home::lease::Leased;
use boxlite_home::settings::Settings;
use boxlite_home::{Home, blocking};
use boxlite_types::{Digest, Error, Image, Layer, Login, Logout, Removal, Result};
use sha2::{Digest as _, Sha256};

use crate::disk::image_chain;
use crate::reference::{Reference, RegistryReference};
use crate::store::Store;

pub(crate) use blobs::{Blobs, remove as remove_blob};
pub use changes::BoxTree;
pub use commit::{CommitBase, CommitPlan, Comparison, whole_selection, write_archive};
pub use load::ImageArchive;
pub(crate) use manifest::LAYER_LIMIT;
pub(crate) use pull::{NewNames, PullJob, ResolvedImage};
pub(crate) use push::PARALLEL_BLOBS;
pub use save::SavedImages;
use source::RegistryAccess;
pub(crate) use source::{ImageSource, OutgoingBlob, Referrer, Repository};
pub use source::{RegistryPolicy, RegistryProbe};
pub(crate) use space::WriteSpace;

/// The images of one home. Cheap to clone; many may work on one home at once, in any number of processes.
#[derive(Clone)]
pub struct Images {
    home: Home,
    store: Store,
    blobs: Blobs,
    settings: Arc<Settings>,
    collector: Arc<dyn Collector>,
    registries: RegistryAccess,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("home", &self.home).finish_non_exhaustive()
    }
}

impl Images {
    /// The images of `home`, recorded in `store`; pulls that find space short ask `collector` to free some.
    pub fn new(home: Home, store: Store, settings: Settings, collector: Arc<dyn Collector>) -> Self {
        let mirrors = Arc::new(settings.registry_mirrors.value.clone());
        let registries = RegistryAccess { mirrors, ..RegistryAccess::default() };
        let (blobs, settings) = (Blobs::new(home.clone()), Arc::new(settings));
        Self { home, store, blobs, settings, collector, registries }
    }

    /// Takes credentials for registries from this file in the form of Docker's `config.json`, if it exists.
    #[must_use]
    pub fn with_registry_config(self, file: Option<PathBuf>) -> Self {
        let registries = RegistryAccess { config: file.map(Arc::from), ..self.registries };
        Self { registries, ..self }
    }

    /// Takes them from these files of the same form where the first has none.
    #[must_use]
    pub fn with_further_registry_configs(self, files: Vec<PathBuf>) -> Self {
        let registries = RegistryAccess { further: files.into(), ..self.registries };
        Self { registries, ..self }
    }

    /// Checks credentials against their registry and keeps them in the registry configuration, which is returned.
    ///
    /// # Errors
    /// `Denied` when the registry refuses them, `Unavailable` when it cannot be reached; nothing is kept then.
    pub async fn login(&self, login: &Login) -> Result<PathBuf> {
        self.registries.login(login).await
    }

    /// Forgets the credentials for a registry, and leaves those that other programs keep.
    pub async fn logout(&self, registry: &str) -> Result<Logout> {
        self.registries.logout(registry).await
    }

    /// Pulls from the registries that `policy` allows; without it, from any.
    #[must_use]
    pub fn with_registry_policy(self, policy: RegistryPolicy) -> Self {
        let registries = RegistryAccess { policy, ..self.registries };
        Self { registries, ..self }
    }

    /// All images, the one pulled last first.
    pub async fn list(&self) -> Result<Vec<Image>> {
        let store = self.store.clone();
        blocking(move || store.images()).await
    }

    /// Finds the image that `wanted` means: a reference, a digest, or hex digits that only one digest begins with.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` when it is malformed or several digests begin with it.
    pub async fn find(&self, wanted: &str) -> Result<Image> {
        let (this, wanted) = (self.clone(), wanted.to_owned());
        blocking(move || this.find_blocking(&wanted)).await
    }

    /// [`Images::find`] for callers that may block.
    pub fn find_blocking(&self, wanted: &str) -> Result<Image> {
        Ok(find(&self.store, wanted)?.0)
    }

    /// Removes a name from an image, and the image from the catalogue with its last name; gc frees the bytes.
    ///
    /// `wanted` is as for [`Images::find`]; a reference removes that name only.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` without `force` when a box uses an image that would be removed, or when `wanted` is a
    /// digest and the image has several names.
    pub async fn remove(&self, wanted: &str, force: bool) -> Result<Vec<Removal>> {
        let (this, wanted) = (self.clone(), wanted.to_owned());
        blocking(move || {
            let (image, name) = find(&this.store, &wanted)?;
            let removed = this.store.remove_image(image.digest, name.as_deref(), force)?;
            Ok(removed)
        })
        .await
    }

    /// Gives an image one more name, even if that named another before.
    ///
    /// # Errors
    /// As for [`Images::find`]; `InvalidInput` for a name that cannot be given: of files, or with a digest.
    pub async fn tag(&self, wanted: &str, name: &str) -> Result<Image> {
        let reference = given_name(name)?;
        let (this, wanted) = (self.clone(), wanted.to_owned());
        blocking(move || {
            let digest: Digest = this.find_blocking(&wanted)?.digest;
            this.store().tag_image(digest, &reference.to_string())
        })
        .await
    }

    /// Whether the disk image of these layers is there, whole and right.
    pub(crate) fn is_built(&self, diff_ids: &[Digest]) -> Result<bool> {
        let digest = disk_digest(diff_ids, self.settings.disk_size.value.0);
        Ok(image_chain::lease(&self.home, &digest)?.is_some())
    }

    /// Leases a layer of `image` for reading.
    ///
    /// # Errors
    /// `NotFound` when its blob is missing, saying how to get it back.
    pub(crate) fn lease_layer(&self, image: &Image, layer: &Layer) -> Result<Leased> {
        self.blobs.lease(layer.digest, Some(layer.length))?.ok_or_else(|| {
            let name = image.references.first().cloned().unwrap_or_else(|| image.digest.to_string());
            let message = format!(
                "layer {} of {name} is not in the home, and a disk image must be built of it; run `boxlite pull {name}`",
                layer.digest
            );
            Error::not_found(message).at(self.blobs.path(layer.digest))
        })
    }

    /// The database.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The store of blobs.
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Asks for room on behalf of one transfer or build, which is about to use the disk images in `keep`.
    pub(crate) fn room(&self, keep: Vec<String>) -> Result<WriteSpace> {
        WriteSpace::new(&self.home, &self.settings, &self.collector, keep)
    }

    /// How registries are asked.
    pub(crate) fn registries(&self) -> &RegistryAccess {
        &self.registries
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The home.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }
}

/// The digest (64 hex digits) of the disk image with these layers and `virtual_size` bytes: of everything that its bytes
/// depend on.
pub(crate) fn disk_digest(diff_ids: &[Digest], virtual_size: u64) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"boxlite disk image\0");
    hasher.update(BUILDER_VERSION.to_le_bytes());
    hasher.update(virtual_size.to_le_bytes());
    // A single layer is never cut.
    if diff_ids.len() > 1 {
        hasher.update(SEGMENT_RULE.to_le_bytes());
    }
    for diff_id in diff_ids {
        hasher.update(diff_id.bytes());
    }
    Digest::finish(hasher).hex()
}

/// The digests of the disk images with the lowest of these layers, with the two lowest, and so on: of all that a disk
/// image with these layers may be made of.
pub(crate) fn disk_digests(diff_ids: &[Digest], virtual_size: u64) -> Vec<String> {
    (1..=diff_ids.len().max(1))
        .map(|end| disk_digest(&diff_ids[..end.min(diff_ids.len())], virtual_size))
        .collect()
}

/// The name that an image is to be given here.
///
/// # Errors
/// `InvalidInput` for a name of files, or one with a digest, which no choice of ours can make true.
fn given_name(name: &str) -> Result<RegistryReference> {
    match name.parse()? {
        Reference::Registry(reference) if reference.digest().is_none() => Ok(reference),
        Reference::Registry(_) => Err(Error::invalid(format!(
            "'{name}' has a digest, and a name that is given to an image has none"
        ))),
        _ => Err(Error::invalid(format!(
            "'{name}' names files, and an image is given names such as web:1 or registry.example/web:1"
        ))),
    }
}

/// The image, and the canonical reference if `wanted` is one.
fn find(store: &Store, wanted: &str) -> Result<(Image, Option<String>)> {
    let unknown =
        || Error::not_found(format!("there is no image '{wanted}' in this home; `boxlite pull` gets one"));
    if let Ok(digest) = wanted.parse::<Digest>().or_else(|_| Digest::from_hex(wanted)) {
        return store.image(digest)?.map(|image| (image, None)).ok_or_else(unknown);
    }
    let reference = wanted.parse::<Reference>().map(Reference::absolute);
    if let Ok(Ok(reference)) = &reference {
        let name = reference.to_string();
        if let Some(image) = store.image_named(&name)? {
            return Ok((image, Some(name)));
        }
    }
    let prefix = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    if !prefix.is_empty() && prefix.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        let mut found = store.images_beginning(prefix)?;
        if let [one, other] = &found[..] {
            return Err(Error::invalid(format!(
                "'{wanted}' is ambiguous: images {} and {} both begin with it",
                one.digest, other.digest
            )));
        }
        if let Some(image) = found.pop() {
            return Ok((image, None));
        }
    }
    reference??;
    Err(unknown())
}
