//! Boxes without a record, by their own account: `box.json`, and what of their overlays could not be read.
//!
//! `box.json` names the disk image at the end of the box's chain, and that never changes: an overlay is made on it, and
//! a clone takes it over with the overlay. So it stands in for a chain that cannot be read. It says nothing of the
//! bases in between, and these cannot be made again, so all of them stay.

use boxlite_home::{Home, durable};
use boxlite_types::gc::Unreadable;
use boxlite_types::{BoxDescription, Error, Result};
use serde_json::Value;

use super::files::images_named;
use super::{Census, unreadable};

/// A box without a record, as far as its own files describe it.
#[derive(Debug, Default)]
pub(in crate::gc) struct LostBox {
    description: Description,
    /// Overlays of it that could not be read.
    pub(in crate::gc) unread: Vec<Unreadable>,
}

/// The contents of `box.json`.
#[derive(Debug, Default)]
enum Description {
    /// There is none: the box cannot be adopted, and needs only what its chain reaches.
    #[default]
    Absent,
    Unusable(Unreadable),
    Image {
        /// As the user named it.
        reference: Option<String>,
        /// The places of its disk image and its delta in the census, if they are there.
        images: Vec<u32>,
    },
}

/// The files that a box may need although nothing readable names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::gc) enum Doubt {
    /// Its needs are known.
    #[default]
    None,
    /// Any base, and any disk of another box: nothing that can be made again.
    Bases,
    /// Any disk image as well.
    Everything,
}

impl LostBox {
    /// The doubt that it causes while it stays.
    pub(in crate::gc) fn doubt(&self, has_overlays: bool) -> Doubt {
        match (&self.description, self.unread.is_empty()) {
            (Description::Image { .. }, false) => Doubt::Bases,
            (_, false) => Doubt::Everything,
            // A box that was never started has no chain, and only its description says what it needs.
            (Description::Unusable(_), true) if !has_overlays => Doubt::Everything,
            (_, true) => Doubt::None,
        }
    }

    /// The disk image and the delta that its description names, as places in the census.
    pub(in crate::gc) fn images(&self) -> &[u32] {
        match &self.description {
            Description::Image { images, .. } => images,
            Description::Absent | Description::Unusable(_) => &[],
        }
    }

    /// The image that it was made from, as its user named it.
    pub(in crate::gc) fn image_reference(&self) -> Option<&str> {
        match &self.description {
            Description::Image { reference, .. } => reference.as_deref(),
            Description::Absent | Description::Unusable(_) => None,
        }
    }

    /// Returns everything that could not be read of a box that is in `doubt`.
    pub(in crate::gc) fn troubles(&self, doubt: Doubt) -> impl Iterator<Item = &Unreadable> {
        let description = match &self.description {
            Description::Unusable(found) if doubt == Doubt::Everything => Some(found),
            _ => None,
        };
        self.unread.iter().chain(description)
    }
}

impl Census {
    /// Reads what boxes without a record say about themselves. Comes after the records.
    pub(super) fn read_descriptions(&mut self, home: &Home) {
        for index in 0..self.boxes.len() {
            if !self.boxes[index].is_lost() {
                continue;
            }
            let id = self.boxes[index].id.to_string();
            let path = home.of_box(&id).description();
            let description = match durable::read_text(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Description::Absent,
                Err(error) => Description::Unusable(unreadable(
                    &path,
                    advised(&id, format!("it cannot be read: {error}")),
                )),
                Ok(text) => match self.understand(&text, &id) {
                    Ok(description) => description,
                    Err(error) => Description::Unusable(unreadable(&path, advised(&id, error.to_string()))),
                },
            };
            self.lost.insert(index, LostBox { description, unread: Vec::new() });
        }
    }

    fn understand(&self, text: &str, id: &str) -> Result<Description> {
        let corrupt = |why: &str| Error::corrupt(why);
        let value: Value = serde_json::from_str(text).map_err(|bad| corrupt(&bad.to_string()))?;
        if value.get("format").and_then(Value::as_u64) != Some(u64::from(BoxDescription::FORMAT)) {
            return Err(corrupt("another boxlite wrote it"));
        }
        let said = |key: &str| value.get("record")?.get(key)?.as_str();
        if said("id") != Some(id) {
            return Err(corrupt("it is another box's"));
        }
        let digest = said("disk_digest").ok_or_else(|| corrupt("it names no disk image"))?;
        Ok(Description::Image {
            reference: said("image_reference").map(ToOwned::to_owned),
            images: images_named(&self.files, digest.strip_prefix("sha256:").unwrap_or(digest)).collect(),
        })
    }
}

/// Adds what a person can do about it.
pub(super) fn advised(id: &str, reason: impl std::fmt::Display) -> String {
    format!("{reason}; the box has no record, and `boxlite gc --purge {id}` removes it for good")
}
