//! Archives of images, as `docker save` and OCI's tools write them.
//!
//! # Layout
//! Blobs lie under `blobs/sha256/` as they are stored, described by `index.json` (OCI image spec, image-layout.md) and, in
//! an archive for Docker, also by `manifest.json`. The same images give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::sync::Arc;

use boxlite_home::blocking;
use boxlite_home::lease::Leased;
use boxlite_types::{ArchiveFormat, Digest, Doing, Error, Image, ProgressSink, PullOptions, Result};
use serde::Serialize;
use serde_json::json;

use super::Images;
use super::manifest::{OCI_INDEX, StoredManifest};
use super::source::layout::{IMAGE_NAME, REF_NAME};
use crate::reference::{Reference, RegistryReference};

/// Images that are about to be written to an archive; all that they are made of is leased.
#[derive(Debug)]
pub struct SavedImages {
    format: ArchiveFormat,
    index: Vec<u8>,
    docker: Vec<u8>,
    blobs: BTreeMap<Digest, Leased>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerItem {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Images {
    /// Leases all of `wanted` for an archive; layers that only their registry has are fetched first. An image has in
    /// the archive the names by which it is wanted: none where that is a digest.
    ///
    /// # Errors
    /// As for [`Images::find`] and [`Images::pull`]; `NotFound` when a layer is gone and no registry has it.
    pub async fn save(
        &self,
        wanted: &[String],
        format: ArchiveFormat,
        progress: Arc<dyn ProgressSink>,
    ) -> Result<SavedImages> {
        let mut found: Vec<(Image, BTreeSet<String>)> = Vec::new();
        for text in wanted {
            let (this, text) = (self.clone(), text.clone());
            let (image, name) = blocking(move || super::find(&this.store, &text)).await?;
            match found.iter_mut().find(|(known, _)| known.digest == image.digest) {
                Some((_, names)) => names.extend(name),
                None => found.push((image, name.into_iter().collect())),
            }
        }
        for (image, _) in &found {
            self.fetch_lost_layers(image, &PullOptions::default(), Arc::clone(&progress)).await?;
        }
        let this = self.clone();
        blocking(move || this.prepare(&found, format)).await
    }

    fn prepare(&self, images: &[(Image, BTreeSet<String>)], format: ArchiveFormat) -> Result<SavedImages> {
        let mut blobs = BTreeMap::new();
        let (mut manifests, mut items) = (Vec::new(), Vec::new());
        for (image, names) in images {
            let (manifest, config) = self.store().image_documents(image.digest)?;
            let (bytes, _) = self.documents(image)?;
            let stored = StoredManifest::parse(&bytes, image.digest)?;
            for layer in &image.layers {
                blobs.insert(layer.digest, self.lease_layer(image, layer)?);
            }
            for document in [manifest, config] {
                let gone = || Error::conflict(format!("image {} was removed meanwhile", image.digest));
                let leased = self.blobs().lease(document.digest, Some(document.length))?;
                blobs.insert(document.digest, leased.ok_or_else(gone)?);
            }
            let references: Vec<RegistryReference> =
                names.iter().filter_map(|name| registry_reference(name)).collect();
            let base = json!({
                "mediaType": stored.media_type(),
                "digest": image.digest,
                "size": bytes.len(),
                "platform": image.platform,
            });
            for reference in &references {
                let mut entry = base.clone();
                // Docker wants the tag alone here, and Podman the whole name.
                let ref_name = match format {
                    ArchiveFormat::DockerArchive => reference.tag().unwrap_or("latest").to_owned(),
                    ArchiveFormat::OciArchive => reference.to_string(),
                };
                entry["annotations"] = json!({ IMAGE_NAME: reference.to_string(), REF_NAME: ref_name });
                manifests.push(entry);
            }
            if references.is_empty() {
                manifests.push(base);
            }
            items.push(DockerItem {
                config: entry_name(stored.config.digest),
                repo_tags: references.iter().map(RegistryReference::familiar).collect(),
                layers: image.layers.iter().map(|layer| entry_name(layer.digest)).collect(),
            });
        }
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        let docker = serde_json::to_vec(&items)
            .map_err(|error| Error::bug("a list of images cannot be written down").because(error))?;
        Ok(SavedImages { format, index: index.to_string().into_bytes(), docker, blobs })
    }
}

impl SavedImages {
    /// Bytes of all blobs.
    ///
    /// # Errors
    /// `Io` when one cannot be examined.
    pub fn length(&self) -> Result<u64> {
        let lengths = self.blobs.values().map(|blob| {
            let metadata = blob.file().metadata().doing("examining the blob", blob.path())?;
            Ok(metadata.len())
        });
        lengths.sum()
    }

    /// Writes the archive; may block.
    ///
    /// # Errors
    /// `Corrupt` when a blob is not what its name says: what was written is of no use then. `Io` when `out` fails.
    pub fn write(&self, out: impl Write) -> Result<()> {
        let failed = |error: std::io::Error| match error.downcast::<Error>() {
            Ok(own) => own,
            Err(error) => Error::io("writing", "the archive", error),
        };
        let mut archive = tar::Builder::new(out);
        for directory in ["blobs/", "blobs/sha256/"] {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            archive.append_data(&mut header, directory, std::io::empty()).map_err(failed)?;
        }
        let mut file = |name: &str, bytes: &[u8]| {
            let mut header = header(tar::EntryType::Regular, 0o644, bytes.len() as u64);
            archive.append_data(&mut header, name, bytes)
        };
        file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(failed)?;
        file("index.json", &self.index).map_err(failed)?;
        if self.format == ArchiveFormat::DockerArchive {
            file("manifest.json", &self.docker).map_err(failed)?;
        }
        for (digest, blob) in &self.blobs {
            let mut verified = VerifiedReader::new(blob, *digest)?;
            let mut header = header(tar::EntryType::Regular, 0o644, verified.left);
            archive.append_data(&mut header, entry_name(*digest), &mut verified).map_err(failed)?;
        }
        archive.into_inner().and_then(|mut out| out.flush()).map_err(failed)
    }
}

fn registry_reference(name: &str) -> Option<RegistryReference> {
    match name.parse() {
        Ok(Reference::Registry(reference)) if reference.digest().is_none() => Some(reference),
        _ => None,
    }
}

fn entry_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header
}

/// Reads a blob, and fails at its end if its bytes are not those of its digest.
struct VerifiedReader<'a> {
    blob: &'a Leased,
    digest: Digest,
    hasher: sha2::Sha256,
    offset: u64,
    left: u64,
}

impl<'a> VerifiedReader<'a> {
    fn new(blob: &'a Leased, digest: Digest) -> Result<Self> {
        let left = blob.file().metadata().doing("examining the blob", blob.path())?.len();
        Ok(Self { blob, digest, hasher: sha2::Digest::new(), offset: 0, left })
    }
}

impl Read for VerifiedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let wanted = self.left.min(buffer.len() as u64) as usize;
        let got = self.blob.file().read_at(&mut buffer[..wanted], self.offset)?;
        sha2::Digest::update(&mut self.hasher, &buffer[..got]);
        self.offset += got as u64;
        self.left -= got as u64;
        if wanted > 0 && self.left == 0 && Digest::finish(self.hasher.clone()) != self.digest {
            let message = format!("the stored blob {} is damaged; get its image anew", self.digest);
            return Err(Error::corrupt(message).at(self.blob.path()).into());
        }
        if wanted > 0 && got == 0 {
            let message = format!("the stored blob {} has become shorter", self.digest);
            return Err(Error::corrupt(message).at(self.blob.path()).into());
        }
        Ok(got)
    }
}
