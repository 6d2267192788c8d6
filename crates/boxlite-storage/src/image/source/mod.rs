//! The sources of images: registries, layouts and archives.

mod archive;
mod docker_archive;
pub(super) mod layout;
mod place;
mod registry;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

pub(super) use archive::TarHeaderReader;
use boxlite_home::blocking;
use boxlite_types::{Digest, Error, ErrorCause, Progress, ProgressSink, PullOptions, Result};
use place::SourcePlace;
pub(crate) use registry::{
    BlobPushed, MirroredRepository, OutgoingBlob, Referrer, RegistryAccess, Repository,
};
pub use registry::{RegistryPolicy, RegistryProbe};

use super::ingest::Ingest;
use super::manifest::{DOCUMENT_LIMIT, Descriptor};
use crate::reference::{Reference, RegistryReference};

/// The most images that are read from one archive or layout.
const IMAGE_LIMIT: usize = 256;

/// Files on this host that hold an image.
#[derive(Debug)]
pub(crate) struct LocalSource {
    place: Arc<SourcePlace>,
    /// The manifest or index that the reference names.
    top: Digest,
    /// Documents that the source does not hold in OCI's form.
    made_up: HashMap<Digest, Vec<u8>>,
    /// Entry names of contents, where they are not `blobs/sha256/<hex>`.
    names: HashMap<Digest, String>,
    /// Its name in messages.
    name: String,
}

impl LocalSource {
    /// Opens the files that `reference` names and finds the manifest or index in them.
    ///
    /// # Errors
    /// `NotFound` when the path or the tag does not exist, `Corrupt` when the files are not what they should be.
    pub(crate) fn open(reference: &Reference) -> Result<Self> {
        let name = reference.to_string();
        match reference {
            Reference::Layout { path, tag } => {
                layout::open(SourcePlace::directory(path)?.into(), tag.as_deref(), name)
            }
            Reference::OciArchive { path, tag } => {
                layout::open(SourcePlace::archive(path)?.into(), tag.as_deref(), name)
            }
            Reference::DockerArchive { path, name: wanted } => {
                docker_archive::open(SourcePlace::archive(path)?.into(), wanted.as_ref(), name)
            }
            Reference::Registry(_) => Err(Error::bug(format!("{name} is not on this host"))),
        }
    }

    /// All images in the archive or directory at `path`, each with the names that it has there: an OCI layout, or what
    /// `docker save` writes.
    ///
    /// # Errors
    /// As for [`LocalSource::open`]; `Corrupt` when it is neither.
    pub(crate) fn all(path: &Path) -> Result<Vec<(Self, Vec<RegistryReference>)>> {
        let place = if path.is_dir() { SourcePlace::directory(path)? } else { SourcePlace::archive(path)? };
        let place = Arc::new(place);
        match (place.has("index.json"), place.has("manifest.json")) {
            (true, _) => layout::all(&place),
            (false, true) => docker_archive::all(&place),
            (false, false) => {
                let message = format!(
                    "{} holds no images: it has neither index.json (an OCI layout) nor manifest.json (`docker save`)",
                    path.display()
                );
                Err(Error::corrupt(message).about(ErrorCause::LocalImage).at(path))
            }
        }
    }

    /// Its name in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Digest of the manifest or index that the reference names.
    pub(crate) fn top(&self) -> Digest {
        self.top
    }

    /// Reads a manifest, index or config and verifies its digest.
    pub(crate) fn document(&self, digest: Digest) -> Result<Vec<u8>> {
        let bytes = match self.made_up.get(&digest) {
            Some(bytes) => bytes.clone(),
            None => self.place.read(&self.entry(digest), DOCUMENT_LIMIT)?,
        };
        if Digest::of(&bytes) != digest {
            let message = format!(
                "{} in {} is damaged: its bytes are not those of {digest}",
                self.entry(digest),
                self.name
            );
            return Err(Error::corrupt(message).about(ErrorCause::LocalImage).at(self.place.path()));
        }
        Ok(bytes)
    }

    /// Copies a layer into `ingest`, reporting the bytes written so far.
    pub(crate) fn copy(&self, layer: &Descriptor, ingest: &mut Ingest, tick: impl FnMut(u64)) -> Result<()> {
        let entry = self.entry(layer.digest);
        let mut slice = self.place.open(&entry)?;
        slice.skip(ingest.written());
        ingest.fill(slice, &format!("reading {entry} of {}", self.name), tick)
    }

    fn entry(&self, digest: Digest) -> String {
        self.names.get(&digest).cloned().unwrap_or_else(|| format!("blobs/sha256/{}", digest.hex()))
    }
}

/// Where one image comes from.
pub(crate) enum ImageSource {
    Local(Arc<LocalSource>),
    Registry(Box<MirroredRepository>),
}

impl ImageSource {
    /// Opens the source that `reference` names.
    pub(crate) async fn open(
        reference: &Reference,
        options: &PullOptions,
        registries: &RegistryAccess,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Self> {
        if let Reference::Registry(reference) = reference {
            let repository = MirroredRepository::open(reference, options, registries, progress).await?;
            return Ok(Self::Registry(Box::new(repository)));
        }
        let reference = reference.clone();
        let local = blocking(move || LocalSource::open(&reference)).await?;
        Ok(Self::Local(Arc::new(local)))
    }

    /// Opens a registry without its mirrors.
    pub(crate) async fn open_unmirrored(
        reference: &RegistryReference,
        options: &PullOptions,
        registries: &RegistryAccess,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Self> {
        let repository =
            MirroredRepository::open_unmirrored(reference, options, registries, progress).await?;
        Ok(Self::Registry(Box::new(repository)))
    }

    /// The manifest or index that the reference names, verified where the reference has a digest.
    pub(crate) async fn top(&self) -> Result<(Digest, Vec<u8>)> {
        match self {
            Self::Local(local) => {
                let local = Arc::clone(local);
                blocking(move || Ok((local.top(), local.document(local.top())?))).await
            }
            Self::Registry(repository) => Ok(repository.top()),
        }
    }

    /// The manifest or index of that digest, verified.
    pub(crate) async fn manifest(&self, digest: Digest) -> Result<Vec<u8>> {
        match self {
            Self::Local(local) => {
                let local = Arc::clone(local);
                blocking(move || local.document(digest)).await
            }
            Self::Registry(repository) => repository.manifest(digest).await,
        }
    }

    /// The config, verified.
    pub(crate) async fn config(&self, config: &Descriptor) -> Result<Vec<u8>> {
        match self {
            Self::Local(_) => self.manifest(config.digest).await,
            Self::Registry(repository) => repository.config(config).await,
        }
    }

    /// Fetches what `ingest` lacks of a layer. Its digest is the caller's to check; a registry's mirrors are passed over
    /// where their bytes are wrong.
    pub(crate) async fn fetch(
        &self,
        layer: &Descriptor,
        mut ingest: Ingest,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Ingest> {
        match self {
            Self::Local(local) => {
                let (local, layer, progress) = (Arc::clone(local), layer.clone(), Arc::clone(progress));
                blocking(move || {
                    let (digest, total) = (layer.digest, layer.length);
                    local.copy(&layer, &mut ingest, |done| {
                        progress.report(Progress::Transferring { layer: digest, done, total });
                    })?;
                    Ok(ingest)
                })
                .await
            }
            Self::Registry(repository) => repository.fetch(layer, ingest).await,
        }
    }
}
