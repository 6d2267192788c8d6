//! Built disk images on their way through a registry, so that many hosts build each image once.
//!
//! # Layout
//!
//! An artifact is an OCI image manifest of its own type that refers to the image's manifest (`subject`). Its config
//! describes the segments of one disk image ([`document`]), and each layer is the file of a segment as a compressed
//! [`stream`]. The registry lists it among the image's referrers, or under the tag that stands in for such a list.
//!
//! # Trust
//!
//! The digests of an image's layers say nothing about the bytes of an ext4 file: whoever can write an artifact chooses what
//! runs in the boxes. So nothing is fetched unless the operator has said whose artifacts count ([`trust`]): repositories,
//! or keys by which the config must be signed. The operator trusts them that a file of this name has these contents; the
//! names are computed here, from the image's own layers, so that no artifact can stand for another image's.
//!
//! # Crash safety
//!
//! The blobs arrive in the store of blobs, as those of a pull do. A segment is then written under the lock of the staged file
//! by which its builders exclude each other, its contents are compared with the config, and it is published as a built one.
//! The image is recorded while all segments are leased. A `kill -9` leaves what gc and the next fetch know how to treat.

mod document;
mod fetch;
mod segment_blob;
mod send;
mod signature;
mod stream;
mod trust;

use boxlite_types::{Error, Image, Result};

use crate::reference::{Reference, RegistryReference};

/// The repository of an image's artifacts: the one that was named for them, else that of the reference.
fn place_of(named: Option<&str>, reference: &RegistryReference) -> Result<RegistryReference> {
    let Some(named) = named else { return Ok(reference.clone()) };
    let place = RegistryReference::parse(named)?;
    if place.digest().is_some() || named.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        return Err(Error::invalid(format!(
            "'{named}' has a tag or a digest, and a repository for built disk images has neither"
        )));
    }
    Ok(place)
}

/// The same for an image of the home, by the name under which it is wanted, or its own.
fn place(named: Option<&str>, wanted: &str, image: &Image) -> Result<RegistryReference> {
    let asked = wanted.parse::<Reference>().map(|reference| reference.to_string()).ok();
    let is_asked = |name: &&String| Some(*name) == asked.as_ref();
    let (first, others): (Vec<&String>, Vec<&String>) = image.references.iter().partition(is_asked);
    let mut references = first.into_iter().chain(others).filter_map(|name| match name.parse() {
        Ok(Reference::Registry(reference)) => Some(reference),
        _ => None,
    });
    match (named, references.next()) {
        (Some(named), _) => {
            let reference = RegistryReference::parse(named)?;
            place_of(Some(named), &reference)
        }
        (None, Some(reference)) => Ok(reference),
        (None, None) => {
            Err(Error::invalid(format!("'{wanted}' is of no registry; name a repository with --to")))
        }
    }
}
