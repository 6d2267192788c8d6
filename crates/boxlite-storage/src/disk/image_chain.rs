//! Leases on the files of a disk image.
//!
//! # Damage
//!
//! A lease compares each file's identity with its name: UUID, or delta, in a superblock that has a checksum. Of a delta
//! it verifies the metadata as well, and the contents if the file may have changed since they were verified last. A file
//! that is damaged or foreign counts as absent.

use std::path::{Path, PathBuf};

use boxlite_ext4::{FilesystemIdentity, IdentityError};
use boxlite_home::Home;
use boxlite_home::durable::Lock;
use boxlite_home::lease::Leased;
use boxlite_types::{Digest, Error, Result};

use crate::disk::overlay;
use crate::disk::qcow2::delta::{ChainSource, Delta};
use crate::disk::qcow2::{BackingFormat, is_delta};

/// How the disk image of a digest is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageForm {
    /// As one ext4 file.
    Whole,
    /// As a delta over other files.
    Delta,
}

/// Leases the disk image `digest`, whole or with its deltas, if it is there and is the right one.
///
/// # Errors
/// `InvalidInput` when `digest` is not 64 hex digits; `Conflict` when something else than a file is at its path.
pub fn lease(home: &Home, digest: &str) -> Result<Option<ImageChain>> {
    match lease_as(home, digest, ImageForm::Whole)? {
        Some(whole) => Ok(Some(whole)),
        None => lease_as(home, digest, ImageForm::Delta),
    }
}

/// Leases the disk image `digest` in this form alone; as [`lease`].
pub fn lease_as(home: &Home, digest: &str, form: ImageForm) -> Result<Option<ImageChain>> {
    match form {
        ImageForm::Whole => lease_whole(home, digest),
        ImageForm::Delta => lease_delta(home, digest),
    }
}

/// Leases one file of the disk image `digest`: a whole one, or the delta over `below`, whose files were leased and verified.
/// `None` when it is absent, damaged, or stands on something else.
pub(crate) fn lease_over(home: &Home, digest: &str, below: Option<&ImageChain>) -> Result<Option<Leased>> {
    let Some(below) = below else { return Ok(lease_whole(home, digest)?.map(|whole| whole.disk_image)) };
    Digest::from_hex(digest)?;
    match Leased::acquire(&home.delta(digest))? {
        Some(delta) => Ok(stands_on(home, &delta, below)?.then_some(delta)),
        None => Ok(None),
    }
}

/// Turns the lock of the file that was just published over `below` into a lease; as [`lease_over`].
pub(crate) fn of_published(lock: Lock, home: &Home, below: Option<&ImageChain>) -> Result<Option<Leased>> {
    match (Leased::of_published(lock)?, below) {
        (Some(delta), Some(below)) => Ok(stands_on(home, &delta, below)?.then_some(delta)),
        (found, _) => Ok(found),
    }
}

/// The files of a disk image, each of them leased: deltas, the topmost first, and a whole disk image below them.
#[derive(Debug)]
pub struct ImageChain {
    deltas: Vec<Leased>,
    disk_image: Leased,
}

impl ImageChain {
    /// The chain with one file more: a whole disk image over nothing, or a delta over what [`lease_over`] was given.
    pub(crate) fn with(below: Option<Self>, file: Leased) -> Self {
        match below {
            None => Self { deltas: Vec::new(), disk_image: file },
            Some(mut chain) => {
                chain.deltas.insert(0, file);
                chain
            }
        }
    }

    /// The file on which an overlay stands.
    pub fn top(&self) -> &Leased {
        self.deltas.first().unwrap_or(&self.disk_image)
    }

    /// The format of the topmost file.
    pub fn format(&self) -> BackingFormat {
        if self.deltas.is_empty() { BackingFormat::Raw } else { BackingFormat::Qcow2 }
    }

    /// The whole disk image at the bottom.
    pub fn disk_image(&self) -> &Leased {
        &self.disk_image
    }

    /// The paths of the deltas, the topmost first.
    pub fn deltas(&self) -> impl Iterator<Item = &Path> {
        self.deltas.iter().map(Leased::path)
    }

    /// The paths of all files, the topmost first.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.deltas.iter().chain([&self.disk_image]).map(Leased::path)
    }

    /// Records that all files are used now.
    pub fn touch(&self) -> Result<()> {
        self.deltas.iter().chain([&self.disk_image]).try_for_each(Leased::touch)
    }

    /// The filesystem that the files make.
    pub(crate) fn source(&self) -> Result<ChainSource<'_>> {
        let open = |leased| {
            Delta::open(Leased::file(leased)).map_err(|source| Error::io("reading", leased.path(), source))
        };
        let deltas = self.deltas.iter().map(open).collect::<Result<_>>()?;
        Ok(ChainSource { deltas, disk_image: self.disk_image.file() })
    }
}

