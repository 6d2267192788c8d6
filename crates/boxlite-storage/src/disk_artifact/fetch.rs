//! Fetching a built disk image from a registry, in place of the layers.

use std::collections::HashSet;
use std::sync::Arc;

use boxlite_home::blocking;
use boxlite_home::durable::Staged;
use boxlite_home::settings::KeepBlobs;
use boxlite_types::{
    Digest, DiskImageFetch, DiskImageFetchOptions, Error, ErrorKind, Platform, Progress, ProgressSink,
    PullOptions, Result,
};

use super::document::{ARTIFACT, ArtifactConfig, ArtifactManifest, CheckedArtifact, NAME, SIGNATURE};
use super::place_of;
use super::segment_blob::unpack;
use super::trust::FetchTrust;
use crate::disk_image::{self, ImageChain};
use crate::image::{
    ImageSource, Images, NewNames, PullJob, Referrer, Repository, ResolvedImage, disk_digests,
};
use crate::reference::{Reference, RegistryReference};
use crate::store::NameOrigin;

/// How many artifacts of one image are looked at: two requests each.
const MAX_CANDIDATES: usize = 256;

/// An artifact that may be believed.
struct FoundArtifact {
    digest: Digest,
    checked: CheckedArtifact,
    source: ImageSource,
}

