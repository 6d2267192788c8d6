//! Leases on the files of a disk image.
//!
//! # Damage
//!
//! A lease compares each file's identity with its name: UUID, or delta, in a superblock that has a checksum. Of a delta
//! it verifies the metadata as well; and of each file the contents, if it may have changed since they were verified last.
//! A file that is damaged or foreign counts as absent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxlite_ext4::{FilesystemIdentity, IdentityError};
use boxlite_home::Home;
use boxlite_home::durable::Lock;
use boxlite_home::lease::Leased;
use boxlite_types::{Digest, Error, Result};

use crate::disk::qcow2::delta::{ChainSource, Delta, DeltaTables};
use crate::disk::qcow2::{BackingFormat, is_delta};
use crate::disk::{overlay, whole};

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
pub(crate) fn lease_over(home: &Home, digest: &str, below: Option<&ImageChain>) -> Result<Option<ImageFile>> {
    let Some(below) = below else {
        return Ok(lease_whole(home, digest)?.map(|whole| ImageFile::Whole(whole.disk_image)));
    };
    Digest::from_hex(digest)?;
    let Some(leased) = Leased::acquire(&home.delta(digest))? else { return Ok(None) };
    delta_over(home, leased, below)
}

/// Verifies the leased delta; `None` when it is damaged or does not stand on `below`.
fn delta_over(home: &Home, leased: Leased, below: &ImageChain) -> Result<Option<ImageFile>> {
    let named = overlay::backing(home, leased.path());
    if !named.is_ok_and(|named| named.as_deref() == Some(below.top().path())) {
        return Ok(None);
    }
    Ok(LeasedDelta::verified(leased, &below.disk_image)?.map(ImageFile::Delta))
}

/// Turns the lock of a published file whose bytes came from elsewhere into a lease, having verified a delta; as
/// [`lease_over`].
pub(crate) fn of_foreign(home: &Home, lock: Lock, below: Option<&ImageChain>) -> Result<Option<ImageFile>> {
    let Some(leased) = Leased::of_published(lock)? else { return Ok(None) };
    match below {
        Some(below) => delta_over(home, leased, below),
        None => Ok(Some(ImageFile::Whole(leased))),
    }
}

/// Turns the lock of the file that this process has just written and published into a lease; of a delta, `tables` are what
/// was written. `None` when the file is gone again.
pub(crate) fn of_published(lock: Lock, tables: Option<DeltaTables>) -> Result<Option<ImageFile>> {
    let leased = Leased::of_published(lock)?;
    Ok(leased.map(|leased| match tables {
        Some(tables) => ImageFile::Delta(LeasedDelta { leased, tables: Arc::new(tables) }),
        None => ImageFile::Whole(leased),
    }))
}

/// One file of a disk image, leased and verified.
#[derive(Debug)]
pub(crate) enum ImageFile {
    /// A whole disk image.
    Whole(Leased),
    /// A delta over other files.
    Delta(LeasedDelta),
}

/// A leased delta, with its tables: who builds upon it needs them, and they are read to verify it anyway.
#[derive(Debug)]
pub(crate) struct LeasedDelta {
    leased: Leased,
    tables: Arc<DeltaTables>,
}

/// The files of a disk image, each of them leased: deltas, the topmost first, and a whole disk image below them.
#[derive(Debug)]
pub struct ImageChain {
    deltas: Vec<LeasedDelta>,
    disk_image: Leased,
}

impl ImageChain {
    /// The chain with one file more: a delta over what [`lease_over`] was given, or a whole disk image in place of everything.
    pub(crate) fn with(below: Option<Self>, file: ImageFile) -> Self {
        match (below, file) {
            (_, ImageFile::Whole(disk_image)) => Self { deltas: Vec::new(), disk_image },
            (Some(mut chain), ImageFile::Delta(delta)) => {
                chain.deltas.insert(0, delta);
                chain
            }
            (None, ImageFile::Delta(_)) => unreachable!("a delta is leased over a chain"),
        }
    }

