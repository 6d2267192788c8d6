//! New images: of a box's changes over its own image, or of an archive of files.
//!
//! Both are ordinary images: blobs by digest, a manifest, and a config whose history says how they came to be. Until the
//! catalogue has the image, all that it is made of is leased; after a `kill -9` the blobs that were published are garbage.

mod edit;
mod healthcheck;

use std::io::Read;
use std::sync::Arc;

use boxlite_archive::tree::TreeFile;
use boxlite_home::blocking;
use boxlite_home::lease::Leased;
use boxlite_types::{CommitOptions, Digest, Error, FileChange, Image, Layer, Platform, PullOptions, Result};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tar::Archive;

pub(super) use edit::ConfigEdit;

use super::changes::{self, BoxTree, FinishedLayer, ImageTree, LayerWriter};
use super::load::Uncompressed;
use super::manifest::{self, DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST};
use super::source::TarHeaderReader;
use super::{Images, given_name};
use crate::disk::image_chain;
use crate::store::{Document, NameOrigin};

const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Bytes of an archive without files: two blocks of zeros, and up to as many as `tar` writes at once.
const EMPTY_TAR: std::ops::RangeInclusive<u64> = 1024..=10_240;

/// The properties of a new image, checked before any work is done for it.
#[derive(Debug)]
pub struct CommitPlan {
    name: Option<String>,
    message: String,
    author: String,
    edits: Vec<ConfigEdit>,
    /// The command that made it, for its history.
    command: String,
}

impl CommitPlan {
    /// Checks what was asked for; `command` says in the image's history what made it.
    ///
    /// # Errors
    /// `InvalidInput` for a name that cannot be given, or a change that is none.
    pub fn new(options: &CommitOptions, command: &str) -> Result<Self> {
        let name = options.name.as_deref().map(given_name).transpose()?;
        let edits = options.changes.iter().map(|text| ConfigEdit::parse(text)).collect::<Result<_>>()?;
        Ok(Self {
            name: name.map(|name| name.to_string()),
            message: options.message.clone(),
            author: options.author.clone(),
            edits,
            command: command.to_owned(),
        })
    }
}

/// The changes of a box to its image, and the layer that they become.
#[derive(Debug)]
pub struct Comparison {
    tree: BoxTree,
    changes: changes::BoxChanges,
}

impl Comparison {
    /// The changes, in the order of paths.
    pub fn described(&self) -> Vec<FileChange> {
        changes::described(&self.changes)
    }

    /// The answer to the guest that asks for all that has changed.
    pub fn selection(&self) -> Vec<u8> {
        BoxTree::selection(&self.changes.selected)
    }
}

/// The image that a commit stands on, whose layers no gc removes meanwhile.
#[derive(Debug)]
pub struct CommitBase {
    image: Image,
    _layers: Vec<Leased>,
}

impl Images {
    /// Compares a box's files with those of its disk image, `disk_digest`; may block.
    ///
    /// # Errors
    /// `Unsupported` when an older boxlite has built the disk image.
    pub fn compare(&self, tree: BoxTree, disk_digest: &Digest) -> Result<Comparison> {
        let missing = || {
            let message =
                "the box's disk image is missing or damaged, so that nothing can be compared with it";
            Error::not_found(message).at(self.home().disk_image(&disk_digest.hex()))
        };
        let chain = image_chain::lease(self.home(), &disk_digest.hex())?.ok_or_else(missing)?;
        let source = chain.source();
        // The file's own name is what it was built as.
        let changes = ImageTree::of(&source, disk_digest)?.changes(&tree.files);
        Ok(Comparison { tree, changes })
    }

    /// Holds the image of manifest digest `image` for a commit over it: layers that only its registry has are fetched
    /// first, because the new image is in no registry.
    ///
    /// # Errors
    /// `NotFound` when the image is not in the catalogue any more, or a layer is gone and no registry has it; as for
    /// [`Images::pull`] where a layer must be fetched.
    pub async fn commit_base(&self, image: Digest) -> Result<CommitBase> {
        let gone = || {
            let message = format!(
                "the box's image {image} was removed, and a commit stands on it; `boxlite export` takes the files alone"
            );
            Error::not_found(message)
        };
        let store = self.store().clone();
        let image = blocking(move || store.image(image)).await?.ok_or_else(gone)?;
        self.fetch_lost_layers(&image, &PullOptions::default(), Arc::new(())).await?;
        let this = self.clone();
        blocking(move || {
            let leased = image.layers.iter().map(|layer| this.lease_layer(&image, layer));
            let layers = leased.collect::<Result<Vec<_>>>()?;
            Ok(CommitBase { image, _layers: layers })
        })
        .await
    }

