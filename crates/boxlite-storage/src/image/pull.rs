//! Pulling: from a reference to verified blobs and a record in the catalogue.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use boxlite_home::blocking;
use boxlite_home::lease::Leased;
use boxlite_home::settings::KeepBlobs;
use boxlite_types::{
    Digest, Error, ErrorCause, ErrorKind, Image, Layer, Platform, Progress, ProgressSink, PullOptions,
    PullPolicy, Result,
};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use tracing::debug;

use super::blobs::{BUSY_PAUSE, WantedBlob};
use super::manifest::{self, Descriptor, Manifest, ParsedConfig};
use super::source::ImageSource;
use super::{Images, WriteSpace, disk_digests};
use crate::catalog::Catalog;
use crate::reference::Reference;
use crate::store::{Document, NameOrigin};

/// How many layers are fetched at a time.
const PARALLEL_LAYERS: usize = 3;
/// How deep indexes may be nested.
const INDEX_DEPTH: usize = 3;

/// An image as its source describes it, verified.
pub(crate) struct ResolvedImage {
    pub(crate) digest: Digest,
    document: Vec<u8>,
    manifest: Manifest,
    config: Vec<u8>,
    parsed: ParsedConfig,
    platform: Platform,
}

impl ResolvedImage {
    /// The digests of the uncompressed layers, the lowest first.
    pub(crate) fn diff_ids(&self) -> &[Digest] {
        &self.parsed.diff_ids
    }
}

/// The catalogue names of an image that is fetched.
pub(crate) struct NewNames {
    pub(crate) references: Vec<String>,
    pub(crate) origin: NameOrigin,
    /// Whether it comes from a registry, so that its layers can be had again.
    pub(crate) of_registry: bool,
    /// Whether an image that is recorded like this already is recorded as pulled anew.
    pub(crate) renew: bool,
}

