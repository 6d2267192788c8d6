//! Sending a built disk image to a registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use boxlite_ext4::{BUILDER_VERSION, SEGMENT_RULE};
use boxlite_home::blocking;
use boxlite_types::{
    Digest, DiskImagePush, DiskImagePushOptions, Error, Image, Progress, ProgressSink, PullOptions,
    PushOptions, Result,
};
use futures::{StreamExt, TryStreamExt, stream};

use super::document::{
    ARTIFACT, ArtifactConfig, ArtifactManifest, CONFIG, NAME, SIGNATURE, SegmentEntry, cuts, described,
};
use super::place;
use super::segment_blob::{PackedSegment, pack};
use super::signature::{ArtifactKey, ArtifactSigner};
use crate::catalog::Catalog;
use crate::disk_image::{self, ImageChain};
use crate::image::manifest::{Descriptor, OCI_MANIFEST, StoredManifest};
use crate::image::{Images, OutgoingBlob, PARALLEL_BLOBS, Referrer, Repository};
use crate::reference::RegistryReference;

impl Images {
    /// Sends the built disk image of an image to a registry: to the repository that `options` name, or to the image's own. What
    /// is not built yet is built first.
    ///
    /// # Errors
    /// As for [`Images::push`]; `InvalidInput` for a key file that holds no key.
    pub async fn push_disk_image(
        &self,
        wanted: &str,
        options: &DiskImagePushOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<DiskImagePush> {
        let signer = match &options.sign_key {
            Some(path) => {
                let path = path.clone();
                Some(blocking(move || ArtifactSigner::read(&path)).await?)
            }
            None => None,
        };
        let image = self.find(wanted).await?;
        let place = place(options.to.as_deref(), wanted, &image)?;
        let pull = PullOptions {
            insecure: options.insecure,
            insecure_credentials: options.insecure_credentials,
            ..PullOptions::default()
        };
        self.complete(&image, &pull, Arc::clone(&progress)).await?;
        let (this, packed_of, sink) = (self.clone(), image.clone(), Arc::clone(&progress));
        let artifact = blocking(move || PackedArtifact::of(&this, &packed_of, &*sink)).await?;
        let key = signer.as_ref().map(ArtifactSigner::key).transpose()?;
        let sent = self.send_artifact(&place, &artifact, signer.as_ref(), options, &progress).await;
        let (this, blobs) = (self.clone(), artifact.blobs());
        drop(artifact);
        let cleaned = blocking(move || {
            for blob in blobs {
                this.blobs().collect(blob, || Ok(!this.store().blob_is_referenced(&blob.hex())?))?;
            }
            Ok(())
        });
        if let Err(error) = cleaned.await {
            tracing::debug!(error = %error.chain(), "what was packed is left to gc");
        }
        let digest = sent.map_err(|error| {
            error.while_doing(format!("pushing the built disk image to {}", place.familiar()))
        })?;
        let repository = format!("{}/{}", place.host(), place.repository());
        Ok(DiskImagePush {
            image: image.digest,
            artifact: digest,
            repository,
            key: key.map(ArtifactKey::text),
        })
    }

    async fn send_artifact(
        &self,
        place: &RegistryReference,
        artifact: &PackedArtifact,
        signer: Option<&ArtifactSigner>,
        options: &DiskImagePushOptions,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<Digest> {
        let config = artifact.config.to_json()?;
        let mut annotations = BTreeMap::from([(NAME.to_owned(), artifact.name.clone())]);
        if let Some(signer) = signer {
            annotations.insert(SIGNATURE.to_owned(), signer.sign(&config)?);
        }
        let segments = &artifact.config.segments;
        let manifest = ArtifactManifest::to_json(&config, segments, &artifact.subject, &annotations);
        let push =
            PushOptions { insecure: options.insecure, insecure_credentials: options.insecure_credentials };
        let repository =
            Repository::open_for_push(place, &push, self.registries(), Vec::new(), progress).await?;
        let (this, bytes) = (self.clone(), config.clone());
        let leased = blocking(move || this.blobs().put(&bytes, &this.room(Vec::new())?)).await?;
        let described_config = described(CONFIG, Digest::of(&config), config.len() as u64);
        let mut outgoing = vec![OutgoingBlob {
            digest: described_config.digest,
            length: described_config.length,
            leased: Arc::new(leased),
            elsewhere: None,
        }];
        outgoing.extend(artifact.packed.iter().map(|packed| OutgoingBlob {
            digest: packed.blob,
            length: packed.blob_length,
            leased: Arc::clone(&packed.leased),
            elsewhere: None,
        }));
        progress.report(Progress::Resolved {
            digest: artifact.config.image,
            layers: outgoing.iter().map(|blob| (blob.digest, blob.length)).collect(),
        });
        let send = async |blob: &OutgoingBlob| {
            repository.push_blob(blob).await?;
            progress.report(Progress::Transferred { layer: blob.digest });
            Ok::<_, Error>(())
        };
        stream::iter(&outgoing).map(send).buffer_unordered(PARALLEL_BLOBS).try_collect::<()>().await?;
        let entry = Referrer {
            media_type: OCI_MANIFEST.to_owned(),
            digest: Digest::of(&manifest),
            size: manifest.len() as u64,
            artifact_type: ARTIFACT.to_owned(),
            annotations,
        };
        let signed_by = |it: &Referrer| it.annotations.get(SIGNATURE).map(|text| signer_of(text).to_owned());
        // The same disk image by the same signer; what another key has signed stays.
        let replaces = |it: &Referrer| {
            it.artifact_type == ARTIFACT
                && it.annotations.get(NAME) == entry.annotations.get(NAME)
                && signed_by(it) == signed_by(&entry)
        };
        repository.push_referrer(&manifest, artifact.config.image, &entry, replaces).await?;
        Ok(entry.digest)
    }
}

/// The algorithm and the key of a signature.
fn signer_of(signature: &str) -> &str {
    signature.rsplit_once(':').map_or(signature, |(signer, _)| signer)
}

/// A disk image whose segments are packed.
struct PackedArtifact {
    name: String,
    config: ArtifactConfig,
    packed: Vec<PackedSegment>,
    subject: Descriptor,
}

impl PackedArtifact {
    /// Builds what is missing of the disk image, and packs its segments; blocks.
    fn of(images: &Images, image: &Image, progress: &dyn ProgressSink) -> Result<Self> {
        let virtual_size = images.settings().disk_size.value.0;
        let names = disk_image::digests(image, virtual_size);
        let chain: ImageChain = disk_image::ensure_delta(images, image, virtual_size, progress)?;
        let layer_sizes = disk_image::layer_sizes(images, image)?;
        let ends = cuts(&layer_sizes, virtual_size);
        let files: Vec<_> = chain.leases().collect();
        if files.len() != ends.len() {
            return Err(Error::bug(format!("a disk image of {} has {} files", ends.len(), files.len())));
        }
        let (mut segments, mut all) = (Vec::new(), Vec::new());
        for (leased, end) in files.into_iter().rev().zip(&ends) {
            let packed = pack(images, leased, names.clone())?;
            segments.push(SegmentEntry {
                name: names[end.saturating_sub(1)].clone(),
                layers: *end,
                length: leased
                    .file()
                    .metadata()
                    .map_err(|error| Error::io("examining", leased.path(), error))?
                    .len(),
                content: packed.content,
                stream_length: packed.stream_length,
                blob: packed.blob,
                blob_length: packed.blob_length,
            });
            all.push(packed);
        }
        let (manifest, _) = images.documents(image)?;
        let media_type = StoredManifest::parse(&manifest, image.digest)?.media_type().to_owned();
        let config = ArtifactConfig {
            builder_version: BUILDER_VERSION,
            segment_rule: SEGMENT_RULE,
            virtual_size,
            image: image.digest,
            layer_sizes,
            segments,
        };
        let name = names.last().cloned().unwrap_or_default();
        let subject = described(&media_type, image.digest, manifest.len() as u64);
        Ok(Self { name, config, packed: all, subject })
    }

    fn blobs(&self) -> Vec<Digest> {
        let config = self.config.to_json().map(|bytes| Digest::of(&bytes));
        self.packed.iter().map(|packed| packed.blob).chain(config).collect()
    }
}
