//! OCI image layouts (OCI image spec, image-layout.md), in a directory or in a tar file.

use std::collections::HashMap;

use boxlite_types::{Error, ErrorCause, Result};

use super::{LocalSource, SourcePlace};
use crate::image::manifest::{self, DOCUMENT_LIMIT, Descriptor, ManifestDocument};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Finds the manifest or index that `tag` names, or the only one, in the layout at `place`.
pub(super) fn open(place: SourcePlace, tag: Option<&str>, name: String) -> Result<LocalSource> {
    if !place.has("index.json") {
        let message = format!("there is no image layout at {}: it lacks index.json", place.path().display());
        return Err(Error::not_found(message).at(place.path()));
    }
    let index = place.read("index.json", DOCUMENT_LIMIT)?;
    let ManifestDocument::Index(entries) = manifest::parse(&index, &format!("{name} (index.json)"))? else {
        let message = format!("index.json of {} is not an index", place.path().display());
        return Err(Error::corrupt(message).about(ErrorCause::LocalImage).at(place.path()));
    };
    let (top, made_up) = match choose(&entries, tag, &name)? {
        LayoutChoice::Entry(entry) => (entry.digest, HashMap::new()),
        // Several platforms of one image without names: index.json itself is the image's index.
        LayoutChoice::Whole => {
            let digest = boxlite_types::Digest::of(&index);
            (digest, HashMap::from([(digest, index)]))
        }
    };
    Ok(LocalSource { place, top, made_up, names: HashMap::new(), name })
}

enum LayoutChoice<'a> {
    Entry(&'a Descriptor),
    Whole,
}

fn choose<'a>(entries: &'a [Descriptor], tag: Option<&str>, name: &str) -> Result<LayoutChoice<'a>> {
    let tags = |entry: &'a Descriptor| {
        [REF_NAME, IMAGE_NAME].into_iter().filter_map(|key| entry.annotations.get(key)).map(String::as_str)
    };
    let called = |wanted: &str| entries.iter().find(|entry| tags(entry).any(|tag| tag == wanted));
    if let Some(tag) = tag {
        return called(tag).map(LayoutChoice::Entry).ok_or_else(|| {
            Error::not_found(format!(
                "{name} has no image of that tag; it has {}",
                listed(entries.iter().flat_map(tags))
            ))
        });
    }
    match entries {
        [] => Err(Error::not_found(format!("{name} has no image; its index is empty"))),
        [only] => Ok(LayoutChoice::Entry(only)),
        several if several.iter().all(|entry| tags(entry).next().is_none()) => Ok(LayoutChoice::Whole),
        _ => called("latest").map(LayoutChoice::Entry).ok_or_else(|| {
            Error::invalid(format!(
                "{name} has several images and none is tagged latest; name one of {} after a colon",
                listed(entries.iter().flat_map(tags))
            ))
        }),
    }
}

fn listed<'a>(tags: impl Iterator<Item = &'a str>) -> String {
    let tags: Vec<&str> = tags.take(20).collect();
    if tags.is_empty() { "no tags".to_owned() } else { tags.join(", ") }
}