impl Images {
    /// Makes sure that the home has the image that `reference` names, and returns its record.
    ///
    /// Blobs that are there are not fetched again; concurrent pulls fetch each blob once between them. Under
    /// [`PullPolicy::Missing`], a source is asked again when a blob was lost, and files on this host are read again as
    /// long as they are there; an image that they still hold as it is recorded stays recorded as it was. The image is in the
    /// catalogue when this returns, and not before all its blobs are
    /// verified and durable.
    ///
    /// # Errors
    /// `NotFound` (no such image, tag or platform, or the policy is `Never`), `Denied` (credentials),
    /// `Unavailable` (no network, registry down), `Corrupt` (wrong digest), `ResourceExhausted` (no room:
    /// everything this pull wrote is removed again), `Unsupported` (no container image), `Conflict` (the name was given
    /// to another image here, and `options` keep such names).
    pub async fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Image> {
        let reference = reference.clone().absolute()?;
        let known = self.known(&reference, options).await?;
        match (options.policy, known) {
            (PullPolicy::Never, Some(image)) => Ok(image),
            (PullPolicy::Never, None) => Err(Error::not_found(format!(
                "the home does not have {}, and it is not to be pulled",
                reference.familiar()
            ))),
            (PullPolicy::Missing, Some(image))
                if !reference.is_local() && self.is_complete(&image).await? =>
            {
                Ok(image)
            }
            (PullPolicy::Missing, Some(image)) => match self.fetch(&reference, options, progress).await {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) => {
                    debug!(%reference, error = %error.chain(), "using the image pulled earlier");
                    Ok(image)
                }
                other => other,
            },
            (PullPolicy::Missing | PullPolicy::Always, _) => self.fetch(&reference, options, progress).await,
        }
    }

    /// The image in the catalogue that serves the request.
    async fn known(&self, reference: &Reference, options: &PullOptions) -> Result<Option<Image>> {
        let (store, name) = (self.store.clone(), reference.to_string());
        let found = blocking(move || store.image_named(&name)).await?;
        let serves = |image: &Image| {
            options.platform.as_ref().is_none_or(|platform| platform.accepts(&image.platform))
        };
        Ok(found.filter(serves))
    }

    /// Whether a box can be started from what the home has of the image.
    async fn is_complete(&self, image: &Image) -> Result<bool> {
        Ok(self.has_all_blobs(image).await? || self.needs_no_layers(image.diff_ids()).await?)
    }

    /// Whether the disk image of these layers is there, and the settings let it stand for the layers.
    async fn needs_no_layers(&self, diff_ids: Vec<Digest>) -> Result<bool> {
        let this = self.clone();
        let may_lack = self.settings().keep_blobs.value != KeepBlobs::Always;
        Ok(may_lack && blocking(move || this.is_built(&diff_ids)).await?)
    }

    /// Fetches the layers of an image that are gone, as the setting `keep_blobs` lets them, and without which its disk
    /// image cannot be built. Does nothing for an image that did not come from a registry.
    ///
    /// # Errors
    /// As [`Images::pull`]: `Unavailable` when its registry cannot be reached.
    pub async fn complete(
        &self,
        image: &Image,
        options: &PullOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<()> {
        let (this, diff_ids) = (self.clone(), image.diff_ids());
        if blocking(move || this.is_built(&diff_ids)).await? {
            return Ok(());
        }
        self.fetch_lost_layers(image, options, progress).await
    }

    /// Fetches the layers of an image that are gone, whether or not its disk image is built; does nothing for an image
    /// that no registry has.
    pub(super) async fn fetch_lost_layers(
        &self,
        image: &Image,
        options: &PullOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<()> {
        if self.has_all_blobs(image).await? {
            return Ok(());
        }
        let (store, digest) = (self.store.clone(), image.digest);
        let name = blocking(move || store.registry_name(digest)).await?;
        let Some(Ok(Reference::Registry(name))) = name.map(|name| name.parse()) else { return Ok(()) };
        let fetch = async {
            let reference = Reference::Registry(name.at_digest(image.digest));
            let source = ImageSource::open(&reference, options, &self.registries, &progress).await?;
            let keep = disk_digests(&image.diff_ids(), self.settings().disk_size.value.0);
            let job = PullJob::new(self, keep)?;
            let outcome =
                self.fetch_layers(&source, image.layers.iter().map(descriptor).collect(), &job, &progress);
            let outcome = outcome.await;
            if outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ResourceExhausted) {
                self.take_back(&job).await;
            }
            outcome.map(drop)
        };
        let why = || format!("fetching layers of {} that the home does not keep any more", name.familiar());
        fetch.await.map_err(|error: Error| error.while_doing(why()))
    }

    /// Whether all layers are still there: none was damaged or removed.
    async fn has_all_blobs(&self, image: &Image) -> Result<bool> {
        let (this, layers) = (self.clone(), image.layers.clone());
        let there = move |layer: &Layer| this.blobs.path(layer.digest).exists();
        blocking(move || Ok(layers.iter().all(there))).await
    }

    async fn fetch(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Image> {
        progress.report(Progress::Resolving { reference: reference.familiar() });
        let source = ImageSource::open(reference, options, &self.registries, &progress).await?;
        let wanted = options.platform.clone().unwrap_or_else(Platform::host);
        let found = self.identify(&source, &reference.familiar(), &wanted).await?;
        let names = NewNames {
            references: vec![reference.to_string()],
            origin: if options.keep_given_names { NameOrigin::SourceUnlessGiven } else { NameOrigin::Source },
            of_registry: matches!(reference, Reference::Registry(_)),
            renew: options.policy != PullPolicy::Missing,
        };
        let stored = self.store_found(&source, found, names, &progress).await;
        stored.map_err(|error| error.while_doing(format!("pulling {}", reference.familiar())))
    }

    /// Fetches what the home lacks of an image, and records it.
    pub(crate) async fn store_found(
        &self,
        source: &ImageSource,
        found: ResolvedImage,
        names: NewNames,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Image> {
        let layers = &found.manifest.layers;
        progress.report(Progress::Resolved {
            digest: found.digest,
            layers: layers.iter().map(|layer| (layer.digest, layer.length)).collect(),
        });
        // A pull makes room for a box of this image: not at the expense of its own disk image.
        let keep = disk_digests(&found.parsed.diff_ids, self.settings().disk_size.value.0);
        let job = PullJob::new(self, keep)?;
        let outcome = self.store_image(names, source, found, &job, progress).await;
        if let Err(error) = &outcome
            && error.kind() == ErrorKind::ResourceExhausted
        {
            self.take_back(&job).await;
        }
        outcome
    }

    /// Fetches what is missing and records the image while every blob is leased.
    async fn store_image(
        &self,
        names: NewNames,
        source: &ImageSource,
        found: ResolvedImage,
        job: &PullJob,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Image> {
        let layers = found.manifest.layers.clone();
        let this = self.clone();
        let documents = [found.document.clone(), found.config.clone()];
        let built = names.of_registry && self.needs_no_layers(found.parsed.diff_ids.clone()).await?;
        let wanted = if built { self.present(&layers).await? } else { layers.clone() };
        let (to_write, here) = (wanted.clone(), job.clone());
        let small = blocking(move || {
            here.room.ask(this.missing_bytes(&to_write)?)?;
            documents.iter().map(|bytes| this.put(bytes, &here)).collect::<Result<Vec<_>>>()
        })
        .await?;
        let large = self.fetch_layers(source, wanted, job, progress).await?;
        let now = Timestamp::now();
        let image = Image {
            digest: found.digest,
            references: names.references,
            platform: found.platform,
            config: found.parsed.config,
            layers: layers.into_iter().zip(found.parsed.diff_ids).map(layer_of).collect(),
            pulled_at: now,
            last_used_at: now,
        };
        let manifest = Document { digest: found.digest, length: found.document.len() as u64 };
        let config = Document { digest: found.manifest.config.digest, length: found.config.len() as u64 };
        let store = self.store.clone();
        blocking(move || {
            // A start from files of this host writes nothing for an image that it finds unchanged.
            if names.renew || !store.has_image(&image)? {
                store.insert_image(&image, manifest, config, names.origin)?;
            }
            drop((small, large));
            let gone = || Error::conflict(format!("image {} was removed meanwhile", image.digest));
            store.image(image.digest)?.ok_or_else(gone)
        })
        .await
    }

    /// Those of `layers` that the home has.
    async fn present(&self, layers: &[Descriptor]) -> Result<Vec<Descriptor>> {
        let (this, layers) = (self.clone(), layers.to_vec());
        let is_here = move |layer: &Descriptor| this.blobs.path(layer.digest).exists();
        blocking(move || Ok(layers.into_iter().filter(is_here).collect())).await
    }

    /// Leases all of `layers`, fetching what is missing.
    pub(crate) async fn fetch_layers(
        &self,
        source: &ImageSource,
        mut layers: Vec<Descriptor>,
        job: &PullJob,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Vec<Leased>> {
        layers.sort_by_key(|layer| layer.digest);
        layers.dedup_by_key(|layer| layer.digest);
        stream::iter(layers)
            .map(|layer| self.fetch_layer(source, layer, job, progress))
            .buffer_unordered(PARALLEL_LAYERS)
            .try_collect()
            .await
    }

    /// Fetches one layer, or waits until another pull has done so.
    async fn fetch_layer(
        &self,
        source: &ImageSource,
        layer: Descriptor,
        job: &PullJob,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Leased> {
        let (mut waiting, mut fetched) = (false, false);
        loop {
            let (this, digest, length) = (self.clone(), layer.digest, layer.length);
            // Each layer claims by itself, so that pulls which share the work do not add up.
            let keep = job.keep.clone();
            let want = move || this.blobs.want(digest, length, || this.room(keep));
            match blocking(want).await? {
                WantedBlob::Present(lease) => {
                    let layer = layer.digest;
                    let there =
                        if fetched { Progress::Transferred { layer } } else { Progress::Present { layer } };
                    progress.report(there);
                    return Ok(lease);
                }
                WantedBlob::Busy => {
                    if !waiting {
                        progress.report(Progress::Waiting { layer: layer.digest });
                    }
                    waiting = true;
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                WantedBlob::Missing(ingest) => {
                    let mut ingest = source.fetch(&layer, *ingest, progress).await?;
                    if ingest.resumed() && !ingest.is_right() {
                        debug!(layer = %layer.digest, "what an earlier pull left is damaged; starting over");
                        ingest.restart()?;
                        ingest = source.fetch(&layer, ingest, progress).await?;
                    }
                    let (digest, job) = (layer.digest, job.clone());
                    blocking(move || {
                        job.note(digest);
                        ingest.publish()
                    })
                    .await?;
                    fetched = true;
                }
            }
        }
    }

    /// Bytes that this pull will have to write, as far as others are not writing them already.
    fn missing_bytes(&self, layers: &[Descriptor]) -> Result<u64> {
        let mut missing = 0_u64;
        for layer in layers {
            let there = self.blobs.lease(layer.digest, Some(layer.length))?.is_some();
            if !there && !self.blobs.is_being_written(layer.digest)? {
                missing = missing.saturating_add(layer.length);
            }
        }
        Ok(missing)
    }

    fn put(&self, bytes: &[u8], job: &PullJob) -> Result<Leased> {
        let digest = Digest::of(bytes);
        if let Some(lease) = self.blobs.lease(digest, Some(bytes.len() as u64))? {
            return Ok(lease);
        }
        job.note(digest);
        self.blobs.put(bytes, &job.room)
    }

    /// Removes the blobs that a pull has written, except those that others rely on meanwhile.
    pub(crate) async fn take_back(&self, job: &PullJob) {
        let (this, digests) = (self.clone(), job.take());
        let result = blocking(move || {
            for digest in digests {
                this.blobs.collect(digest, || Ok(!this.store.blob_is_referenced(&digest.hex())?))?;
            }
            Ok(())
        });
        if let Err(error) = result.await {
            debug!(error = %error.chain(), "leaving the rest of a refused pull to gc");
        }
    }
}

/// One pull: its room, and the blobs that it has published.
#[derive(Clone)]
pub(crate) struct PullJob {
    room: WriteSpace,
    /// Digests of the disk images that must not be evicted for it.
    keep: Vec<String>,
    written: Arc<Mutex<Vec<Digest>>>,
}

impl PullJob {
    /// A job for the image whose disk images are called so.
    ///
    /// # Errors
    /// `ResourceExhausted` where the disk is too full already.
    pub(crate) fn new(images: &Images, keep: Vec<String>) -> Result<Self> {
        Ok(Self { room: images.room(keep.clone())?, keep, written: Arc::default() })
    }

    /// The space that its small documents are written in.
    pub(crate) fn room(&self) -> &WriteSpace {
        &self.room
    }

    fn note(&self, digest: Digest) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(digest);
    }

    fn take(&self) -> Vec<Digest> {
        std::mem::take(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn descriptor(layer: &Layer) -> Descriptor {
    Descriptor {
        media_type: layer.media_type.clone(),
        digest: layer.digest,
        length: layer.length,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

fn layer_of((layer, diff_id): (Descriptor, Digest)) -> Layer {
    Layer { digest: layer.digest, diff_id, media_type: layer.media_type, length: layer.length }
}

impl Images {
    /// Follows indexes to the one manifest that serves the platform, and reads its config.
    pub(crate) async fn identify(
        &self,
        source: &ImageSource,
        name: &str,
        wanted: &Platform,
    ) -> Result<ResolvedImage> {
        let (mut digest, mut document) = source.top().await?;
        for _ in 0..=INDEX_DEPTH {
            let manifest = match manifest::parse(&document, name)? {
                manifest::ManifestDocument::Manifest(manifest) => manifest,
                manifest::ManifestDocument::Index(entries) => {
                    digest = manifest::choose(&entries, wanted, name)?.digest;
                    document = source.manifest(digest).await?;
                    continue;
                }
            };
            let config = self.config(source, &manifest.config).await?;
            let parsed = manifest::parse_config(&config, manifest.layers.len(), name)?;
            let platform = parsed.platform.clone().unwrap_or_else(|| wanted.clone());
            if !wanted.accepts(&platform) {
                let message = format!("{name} is for {platform}, and {wanted} is wanted");
                return Err(Error::unsupported(message).about(ErrorCause::Platform));
            }
            return Ok(ResolvedImage { digest, document, manifest, config, parsed, platform });
        }
        Err(Error::corrupt(format!("the indexes of {name} are nested more than {INDEX_DEPTH} deep")))
    }

    /// Reads the config from the home if it is there, else from the source.
    async fn config(&self, source: &ImageSource, config: &Descriptor) -> Result<Vec<u8>> {
        let (this, wanted) = (self.clone(), config.clone());
        match blocking(move || this.blobs.read(wanted.digest, wanted.length)).await? {
            Some(bytes) => Ok(bytes),
            None => source.config(config).await,
        }
    }
}
