//! Pushing: from the home to a registry.

use std::sync::Arc;

use boxlite_home::blocking;
use boxlite_home::lease::Leased;
use boxlite_types::{Digest, Error, Image, Progress, ProgressSink, PullOptions, PushOptions, Result};
use futures::{StreamExt, TryStreamExt, stream};

use super::manifest::StoredManifest;
use super::source::{BlobPushed, OutgoingBlob, Repository};
use super::{Images, given_name};
use crate::reference::{Reference, RegistryReference};

/// How many blobs are sent at a time.
pub(crate) const PARALLEL_BLOBS: usize = 3;

impl Images {
    /// Sends an image to a registry: to the one that `target` names, or that `wanted` names itself. Blobs that are there
    /// already are not sent, and the image is visible there only once all of it has arrived.
    ///
    /// # Errors
    /// As for [`Images::find`]; `Denied` (credentials), `Unavailable` (no network, registry down), `InvalidInput` where no
    /// registry is named.
    pub async fn push(
        &self,
        wanted: &str,
        target: Option<&str>,
        options: &PushOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<Image> {
        let (this, text) = (self.clone(), wanted.to_owned());
        let (image, name) = blocking(move || super::find(&this.store, &text)).await?;
        let reference = match (target, name.as_deref().map(str::parse::<Reference>)) {
            (Some(target), _) => given_name(target)?,
            (None, Some(Ok(Reference::Registry(reference)))) if reference.digest().is_none() => reference,
            _ => {
                let message = format!(
                    "'{wanted}' names no registry; name it after the image, as in `push {wanted} registry.example/web:1`"
                );
                return Err(Error::invalid(message));
            }
        };
        let pull = PullOptions {
            insecure: options.insecure,
            insecure_credentials: options.insecure_credentials,
            ..PullOptions::default()
        };
        self.fetch_lost_layers(&image, &pull, Arc::clone(&progress)).await?;
        let (this, target, found) = (self.clone(), reference.clone(), image.clone());
        let outgoing = blocking(move || this.outgoing(&found, &target)).await?;
        progress.report(Progress::Resolved {
            digest: image.digest,
            layers: image.layers.iter().map(|layer| (layer.digest, layer.length)).collect(),
        });
        let send = self.send(&reference, &outgoing, options, &progress);
        send.await.map_err(|error| error.while_doing(format!("pushing {}", reference.familiar())))?;
        let (store, digest) = (self.store.clone(), image.digest);
        blocking(move || store.note_pushed(digest, &reference.to_string())).await?;
        Ok(image)
    }

    async fn send(
        &self,
        reference: &RegistryReference,
        outgoing: &OutgoingImage,
        options: &PushOptions,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<()> {
        let repositories = outgoing.blobs.iter().filter_map(|blob| blob.elsewhere.clone()).collect();
        let repository =
            Repository::open_for_push(reference, options, &self.registries, repositories, progress).await?;
        let push = async |blob: &OutgoingBlob| {
            let layer = blob.digest;
            progress.report(match repository.push_blob(blob).await? {
                BlobPushed::Present | BlobPushed::Mounted => Progress::Present { layer },
                BlobPushed::Sent => Progress::Transferred { layer },
            });
            Ok::<_, Error>(())
        };
        stream::iter(&outgoing.blobs).map(push).buffer_unordered(PARALLEL_BLOBS).try_collect::<()>().await?;
        repository.push_manifest(&outgoing.media_type, &outgoing.manifest).await
    }

    /// Leases all that the image is made of.
    fn outgoing(&self, image: &Image, target: &RegistryReference) -> Result<OutgoingImage> {
        let (manifest, _) = self.documents(image)?;
        let stored = StoredManifest::parse(&manifest, image.digest)?;
        let mut blobs: Vec<OutgoingBlob> = Vec::new();
        let mut add = |digest: Digest, length: u64, leased: Leased| -> Result<()> {
            if blobs.iter().all(|blob| blob.digest != digest) {
                let elsewhere = self.repository_with(digest, target)?;
                blobs.push(OutgoingBlob { digest, length, leased: Arc::new(leased), elsewhere });
            }
            Ok(())
        };
        for layer in &image.layers {
            add(layer.digest, layer.length, self.lease_layer(image, layer)?)?;
        }
        let media_type = stored.media_type().to_owned();
        let config = stored.config;
        let leased = self
            .blobs
            .lease(config.digest, Some(config.length))?
            .ok_or_else(|| Error::conflict(format!("image {} was removed meanwhile", image.digest)))?;
        add(config.digest, config.length, leased)?;
        Ok(OutgoingImage { manifest, media_type, blobs })
    }

    /// Another repository of the target's registry where the blob was found.
    fn repository_with(&self, blob: Digest, target: &RegistryReference) -> Result<Option<String>> {
        let names = self.store.registry_names_of_blob(blob)?;
        let references = names.iter().filter_map(|name| match name.parse() {
            Ok(Reference::Registry(reference)) => Some(reference),
            _ => None,
        });
        let mut there = references.filter(|found| found.host() == target.host());
        let found = there.find(|found| found.repository() != target.repository());
        Ok(found.map(|found| found.repository().to_owned()))
    }
}

/// An image that is about to be sent.
struct OutgoingImage {
    manifest: Vec<u8>,
    media_type: String,
    blobs: Vec<OutgoingBlob>,
}