/// Leases the disk image `digest` that is one file.
fn lease_whole(home: &Home, digest: &str) -> Result<Option<ImageChain>> {
    let identity = Digest::from_hex(digest)?;
    let Some(leased) = Leased::acquire(&home.disk_image(digest))? else { return Ok(None) };
    let expected = boxlite_ext4::expected_uuid(identity.bytes());
    let is_right =
        is_right(&leased, boxlite_ext4::read_identity(leased.file()), |found| found.uuid == expected)?;
    Ok(is_right.then_some(ImageChain { deltas: Vec::new(), disk_image: leased }))
}

/// Leases the delta `digest` and everything below it.
fn lease_delta(home: &Home, digest: &str) -> Result<Option<ImageChain>> {
    Digest::from_hex(digest)?;
    let Some(top) = Leased::acquire(&home.delta(digest))? else { return Ok(None) };
    complete(home, top)
}

/// Leases what lies below the leased delta, and verifies all of it. `None` when something is missing or wrong.
fn complete(home: &Home, top: Leased) -> Result<Option<ImageChain>> {
    let mut deltas = vec![top];
    let disk_image = loop {
        let above = deltas.last().map_or(Path::new(""), Leased::path);
        // A damaged header is found by `Delta::open` below, too; here it only says that there is no way down.
        let Ok(Some(below)) = overlay::backing(home, above) else {
            warn_damaged(above, "its header names nothing below it");
            return Ok(None);
        };
        if !below.file_name().is_some_and(is_delta) {
            let digest = digest_of(&below);
            match digest.map(|digest| lease_whole(home, &digest)).transpose()?.flatten() {
                Some(whole) => break whole.disk_image,
                None => return Ok(None),
            }
        }
        if digest_of(&below).is_none_or(|digest| home.delta(&digest) != below) {
            warn_damaged(above, &format!("its header names {}, which is not of this home", below.display()));
            return Ok(None);
        }
        if deltas.iter().any(|delta| delta.path() == below) {
            warn_damaged(&below, "it stands on itself");
            return Ok(None);
        }
        match Leased::acquire(&below)? {
            Some(leased) => deltas.push(leased),
            None => return Ok(None),
        }
    };
    for delta in &deltas {
        if !is_sound(delta, &disk_image)? {
            return Ok(None);
        }
    }
    Ok(Some(ImageChain { deltas, disk_image }))
}

/// Whether the delta names the chain's topmost file as the one below it, and is sound.
fn stands_on(home: &Home, delta: &Leased, below: &ImageChain) -> Result<bool> {
    let is_named =
        overlay::backing(home, delta.path()).is_ok_and(|named| named.as_deref() == Some(below.top().path()));
    Ok(is_named && is_sound(delta, &below.disk_image)?)
}

/// Verifies a delta of the filesystem that begins in `disk_image`: its metadata, its contents and its identity.
fn is_sound(delta: &Leased, disk_image: &Leased) -> Result<bool> {
    let identity =
        |leased: &Leased| digest_of(leased.path()).and_then(|digest| Digest::from_hex(&digest).ok());
    let uuid = identity(disk_image).map(|base| boxlite_ext4::expected_uuid(base.bytes()));
    let own = identity(delta).map(|own| *own.bytes());
    let opened = Delta::open(delta.file()).and_then(|opened| opened.verify_contents().map(|()| opened));
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            warn_damaged(delta.path(), &error.to_string());
            return Ok(false);
        }
        Err(source) => return Err(Error::io("reading", delta.path(), source)),
    };
    let names =
        |found: &FilesystemIdentity| Some(found.uuid) == uuid && found.delta.is_some() && found.delta == own;
    is_right(delta, boxlite_ext4::read_chain_identity(&opened), names)
}

/// Whether the identity that was read is the right one.
fn is_right(
    leased: &Leased,
    read: std::result::Result<FilesystemIdentity, IdentityError>,
    names: impl FnOnce(&FilesystemIdentity) -> bool,
) -> Result<bool> {
    let shown = leased.path().display();
    match read {
        Ok(found) if names(&found) => return Ok(true),
        Ok(_) => tracing::warn!(path = %shown, "a disk image has another's identity; building it again"),
        Err(IdentityError::Read(source)) if source.kind() != std::io::ErrorKind::InvalidData => {
            return Err(Error::io("reading", leased.path(), source));
        }
        Err(error) => tracing::warn!(path = %shown, %error, "a disk image is damaged; building it again"),
    }
    Ok(false)
}

fn warn_damaged(path: &Path, why: &str) {
    tracing::warn!(path = %path.display(), why, "a delta is damaged; building it again");
}

/// The digest that names a disk image or delta.
fn digest_of(path: &Path) -> Option<String> {
    path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned)
}

/// The name of `below` as a delta's header has it: relative to the directory of deltas.
pub(crate) fn relative_name(below: &ImageChain) -> String {
    let path: PathBuf = below.top().path().into();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if below.deltas.is_empty() { format!("../disk-images/{name}") } else { name }
}
