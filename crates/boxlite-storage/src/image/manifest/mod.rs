//! Manifests, indexes and configs: bounded, hostile input until their digest and shape are checked.
//!
//! OCI image spec 1.1 (manifest.md, image-index.md, config.md) and Docker's schema 2, which has the same shape.

mod config;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use boxlite_types::{Digest, Error, Platform, Result};
use serde::{Deserialize, Serialize};

pub(crate) use config::{ParsedConfig, parse_config};

/// The most bytes a manifest, index or config may have; what registries accept themselves.
pub(crate) const DOCUMENT_LIMIT: u64 = 4 << 20;
/// The most layers an image may have.
pub(crate) const LAYER_LIMIT: usize = 512;
/// The most bytes that all layers of an image may have together.
const LENGTH_LIMIT: u64 = 1 << 50;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// A pointer to content by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    /// Length in bytes; a claim until the content has been read.
    #[serde(rename = "size")]
    pub(crate) length: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// One platform's image: its config and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// The facts that a stored manifest states.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredManifest {
    #[serde(default)]
    media_type: Option<String>,
    pub(crate) config: Descriptor,
}

impl StoredManifest {
    /// Reads the manifest of the image `digest`.
    ///
    /// # Errors
    /// `Corrupt` when it is malformed.
    pub(crate) fn parse(bytes: &[u8], digest: Digest) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| {
            Error::corrupt(format!("the manifest of image {digest} is malformed")).because(error)
        })
    }

    /// Its media type.
    pub(crate) fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(OCI_MANIFEST)
    }
}

/// The document that a reference leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ManifestDocument {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<RawEntry>>,
}

/// An entry of an index; those that boxlite cannot read (another digest algorithm) are not candidates.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawEntry {
    Known(Descriptor),
    Unknown(serde::de::IgnoredAny),
}

/// Parses what a source gave for `name`.
///
/// # Errors
/// `Corrupt` when it is neither a manifest nor an index, or both at once (CVE-2021-41190); `Unsupported` for
/// Docker's schema 1 and for things that are not a container image.
pub(crate) fn parse(bytes: &[u8], name: &str) -> Result<ManifestDocument> {
    let broken = |why: String| Error::corrupt(format!("the manifest of {name} is malformed: {why}"));
    if let Ok(Versioned { schema_version: 1 }) = serde_json::from_slice(bytes) {
        let message =
            format!("{name} is in Docker's schema 1, which registries gave up in 2019; push it anew");
        return Err(Error::unsupported(message));
    }
    let raw: RawManifest =
        serde_json::from_slice(bytes).map_err(|error| broken(error.to_string()).because(error))?;
    if raw.schema_version != 2 {
        return Err(broken(format!("schemaVersion is {}, not 2", raw.schema_version)));
    }
    let media_type = raw.media_type.as_deref();
    match (raw.config, raw.layers, raw.manifests) {
        (None, None, Some(entries)) if matches!(media_type, None | Some(OCI_INDEX | DOCKER_INDEX)) => {
            let known = entries.into_iter().filter_map(|entry| match entry {
                RawEntry::Known(descriptor) => Some(descriptor),
                RawEntry::Unknown(_) => None,
            });
            Ok(ManifestDocument::Index(known.collect()))
        }
        (Some(config), Some(layers), None)
            if matches!(media_type, None | Some(OCI_MANIFEST | DOCKER_MANIFEST)) =>
        {
            Ok(ManifestDocument::Manifest(Manifest { config, layers }.checked(name)?))
        }
        _ => Err(broken(format!(
            "it is neither an image manifest nor an index (media type {})",
            media_type.unwrap_or("absent")
        ))),
    }
}

#[derive(Deserialize)]
struct Versioned {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
}

impl Manifest {
    fn checked(self, name: &str) -> Result<Self> {
        if !matches!(self.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG | "") {
            let message =
                format!("{name} is no container image: its config is of type {}", self.config.media_type);
            return Err(Error::unsupported(message));
        }
        if self.config.length > DOCUMENT_LIMIT {
            let message = format!(
                "the config of {name} claims {} bytes, and at most {DOCUMENT_LIMIT} are read",
                self.config.length
            );
            return Err(Error::corrupt(message));
        }
        if self.layers.len() > LAYER_LIMIT {
            let message =
                format!("{name} has {} layers, and at most {LAYER_LIMIT} are read", self.layers.len());
            return Err(Error::unsupported(message));
        }
        let total = self.layers.iter().try_fold(0_u64, |sum, layer| sum.checked_add(layer.length));
        if total.is_none_or(|total| total > LENGTH_LIMIT) {
            return Err(Error::corrupt(format!("the layers of {name} claim more than {LENGTH_LIMIT} bytes")));
        }
        match self.layers.iter().find(|layer| !is_layer(&layer.media_type)) {
            Some(layer) => Err(Error::unsupported(format!(
                "layer {} of {name} is of type {}, and boxlite reads tar, tar+gzip and tar+zstd",
                layer.digest, layer.media_type
            ))),
            None => Ok(self),
        }
    }

    /// The manifest in the form that is stored when the source has none of its own (`docker save`).
    ///
    /// The same image always gives the same bytes.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let value = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.config,
            "layers": self.layers,
        });
        value.to_string().into_bytes()
    }
}

/// Whether `media_type` is a tar layer. How it is compressed is told by its first bytes and not by this type.
fn is_layer(media_type: &str) -> bool {
    let docker = media_type
        .strip_prefix("application/vnd.docker.image.rootfs.")
        .map(|rest| rest.strip_prefix("foreign.").unwrap_or(rest));
    let oci = media_type.strip_prefix("application/vnd.oci.image.layer.");
    let oci = oci.map(|rest| rest.strip_prefix("nondistributable.").unwrap_or(rest));
    matches!(docker, Some("diff.tar" | "diff.tar.gzip" | "diff.tar.zstd"))
        || matches!(oci, Some("v1.tar" | "v1.tar+gzip" | "v1.tar+zstd"))
}

/// The entry of an index that serves `wanted`.
///
/// # Errors
/// `NotFound`, naming the platforms that there are.
pub(crate) fn choose<'a>(entries: &'a [Descriptor], wanted: &Platform, name: &str) -> Result<&'a Descriptor> {
    let is_document = |entry: &&Descriptor| {
        matches!(entry.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST | OCI_INDEX | DOCKER_INDEX | "")
    };
    let offered: Vec<&Descriptor> = entries.iter().filter(is_document).collect();
    let mut serving = offered.iter().filter_map(|entry| {
        let found = entry.platform.as_ref().filter(|found| wanted.accepts(found))?;
        Some((entry, found.variant.is_none()))
    });
    let first = serving.next();
    let plain = first.filter(|(_, plain)| *plain).or_else(|| serving.find(|(_, plain)| *plain));
    if let Some((entry, _)) = plain.or(first) {
        return Ok(entry);
    }
    if let [only] = offered[..]
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let mut platforms: Vec<String> =
        offered.iter().filter_map(|entry| entry.platform.as_ref()).map(Platform::to_string).collect();
    platforms.retain(|platform| !platform.starts_with("unknown/"));
    let there =
        if platforms.is_empty() { "none that names its platform".to_owned() } else { platforms.join(", ") };
    Err(Error::not_found(format!("{name} has no image for {wanted}; there is {there}")))
}