    /// The file on which an overlay stands.
    pub fn top(&self) -> &Leased {
        self.deltas.first().map_or(&self.disk_image, |delta| &delta.leased)
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
        self.deltas.iter().map(|delta| delta.leased.path())
    }

    /// The paths of all files, the topmost first.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.leases().map(Leased::path)
    }

    /// Records that all files are used now.
    pub fn touch(&self) -> Result<()> {
        self.leases().try_for_each(Leased::touch)
    }

    /// All files, the topmost first.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &Leased> {
        self.deltas.iter().map(|delta| &delta.leased).chain([&self.disk_image])
    }

    /// The filesystem that the files make.
    pub(crate) fn source(&self) -> ChainSource<'_> {
        let deltas =
            self.deltas.iter().map(|delta| Delta::of(delta.leased.file(), Arc::clone(&delta.tables)));
        ChainSource { deltas: deltas.collect(), disk_image: self.disk_image.file() }
    }
}

/// Leases the disk image `digest` that is one file.
fn lease_whole(home: &Home, digest: &str) -> Result<Option<ImageChain>> {
    let identity = Digest::from_hex(digest)?;
    let Some(leased) = Leased::acquire(&home.disk_image(digest))? else { return Ok(None) };
    let expected = boxlite_ext4::expected_uuid(identity.bytes());
    let is_right =
        is_right(&leased, boxlite_ext4::read_identity(leased.file()), |found| found.uuid == expected)?;
    if !is_right || !are_contents_right(&leased)? {
        return Ok(None);
    }
    Ok(Some(ImageChain { deltas: Vec::new(), disk_image: leased }))
}

/// Whether the contents of a whole disk image are right, as far as that is known.
fn are_contents_right(leased: &Leased) -> Result<bool> {
    match whole::verify(leased.file()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            warn_damaged(leased.path(), &error.to_string());
            Ok(false)
        }
        Err(source) => Err(Error::io("reading", leased.path(), source)),
    }
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
            let Some(digest) = digest_of(&below).filter(|digest| Digest::from_hex(digest).is_ok()) else {
                let named = below.display();
                warn_damaged(above, &format!("its header names {named}, which no disk image is called"));
                return Ok(None);
            };
            match lease_whole(home, &digest)? {
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
    let mut verified = Vec::with_capacity(deltas.len());
    for delta in deltas {
        match LeasedDelta::verified(delta, &disk_image)? {
            Some(delta) => verified.push(delta),
            None => return Ok(None),
        }
    }
    Ok(Some(ImageChain { deltas: verified, disk_image }))
}

impl LeasedDelta {
    /// Verifies a delta of the filesystem that begins in `disk_image`: its metadata, its contents and its identity.
    fn verified(leased: Leased, disk_image: &Leased) -> Result<Option<Self>> {
        let identity =
            |leased: &Leased| digest_of(leased.path()).and_then(|digest| Digest::from_hex(&digest).ok());
        let uuid = identity(disk_image).map(|base| boxlite_ext4::expected_uuid(base.bytes()));
        let own = identity(&leased).map(|own| *own.bytes());
        let opened = Delta::open(leased.file()).and_then(|opened| opened.verify_contents().map(|()| opened));
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                warn_damaged(leased.path(), &error.to_string());
                return Ok(None);
            }
            Err(source) => return Err(Error::io("reading", leased.path(), source)),
        };
        let names = |found: &FilesystemIdentity| {
            Some(found.uuid) == uuid && found.delta.is_some() && found.delta == own
        };
        let is_right = is_right(&leased, boxlite_ext4::read_chain_identity(&opened), names)?;
        let tables = opened.into_tables();
        Ok(is_right.then_some(Self { leased, tables }))
    }
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
    tracing::warn!(path = %path.display(), why, "a file of a disk image is damaged; building it again");
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