    /// Makes an image of a box's changes over its image; the changed files are read from the guest. May block.
    ///
    /// # Errors
    /// `ResourceExhausted` where the disk is too full; `Corrupt` for what is not a guest's answer.
    pub fn commit(
        &self,
        comparison: &Comparison,
        base: &CommitBase,
        plan: &CommitPlan,
        most: u64,
        from: &mut impl Read,
    ) -> Result<Image> {
        let layer = if comparison.changes.all.is_empty() {
            None
        } else {
            let mut layer = LayerWriter::begin(self)?;
            layer.changes(&comparison.tree.files, &comparison.changes, from, most)?;
            Some(layer.finish()?)
        };
        self.publish(Some(&base.image), layer, plan)
    }

    /// Makes an image of one layer out of an archive of files, compressed or not; may block.
    ///
    /// # Errors
    /// `Corrupt` for what is no tar archive; `ResourceExhausted` where the disk is too full.
    pub fn import(&self, archive: impl Read, plan: &CommitPlan) -> Result<Image> {
        let mut layer = LayerWriter::begin(self)?;
        let tar = Uncompressed::of(archive)?;
        let spooled = self.spool_plain(tar)?;
        check_tar(spooled.file())?;
        let file = spooled.file().try_clone().map_err(|error| Error::io("reading", spooled.path(), error))?;
        layer.copy(RewoundFile { file, at: 0 })?;
        let layer = layer.finish_as_it_is()?;
        self.publish(None, Some(layer), plan)
    }

    /// Records an image of the base's layers and one more.
    fn publish(
        &self,
        base: Option<&Image>,
        layer: Option<FinishedLayer>,
        plan: &CommitPlan,
    ) -> Result<Image> {
        let now = Timestamp::now();
        let malformed = |error: serde_json::Error| {
            Error::corrupt("the image that the new one stands on has a malformed manifest or config")
                .because(error)
        };
        let (mut manifest, mut config): (Map<String, Value>, Map<String, Value>) = if let Some(base) = base {
            let (manifest, config) = self.documents(base)?;
            (
                serde_json::from_slice(&manifest).map_err(malformed)?,
                serde_json::from_slice(&config).map_err(malformed)?,
            )
        } else {
            let platform = Platform::host();
            let config = json!({
                "architecture": platform.architecture, "os": platform.os, "config": {},
                "rootfs": { "type": "layers", "diff_ids": [] }, "history": [],
            });
            let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [] });
            (as_object(manifest), as_object(config))
        };
        let is_docker = manifest.get("mediaType").and_then(Value::as_str) == Some(DOCKER_MANIFEST);
        let mut layers = base.map(|base| base.layers.clone()).unwrap_or_default();
        if let Some(layer) = &layer {
            let media_type = if is_docker { DOCKER_LAYER } else { OCI_LAYER };
            layers.push(Layer {
                digest: layer.digest,
                diff_id: layer.diff_id,
                media_type: media_type.to_owned(),
                length: layer.length,
            });
        }
        edit_config(&mut config, plan, layer.as_ref(), now)?;
        let config = Value::Object(config).to_string().into_bytes();
        let name = plan.name.as_deref().unwrap_or("the new image");
        let parsed = manifest::parse_config(&config, layers.len(), name)?;
        let config_type = manifest.get("config").and_then(|config| config.get("mediaType")).cloned();
        let config_document = Document { digest: Digest::of(&config), length: config.len() as u64 };
        // Every other field of the base's manifest described the base.
        manifest.retain(|key, _| matches!(&**key, "schemaVersion" | "mediaType" | "layers"));
        manifest.insert(
            "config".into(),
            json!({
                "mediaType": config_type.unwrap_or_else(|| OCI_CONFIG.into()),
                "digest": config_document.digest, "size": config.len(),
            }),
        );
        let described = manifest.entry("layers").or_insert_with(|| json!([]));
        if let (Some(list), Some(layer)) = (described.as_array_mut(), layer.as_ref().and(layers.last())) {
            list.push(json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.length }));
        }
        let manifest = Value::Object(manifest).to_string().into_bytes();
        manifest::parse(&manifest, name)?;
        let room = self.room(Vec::new())?;
        let documents: [Leased; 2] = [self.blobs().put(&manifest, &room)?, self.blobs().put(&config, &room)?];
        let manifest_document = Document { digest: Digest::of(&manifest), length: manifest.len() as u64 };
        let image = Image {
            digest: manifest_document.digest,
            references: plan.name.iter().cloned().collect(),
            platform: parsed.platform.unwrap_or_else(Platform::host),
            config: parsed.config,
            layers,
            pulled_at: now,
            last_used_at: now,
        };
        self.store().insert_image(&image, manifest_document, config_document, NameOrigin::Here)?;
        drop((documents, layer.map(|layer| layer.leased)));
        let gone = || Error::conflict(format!("image {} was removed meanwhile", image.digest));
        self.store().image(image.digest)?.ok_or_else(gone)
    }
}

