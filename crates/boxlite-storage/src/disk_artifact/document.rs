//! The documents of an artifact: the description of a disk image's segments, and the manifest around it. Hostile until checked.

use std::collections::BTreeMap;

use boxlite_ext4::{BUILDER_VERSION, SEGMENT_RULE};
use boxlite_types::{Digest, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::stream::RUN_HEAD;
use crate::disk::qcow2::delta;
use crate::image::manifest::{Descriptor, OCI_MANIFEST};
use crate::image::{LAYER_LIMIT, disk_digests};

/// The type of the artifact.
pub(super) const ARTIFACT: &str = "application/vnd.boxlite.disk-image.v1";
/// The type of its config.
pub(super) const CONFIG: &str = "application/vnd.boxlite.disk-image.config.v1+json";
/// The type of its layers.
pub(super) const SEGMENT: &str = "application/vnd.boxlite.disk-image.segment.v1+zstd";
/// The annotation with the name of the disk image, by which an artifact is found among those of other builders and sizes.
pub(super) const NAME: &str = "io.boxlite.disk-image";
/// The annotation with the signature of the config.
pub(super) const SIGNATURE: &str = "io.boxlite.signature";
/// The most bytes of a config.
pub(super) const CONFIG_LIMIT: u64 = 1 << 20;
/// The bound on a delta's metadata beside the blocks that it can have.
const DELTA_OVERHEAD: u64 = 1 << 30;

/// The config of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ArtifactConfig {
    pub(super) builder_version: u32,
    pub(super) segment_rule: u32,
    pub(super) virtual_size: u64,
    /// The digest of the image's manifest.
    pub(super) image: Digest,
    /// The uncompressed size of each layer, on which the cuts depend.
    pub(super) layer_sizes: Vec<u64>,
    /// The lowest first.
    pub(super) segments: Vec<SegmentEntry>,
}

/// One file of a disk image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SegmentEntry {
    /// The digest by which the file is called.
    pub(super) name: String,
    /// How many of the image's layers are in it and below it.
    pub(super) layers: usize,
    /// Bytes of the file, holes included.
    pub(super) length: u64,
    /// The SHA-256 of its stream.
    pub(super) content: Digest,
    /// Bytes of the stream.
    pub(super) stream_length: u64,
    /// The compressed stream.
    pub(super) blob: Digest,
    pub(super) blob_length: u64,
}

/// An artifact whose description fits the image and the home that want it.
#[derive(Debug)]
pub(super) struct CheckedArtifact {
    pub(super) layer_sizes: Vec<u64>,
    pub(super) segments: Vec<SegmentEntry>,
}

