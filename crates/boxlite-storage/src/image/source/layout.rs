//! OCI image layouts (OCI image spec, image-layout.md), in a directory or in a tar file.

use std::collections::HashMap;
use std::sync::Arc;

use boxlite_types::{Digest, Error, ErrorCause, Result};

use super::{IMAGE_LIMIT, LocalSource, SourcePlace};
use crate::image::manifest::{self, DOCUMENT_LIMIT, Descriptor, ManifestDocument};
use crate::reference::RegistryReference;

pub(in crate::image) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(in crate::image) const IMAGE_NAME: &str = "io.containerd.image.name";

/// Finds the manifest or index that `tag` names, or the only one, in the layout at `place`.
pub(super) fn open(place: Arc<SourcePlace>, tag: Option<&str>, name: String) -> Result<LocalSource> {
    let (index, entries) = read_index(&place, &name)?;
    let (top, made_up) = match choose(&entries, tag, &name)? {
        LayoutChoice::Entry(entry) => (entry.digest, HashMap::new()),
        // Several platforms of one image without names: index.json itself is the image's index.
        LayoutChoice::Whole => {
            let digest = Digest::of(&index);
            (digest, HashMap::from([(digest, index)]))
        }
    };
    Ok(LocalSource { place, top, made_up, names: HashMap::new(), name })
}

/// All images in the layout at `place`, each with the names that its annotations spell out.
pub(super) fn all(place: &Arc<SourcePlace>) -> Result<Vec<(LocalSource, Vec<RegistryReference>)>> {
    let name = place.path().display().to_string();
    let (index, entries) = read_index(place, &name)?;
    let source = |top, made_up, name| LocalSource {
        place: Arc::clone(place),
        top,
        made_up,
        names: HashMap::new(),
        name,
    };
    let named = |entry: &Descriptor| {
        [IMAGE_NAME, REF_NAME].iter().find_map(|key| full_name(entry.annotations.get(*key)?))
    };
    if entries.len() > 1
        && entries.iter().all(|entry| !entry.annotations.contains_key(REF_NAME) && named(entry).is_none())
    {
        // Several platforms of one image without names: index.json itself is the image's index.
        let digest = Digest::of(&index);
        return Ok(vec![(source(digest, HashMap::from([(digest, index)]), name), Vec::new())]);
    }
    let mut found: Vec<(LocalSource, Vec<RegistryReference>)> = Vec::new();
    for entry in &entries {
        let names = named(entry);
        match found.iter().position(|(source, _)| source.top == entry.digest) {
            Some(known) => found[known].1.extend(names),
            None if found.len() == IMAGE_LIMIT => {
                let message = format!("{name} has more than {IMAGE_LIMIT} images");
                return Err(Error::unsupported(message).about(ErrorCause::LocalImage).at(place.path()));
            }
            None => {
                let called =
                    names.as_ref().map_or_else(|| entry.digest.to_string(), RegistryReference::familiar);
                let called = format!("{called} in {name}");
                found.push((source(entry.digest, HashMap::new(), called), names.into_iter().collect()));
            }
        }
    }
    Ok(found)
}

/// The name that an annotation spells out; a bare tag names nothing.
fn full_name(text: &str) -> Option<RegistryReference> {
    if text.contains([':', '/']) { RegistryReference::parse(text).ok() } else { None }
}

fn read_index(place: &SourcePlace, name: &str) -> Result<(Vec<u8>, Vec<Descriptor>)> {
    if !place.has("index.json") {
        let message = format!("there is no image layout at {}: it lacks index.json", place.path().display());
        return Err(Error::not_found(message).at(place.path()));
    }
    let index = place.read("index.json", DOCUMENT_LIMIT)?;
    let ManifestDocument::Index(entries) = manifest::parse(&index, &format!("{name} (index.json)"))? else {
        let message = format!("index.json of {} is not an index", place.path().display());
        return Err(Error::corrupt(message).about(ErrorCause::LocalImage).at(place.path()));
    };
    Ok((index, entries))
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