impl Images {
    /// Makes sure that the home has the image that `reference` names and its built disk image, which is fetched from a
    /// registry, in place of the layers, where the settings say that it may be believed.
    ///
    /// Without effect on a disk image that is there. Under `keep_blobs = always`, the layers are fetched as well.
    ///
    /// # Errors
    /// `Denied` where the settings accept no such disk image; `NotFound` where the registry has none for this builder and
    /// disk size; `Corrupt` for one that is not what it says; `ResourceExhausted` where the disk is too full: everything
    /// that was written is removed again. Otherwise as for [`Images::pull`].
    pub async fn fetch_disk_image(
        &self,
        reference: &RegistryReference,
        options: &DiskImageFetchOptions,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<DiskImageFetch> {
        let pull = PullOptions {
            insecure: options.insecure,
            insecure_credentials: options.insecure_credentials,
            ..PullOptions::default()
        };
        let place = place_of(options.from.as_deref(), reference)?;
        FetchTrust::of(self.settings())?.check_place(&place, options.insecure)?;
        progress.report(Progress::Resolving { reference: reference.familiar() });
        let wanted = Reference::Registry(reference.clone());
        let source = ImageSource::open(&wanted, &pull, self.registries(), &progress).await?;
        let found = self.identify(&source, &reference.familiar(), &Platform::host()).await?;
        let fetched = self.fetch_built(&place, &found, &pull, &progress).await;
        let (chain, artifact) = fetched.map_err(|error| {
            error.while_doing(format!("fetching the built disk image of {}", reference.familiar()))
        })?;
        let names = NewNames {
            references: vec![wanted.to_string()],
            origin: NameOrigin::Source,
            of_registry: true,
            renew: true,
        };
        // The chain is leased until the image is recorded, which then keeps it.
        let image = self.store_found(&source, found, names, &progress).await?;
        drop(chain);
        Ok(DiskImageFetch { image, artifact, layers: self.settings().keep_blobs.value == KeepBlobs::Always })
    }

    /// Leases the disk image, fetching it if it is not there; says from which artifact.
    async fn fetch_built(
        &self,
        place: &RegistryReference,
        found: &ResolvedImage,
        pull: &PullOptions,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<(ImageChain, Option<Digest>)> {
        let virtual_size = self.settings().disk_size.value.0;
        let names = disk_digests(found.diff_ids(), virtual_size);
        let top = names.last().cloned().unwrap_or_default();
        let (home, wanted) = (self.home().clone(), top.clone());
        if let Some(chain) = blocking(move || disk_image::lease(&home, &wanted)).await? {
            return Ok((chain, None));
        }
        let artifact = self.find_artifact(place, found, &top, pull, progress).await?;
        let job = PullJob::new(self, names.clone())?;
        let outcome = self.fetch_segments(&artifact, names, &job, found.diff_ids(), progress).await;
        // The blobs have served, whatever has come of them.
        if outcome.as_ref().err().is_none_or(|error| error.kind() != ErrorKind::Unavailable) {
            self.take_back(&job).await;
        }
        Ok((outcome?, Some(artifact.digest)))
    }

    /// The first artifact that is for this image and home, and that the settings believe.
    async fn find_artifact(
        &self,
        place: &RegistryReference,
        found: &ResolvedImage,
        top: &str,
        pull: &PullOptions,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<FoundArtifact> {
        let (image, access) = (found.digest, self.registries());
        let all = Repository::referrers(place, image, ARTIFACT, pull, access, progress).await?;
        let trust = FetchTrust::of(self.settings())?;
        let mut refusal = None;
        for candidate in candidates(all, top, &trust).into_iter().take(MAX_CANDIDATES) {
            match self.examine(place, found, &candidate, pull, progress).await {
                Ok(artifact) => return Ok(artifact),
                Err(error)
                    if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::ResourceExhausted) =>
                {
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(artifact = %candidate.digest, error = %error.chain(), "passed over");
                    refusal.get_or_insert(error);
                }
            }
        }
        Err(refusal.unwrap_or_else(|| {
            Error::not_found(format!(
                "{}/{} has no built disk image of {image} for this version of boxlite and this disk_size; `boxlite image \
                 push` sends one",
                place.host(),
                place.repository()
            ))
        }))
    }

    async fn examine(
        &self,
        place: &RegistryReference,
        found: &ResolvedImage,
        candidate: &Referrer,
        pull: &PullOptions,
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<FoundArtifact> {
        let reference = place.at_digest(candidate.digest);
        let source = ImageSource::open_unmirrored(&reference, pull, self.registries(), progress).await?;
        let (digest, bytes) = source.top().await?;
        let manifest = ArtifactManifest::parse(&bytes)?;
        let config = source.config(manifest.config()).await?;
        let settings = self.settings();
        let signature = manifest.annotations.get(SIGNATURE).map(String::as_str);
        FetchTrust::of(settings)?.check_signature(&config, signature)?;
        let config: ArtifactConfig = serde_json::from_slice(&config).map_err(|error| {
            Error::corrupt(format!("the description of a built disk image of {} is malformed", found.digest))
                .because(error)
        })?;
        let (size, most) = (settings.disk_size.value.0, settings.max_expanded.value.0);
        let checked = config.check(found.digest, found.diff_ids(), size, most)?;
        if !manifest.has_layers_of(&checked.segments) {
            return Err(Error::corrupt(
                "the manifest of a built disk image has other layers than its config",
            ));
        }
        Ok(FoundArtifact { digest, checked, source })
    }

    /// Fetches the segments that the home lacks, and leases all.
    async fn fetch_segments(
        &self,
        artifact: &FoundArtifact,
        names: Vec<String>,
        job: &PullJob,
        diff_ids: &[Digest],
        progress: &Arc<dyn ProgressSink>,
    ) -> Result<ImageChain> {
        let CheckedArtifact { layer_sizes, segments } = &artifact.checked;
        let ends: Vec<usize> = segments.iter().map(|segment| segment.layers).collect();
        let (this, at, under) = (self.clone(), ends.clone(), names.clone());
        // The present files stay until all are there.
        let (_held, present) =
            blocking(move || disk_image::present_segments(this.home(), &under, &at)).await?;
        let missing = &segments[present..];
        let layers = ArtifactConfig::layers(missing);
        progress.report(Progress::Resolved {
            digest: artifact.digest,
            layers: layers.iter().map(|layer| (layer.digest, layer.length)).collect(),
        });
        let needed = missing.iter().fold(0_u64, |sum, segment| {
            sum.saturating_add(segment.blob_length).saturating_add(segment.stream_length)
        });
        let room = job.room().clone();
        blocking(move || room.ask(needed)).await?;
        let blobs = self.fetch_layers(&artifact.source, layers, job, progress).await?;
        let (this, segments) = (self.clone(), segments.clone());
        let sizes: Vec<(Digest, u64)> = diff_ids.iter().copied().zip(layer_sizes.iter().copied()).collect();
        blocking(move || {
            let mut write = |position: usize, staged: &Staged| {
                let room = this.room(names.clone())?;
                let entry = &segments[position];
                let path = this.blobs().path(entry.blob);
                let gone = || Error::conflict("a part of the disk image was collected meanwhile; try again");
                let blob = blobs.iter().find(|leased| leased.path() == path).ok_or_else(gone)?;
                unpack(entry, blob, &room, staged)
            };
            let chain = disk_image::ensure_written(&this, &names, &ends, &mut write)?;
            // A later image on these layers is cut by the sizes that they have.
            this.store().note_layer_sizes(&sizes)?;
            Ok(chain)
        })
        .await
    }
}

/// The referrers that say that they are the disk image `top`, each once: first those that name a key which counts, and of
/// equals the one that was listed last, which is the newest where clients keep the list. Others cost nothing but the list.
fn candidates(all: Vec<Referrer>, top: &str, trust: &FetchTrust<'_>) -> Vec<Referrer> {
    let named = |it: &Referrer| it.annotations.get(NAME).map(String::as_str) == Some(top);
    let mut seen = HashSet::new();
    let mut found: Vec<Referrer> =
        all.into_iter().rev().filter(named).filter(|it| seen.insert(it.digest)).collect();
    found.sort_by_key(|it| !trust.names_signer(it.annotations.get(SIGNATURE).map(String::as_str)));
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use boxlite_home::settings::{Settings, SettingsOptions, SettingsVariables};

    use super::*;

    #[test]
    fn what_a_trusted_key_claims_to_have_signed_comes_first() {
        let key = format!("{}=", "A".repeat(43));
        let text = format!("image_fetch_keys = \"{key}\"");
        let file = Some((Path::new("/h/config.toml"), text.as_str()));
        let settings =
            Settings::resolve(file, &SettingsVariables::default(), &SettingsOptions::default()).unwrap();
        let trust = FetchTrust::of(&settings).unwrap();
        let entry = |number: u8, name: &str, signature: Option<&str>| {
            let signature = signature.map(|text| (SIGNATURE.to_owned(), text.to_owned()));
            let annotations: BTreeMap<_, _> =
                [(NAME.to_owned(), name.to_owned())].into_iter().chain(signature).collect();
            let digest = Digest::of(&[number]);
            Referrer {
                media_type: String::new(),
                digest,
                size: 1,
                artifact_type: ARTIFACT.into(),
                annotations,
            }
        };
        let ours = format!("ed25519:{key}:c2ln");
        let other = format!("ed25519:{}=:c2ln", "B".repeat(43));
        let mut all = vec![entry(1, "top", Some(&ours)), entry(2, "top", Some(&ours))];
        all.push(entry(0, "another", Some(&ours)));
        all.extend((3..200).map(|number| entry(number, "top", (number % 2 == 0).then_some(&*other))));
        all.extend((0..50).map(|_| entry(9, "top", None)));
        let found = candidates(all, "top", &trust);
        let digests: Vec<Digest> = found.iter().map(|it| it.digest).collect();
        assert_eq!(digests[..3], [2, 1, 9].map(|number| Digest::of(&[number])));
        assert_eq!(digests.len(), 199);
    }
}