impl ArtifactConfig {
    /// Checks that this describes the disk image of these layers.
    ///
    /// # Errors
    /// `Unsupported` when it is another builder's or another size's; `Corrupt` when it contradicts itself or the image.
    pub(super) fn check(
        self,
        image: Digest,
        diff_ids: &[Digest],
        virtual_size: u64,
        max_expanded: u64,
    ) -> Result<CheckedArtifact> {
        let wrong =
            |why: &str| Error::corrupt(format!("the built disk image of {image} is malformed: {why}"));
        let own = (BUILDER_VERSION, SEGMENT_RULE, virtual_size);
        if (self.builder_version, self.segment_rule, self.virtual_size) != own {
            return Err(Error::unsupported(format!(
                "the built disk image of {image} is another builder's, or of another size"
            )));
        }
        if self.image != image || self.layer_sizes.len() != diff_ids.len() {
            return Err(wrong("it is not this image's"));
        }
        // A sum that overflows is one of no image.
        let total = self.layer_sizes.iter().try_fold(0_u64, |sum, size| sum.checked_add(*size));
        if total.is_none() {
            return Err(wrong("its layers have no size"));
        }
        let ends: Vec<usize> = self.segments.iter().map(|segment| segment.layers).collect();
        if ends != cuts(&self.layer_sizes, virtual_size) {
            return Err(wrong("its cuts are not those of these layers"));
        }
        let names = disk_digests(diff_ids, virtual_size);
        let mut left = max_expanded;
        for (position, segment) in self.segments.iter().enumerate() {
            if names.get(segment.layers.saturating_sub(1)) != Some(&segment.name) {
                return Err(wrong("a file has another name than its layers give it"));
            }
            let is_length = match position {
                0 => segment.length == virtual_size,
                _ => segment.length <= virtual_size.saturating_add(DELTA_OVERHEAD),
            };
            if !is_length {
                return Err(wrong("a file has another length than its form has"));
            }
            // Every block that is not zeros takes at least its head and one byte.
            let most =
                segment.length.saturating_add(segment.length / 4096 * RUN_HEAD as u64).saturating_add(4096);
            if segment.stream_length > most
                || segment.blob_length > segment.stream_length.saturating_add(1 << 20)
            {
                return Err(wrong("a file claims more bytes than it can have"));
            }
            left = left.checked_sub(segment.stream_length).ok_or_else(|| {
                Error::unsupported(format!(
                    "the built disk image of {image} expands to more than {max_expanded} bytes (setting max_expanded)"
                ))
            })?;
        }
        Ok(CheckedArtifact { layer_sizes: self.layer_sizes, segments: self.segments })
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|error| Error::bug("an artifact cannot be written down").because(error))
    }

    /// The descriptors of the layers, one for each segment.
    pub(super) fn layers(segments: &[SegmentEntry]) -> Vec<Descriptor> {
        let layer = |segment: &SegmentEntry| described(SEGMENT, segment.blob, segment.blob_length);
        segments.iter().map(layer).collect()
    }
}

/// The ends of the segments of layers with these uncompressed sizes.
pub(super) fn cuts(layer_sizes: &[u64], virtual_size: u64) -> Vec<usize> {
    if virtual_size > delta::MAX_VIRTUAL {
        return vec![layer_sizes.len()];
    }
    boxlite_ext4::segment_ends(layer_sizes)
}

/// The manifest of an artifact, as far as a reader needs it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ArtifactManifest {
    #[serde(default)]
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

impl ArtifactManifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// `Corrupt` when it is malformed or not of this type.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong =
            |why: String| Error::corrupt(format!("the manifest of a built disk image is malformed: {why}"));
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if manifest.artifact_type != ARTIFACT || manifest.config.media_type != CONFIG {
            return Err(wrong("it is of another type".to_owned()));
        }
        if manifest.config.length > CONFIG_LIMIT {
            return Err(wrong(format!("its config claims more than {CONFIG_LIMIT} bytes")));
        }
        if manifest.layers.len() > LAYER_LIMIT
            || manifest.layers.iter().any(|layer| layer.media_type != SEGMENT)
        {
            return Err(wrong("its layers are of another type, or too many".to_owned()));
        }
        Ok(manifest)
    }

    pub(super) fn config(&self) -> &Descriptor {
        &self.config
    }

    /// Whether the layers are those of the segments.
    pub(super) fn has_layers_of(&self, segments: &[SegmentEntry]) -> bool {
        let found = self.layers.iter().map(|layer| (layer.digest, layer.length));
        found.eq(segments.iter().map(|segment| (segment.blob, segment.blob_length)))
    }

    /// The bytes of the manifest of an artifact with this config, which refers to an image's manifest.
    pub(super) fn to_json(
        config: &[u8],
        segments: &[SegmentEntry],
        subject: &Descriptor,
        annotations: &BTreeMap<String, String>,
    ) -> Vec<u8> {
        let value = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": ARTIFACT,
            "config": described(CONFIG, Digest::of(config), config.len() as u64),
            "layers": ArtifactConfig::layers(segments),
            "subject": subject,
            "annotations": annotations,
        });
        value.to_string().into_bytes()
    }
}

