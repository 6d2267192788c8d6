//! Archives of `docker save`: a tar file with `manifest.json`, configs and uncompressed layers.
//!
//! It has no manifest in OCI's sense, so one is made from its config and layers, always the same for the
//! same contents.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use boxlite_types::{Digest, Doing, Error, ErrorCause, Result};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::place::SliceIdentity;
use super::{IMAGE_LIMIT, LocalSource, SourcePlace};
use crate::image::ingest::CHUNK;
use crate::image::manifest::{self, DOCUMENT_LIMIT, Descriptor, LAYER_LIMIT, Manifest, OCI_CONFIG};
use crate::reference::RegistryReference;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifestItem {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Finds the image called `wanted`, or the only one, in the archive at `place`.
pub(super) fn open(
    place: Arc<SourcePlace>,
    wanted: Option<&RegistryReference>,
    name: String,
) -> Result<LocalSource> {
    if !place.has("manifest.json") {
        let message = format!(
            "{} is no archive of docker save: it lacks manifest.json (oci-archive: reads OCI layouts)",
            place.path().display()
        );
        return Err(Error::corrupt(message).about(ErrorCause::LocalImage).at(place.path()));
    }
    let items = read_items(&place)?;
    let item = choose(&items, wanted, &name)?;
    source_of(place, item, name, &mut HashMap::new())
}

/// All images in the archive at `place`, each with its names.
pub(super) fn all(place: &Arc<SourcePlace>) -> Result<Vec<(LocalSource, Vec<RegistryReference>)>> {
    let items = read_items(place)?;
    let path = place.path().display();
    if items.is_empty() || items.len() > IMAGE_LIMIT {
        let message = format!("{path} has {} images, and 1 to {IMAGE_LIMIT} are read", items.len());
        return Err(Error::unsupported(message).about(ErrorCause::LocalImage).at(place.path()));
    }
    let mut found = Vec::new();
    let mut hashed = HashMap::new();
    for item in &items {
        let names = item.repo_tags.iter().flatten().map(|tag| RegistryReference::parse(tag));
        let names = names.collect::<Result<Vec<_>>>().map_err(|error| {
            error.about(ErrorCause::LocalImage).while_doing(format!("manifest.json in {path}"))
        })?;
        let called = names.first().map_or_else(|| item.config.clone(), RegistryReference::familiar);
        found.push((source_of(Arc::clone(place), item, format!("{called} in {path}"), &mut hashed)?, names));
    }
    Ok(found)
}

fn read_items(place: &SourcePlace) -> Result<Vec<DockerManifestItem>> {
    let text = place.read("manifest.json", DOCUMENT_LIMIT)?;
    serde_json::from_slice(&text).map_err(|error| {
        let message = format!("manifest.json in {} is malformed: {error}", place.path().display());
        Error::corrupt(message).about(ErrorCause::LocalImage).at(place.path()).because(error)
    })
}

/// The digests of compressed layers that were hashed, by where they lie: images share them, and names may lead to one place.
type HashedLayers = HashMap<SliceIdentity, Digest>;

fn source_of(
    place: Arc<SourcePlace>,
    item: &DockerManifestItem,
    name: String,
    hashed: &mut HashedLayers,
) -> Result<LocalSource> {
    if item.layers.len() > LAYER_LIMIT {
        let message = format!("{name} has {} layers, and at most {LAYER_LIMIT} are read", item.layers.len());
        return Err(Error::unsupported(message).about(ErrorCause::LocalImage).at(place.path()));
    }
    let config = place.read(&item.config, DOCUMENT_LIMIT)?;
    let parsed = manifest::parse_config(&config, item.layers.len(), &name)?;
    let mut names = HashMap::new();
    let mut layers = Vec::with_capacity(item.layers.len());
    for (entry, diff_id) in item.layers.iter().zip(&parsed.diff_ids) {
        let layer = describe(&place, entry, *diff_id, hashed)?;
        names.insert(layer.digest, entry.clone());
        layers.push(layer);
    }
    let config_digest = Digest::of(&config);
    let config_descriptor = descriptor(OCI_CONFIG, config_digest, config.len() as u64);
    let manifest = Manifest { config: config_descriptor, layers }.to_json();
    let top = Digest::of(&manifest);
    let made_up = HashMap::from([(top, manifest), (config_digest, config)]);
    Ok(LocalSource { place, top, made_up, names, name })
}

fn choose<'a>(
    items: &'a [DockerManifestItem],
    wanted: Option<&RegistryReference>,
    name: &str,
) -> Result<&'a DockerManifestItem> {
    let tags = |item: &'a DockerManifestItem| item.repo_tags.iter().flatten().map(String::as_str);
    let listed = || {
        let all: Vec<&str> = items.iter().flat_map(tags).take(20).collect();
        if all.is_empty() { "no names".to_owned() } else { all.join(", ") }
    };
    match (wanted, items) {
        (Some(wanted), _) => items
            .iter()
            .find(|item| tags(item).any(|tag| RegistryReference::parse(tag).is_ok_and(|tag| tag == *wanted)))
            .ok_or_else(|| {
                Error::not_found(format!("{name} has no image of that name; it has {}", listed()))
            }),
        (None, [only]) => Ok(only),
        (None, []) => Err(Error::not_found(format!("{name} has no image"))),
        (None, _) => {
            Err(Error::invalid(format!("{name} has several images; name one of {} after a colon", listed())))
        }
    }
}