/// Makes the config that of the new image.
fn edit_config(
    config: &mut Map<String, Value>,
    plan: &CommitPlan,
    layer: Option<&FinishedLayer>,
    now: Timestamp,
) -> Result<()> {
    let created = now.to_string();
    config.insert("created".into(), json!(created));
    if !plan.author.is_empty() {
        config.insert("author".into(), json!(plan.author));
    }
    let run = edit::object(config, "config");
    plan.edits.iter().for_each(|edit| edit.apply(run));
    let mut step = json!({ "created": created, "created_by": plan.command });
    for (key, text) in [("author", &plan.author), ("comment", &plan.message)] {
        if !text.is_empty() {
            step[key] = json!(text);
        }
    }
    if layer.is_none() {
        step["empty_layer"] = json!(true);
    }
    let malformed = || Error::corrupt("the image that the new one stands on has a malformed config");
    let history = config.entry("history").or_insert_with(|| json!([]));
    if history.is_null() {
        *history = json!([]);
    }
    history.as_array_mut().ok_or_else(malformed)?.push(step);
    if let Some(layer) = layer {
        let rootfs = config.get_mut("rootfs").and_then(Value::as_object_mut).ok_or_else(malformed)?;
        let diff_ids = rootfs.entry("diff_ids").or_insert_with(|| json!([]));
        if diff_ids.is_null() {
            *diff_ids = json!([]);
        }
        diff_ids.as_array_mut().ok_or_else(malformed)?.push(json!(layer.diff_id));
    }
    Ok(())
}

/// Packs all files of a box into `out`, as its guest sends them through `from`.
///
/// # Errors
/// `Corrupt` for what is not a guest's answer; `Cancelled` when the reader of `out` is gone.
pub fn write_archive(
    tree: &BoxTree,
    out: &mut impl std::io::Write,
    most: u64,
    from: &mut impl Read,
) -> Result<()> {
    let files: Vec<&TreeFile> = tree.files.iter().collect();
    changes::write_files(out, &files, from, most, None)?;
    out.write_all(&[0; 1024]).map_err(|error| Error::io("writing", "the archive", error))
}

/// The answer to the guest that asks for all files.
pub fn whole_selection(tree: &BoxTree) -> Vec<u8> {
    BoxTree::selection(&(0..tree.files.len() as u32).collect::<Vec<_>>())
}

fn as_object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Refuses what is no tar archive.
fn check_tar(file: &std::fs::File) -> Result<()> {
    let broken = |error: std::io::Error| {
        Error::corrupt("the archive is not a whole tar archive")
            .about(boxlite_types::ErrorCause::LocalImage)
            .because(error)
    };
    let file = file.try_clone().map_err(broken)?;
    let length = file.metadata().map_err(broken)?.len();
    let (headers, allowance) = TarHeaderReader::new(std::io::BufReader::new(RewoundFile { file, at: 0 }));
    let mut archive = Archive::new(headers);
    let mut entries = 0_u64;
    for entry in archive.entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        allowance.renew();
        // Of a file with holes, the size counts these and the archive does not.
        let stored = if entry.header().entry_type().is_gnu_sparse() {
            entry.header().entry_size().map_err(broken)?
        } else {
            entry.size()
        };
        if entry.raw_file_position().checked_add(stored).is_none_or(|end| end > length) {
            return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
        }
        entries += 1;
    }
    if length == 0 {
        return Err(Error::corrupt(
            "the archive is empty, not even one without files; perhaps what was to make it has failed",
        )
        .about(boxlite_types::ErrorCause::LocalImage));
    }
    // An archive without files, of which some make an image to build on, is zeros and as short as `tar` makes one.
    if entries == 0 && !EMPTY_TAR.contains(&length) {
        return Err(broken(std::io::ErrorKind::InvalidData.into()));
    }
    Ok(())
}

/// Reads a file from its start, whatever others read of it.
struct RewoundFile {
    file: std::fs::File,
    at: u64,
}

impl Read for RewoundFile {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let got = std::os::unix::fs::FileExt::read_at(&self.file, buffer, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl std::io::Seek for RewoundFile {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        let at = match to {
            std::io::SeekFrom::Start(at) => Some(at),
            std::io::SeekFrom::Current(by) => self.at.checked_add_signed(by),
            std::io::SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.at = at.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use boxlite_types::{ErrorCause, ErrorKind};

    use super::*;

    /// Before: what a failed program had left in a pipe, nothing, became an image, and an archive without files did not.
    #[test]
    fn nothing_at_all_is_no_archive_and_an_archive_without_files_is_one() {
        let check = |bytes: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut &file, bytes).unwrap();
            check_tar(&file).map_err(|error| (error.kind(), error.cause()))
        };
        let refused = Err((ErrorKind::Corrupt, Some(ErrorCause::LocalImage)));
        for length in [1024, 10_240] {
            assert_eq!(check(&vec![0; length]), Ok(()), "{length}");
        }
        for length in [0, 512, 10_752, 1 << 20] {
            assert_eq!(check(&vec![0; length]), refused, "{length}");
        }
        assert_eq!(check(b"no archive"), refused);
        assert_eq!(check(&[b'x'; 4096]), refused);
    }
}