/// A descriptor without more.
pub(super) fn described(media_type: &str, digest: Digest, length: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        length,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use boxlite_types::ErrorKind;

    use super::*;

    const SIZE: u64 = 1 << 30;

    fn digest(byte: u8) -> Digest {
        Digest::of(&[byte])
    }

    /// An artifact of an image with two layers, each a segment of its own.
    fn right() -> (ArtifactConfig, Vec<Digest>) {
        let diff_ids = vec![digest(1), digest(2)];
        let layer_sizes = vec![64 << 20, 64 << 20];
        let names = disk_digests(&diff_ids, SIZE);
        let segments = cuts(&layer_sizes, SIZE).into_iter().map(|end| SegmentEntry {
            name: names[end - 1].clone(),
            layers: end,
            length: SIZE,
            content: digest(3),
            stream_length: 1 << 20,
            blob: digest(4),
            blob_length: 1 << 19,
        });
        let config = ArtifactConfig {
            builder_version: BUILDER_VERSION,
            segment_rule: SEGMENT_RULE,
            virtual_size: SIZE,
            image: digest(9),
            layer_sizes: layer_sizes.clone(),
            segments: segments.collect(),
        };
        (config, diff_ids)
    }

    fn kind(edit: impl FnOnce(&mut ArtifactConfig)) -> Option<ErrorKind> {
        let (mut config, diff_ids) = right();
        edit(&mut config);
        config.check(digest(9), &diff_ids, SIZE, 64 << 20).err().map(|error| error.kind())
    }

    #[test]
    fn an_artifact_must_fit_the_image_and_the_home() {
        assert_eq!(right().0.segments.len(), 2);
        assert_eq!(kind(|_| ()), None);
        let corrupt = Some(ErrorKind::Corrupt);
        assert_eq!(kind(|config| config.builder_version += 1), Some(ErrorKind::Unsupported));
        assert_eq!(kind(|config| config.virtual_size += 1), Some(ErrorKind::Unsupported));
        assert_eq!(kind(|config| config.image = digest(8)), corrupt);
        assert_eq!(kind(|config| config.layer_sizes.push(1)), corrupt);
        assert_eq!(kind(|config| config.layer_sizes = vec![1, 1]), corrupt, "these layers are not cut so");
        assert_eq!(kind(|config| config.layer_sizes = vec![u64::MAX, u64::MAX]), corrupt);
        assert_eq!(kind(|config| drop(config.segments.pop())), corrupt);
        assert_eq!(kind(|config| config.segments.reverse()), corrupt);
        assert_eq!(kind(|config| config.segments[1].name = config.segments[0].name.clone()), corrupt);
        assert_eq!(kind(|config| config.segments[0].length -= 1), corrupt);
        assert_eq!(kind(|config| config.segments[1].length = u64::MAX), corrupt);
        assert_eq!(kind(|config| config.segments[0].stream_length = 2 * SIZE), corrupt);
        assert_eq!(kind(|config| config.segments[0].blob_length = u64::MAX), corrupt);
        let expands = kind(|config| config.segments[0].stream_length = 64 << 20);
        assert_eq!(expands, Some(ErrorKind::Unsupported), "more than max_expanded");
    }

    #[test]
    fn a_manifest_has_the_types_of_an_artifact() {
        let (config, _) = right();
        let bytes = config.to_json().unwrap();
        let subject = described(OCI_MANIFEST, digest(9), 5);
        let text = ArtifactManifest::to_json(&bytes, &config.segments, &subject, &BTreeMap::new());
        let read = ArtifactManifest::parse(&text).unwrap();
        assert!(read.has_layers_of(&config.segments) && !read.has_layers_of(&config.segments[..1]));
        let text = String::from_utf8(text).unwrap();
        for (from, to) in
            [(ARTIFACT, "x"), (CONFIG, "x"), (SEGMENT, "application/vnd.oci.image.layer.v1.tar")]
        {
            assert!(ArtifactManifest::parse(text.replace(from, to).as_bytes()).is_err(), "{from}");
        }
        let bytes = config.to_json().unwrap().len();
        let large = text.replace(&format!("\"size\":{bytes}"), "\"size\":9999999");
        assert!(large != text && ArtifactManifest::parse(large.as_bytes()).is_err());
    }
}