/// A plain tar layer is its own `diff_id` (verified when it is copied); a compressed one has to be hashed.
fn describe(
    place: &SourcePlace,
    entry: &str,
    diff_id: Digest,
    hashed: &mut HashedLayers,
) -> Result<Descriptor> {
    let slice = place.open(entry)?;
    let (length, identity) = (slice.length(), slice.identity().doing("examining", place.path())?);
    let mut magic = Vec::new();
    slice.take(4).read_to_end(&mut magic).doing("reading", place.path())?;
    let suffix = match magic[..] {
        [0x1f, 0x8b, ..] => "+gzip",
        [0x28, 0xb5, 0x2f, 0xfd] => "+zstd",
        _ => "",
    };
    let digest = if suffix.is_empty() {
        diff_id
    } else if let Some(known) = hashed.get(&identity) {
        *known
    } else {
        let mut hasher = Sha256::new();
        let mut slice = place.open(entry)?;
        let mut buffer = vec![0; CHUNK];
        let digest = loop {
            match slice.read(&mut buffer).doing("reading", place.path())? {
                0 => break Digest::finish(hasher),
                got => hasher.update(&buffer[..got]),
            }
        };
        hashed.insert(identity, digest);
        digest
    };
    Ok(descriptor(&format!("application/vnd.oci.image.layer.v1.tar{suffix}"), digest, length))
}

fn descriptor(media_type: &str, digest: Digest, length: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        length,
        platform: None,
        annotations: std::collections::BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn item(layers: &[String]) -> DockerManifestItem {
        DockerManifestItem { config: "config".into(), repo_tags: None, layers: layers.to_vec() }
    }

    fn source(directory: &Path, layers: &[String], hashed: &mut HashedLayers) -> Result<LocalSource> {
        let place = Arc::new(SourcePlace::directory(directory)?);
        source_of(place, &item(layers), "x".into(), hashed)
    }

    #[test]
    fn layers_are_counted_before_anything_is_read_and_each_is_hashed_once() {
        let scratch = tempfile::tempdir().unwrap();
        // There is not even a config.
        let many = vec!["layer".to_owned(); LAYER_LIMIT + 1];
        let error = source(scratch.path(), &many, &mut HashMap::new()).unwrap_err();
        assert_eq!(error.kind(), boxlite_types::ErrorKind::Unsupported, "{error}");
        let diff_id = Digest::of(b"plain");
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [diff_id, diff_id] },
        });
        std::fs::write(scratch.path().join("config"), config.to_string()).unwrap();
        std::fs::write(scratch.path().join("one"), [0x1f, 0x8b, 1, 2]).unwrap();
        std::fs::hard_link(scratch.path().join("one"), scratch.path().join("two")).unwrap();
        let mut hashed = HashMap::new();
        source(scratch.path(), &["one".to_owned(), "two".to_owned()], &mut hashed).unwrap();
        assert_eq!(hashed.len(), 1);
    }
}
