//! The history that an image's config records.

use boxlite_home::blocking;
use boxlite_types::{Error, HistoryEntry, Image, Result};
use serde::{Deserialize, Deserializer};

use super::Images;
use super::manifest::OCI_CONFIG;

#[derive(Deserialize)]
struct RecordedHistory {
    #[serde(default, deserialize_with = "or_default")]
    history: Vec<RecordedStep>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RecordedStep {
    created: Option<String>,
    #[serde(deserialize_with = "or_default")]
    created_by: String,
    #[serde(deserialize_with = "or_default")]
    author: String,
    #[serde(deserialize_with = "or_default")]
    comment: String,
    #[serde(deserialize_with = "or_default")]
    empty_layer: bool,
}

/// Go writes what is unset as `null` as often as it leaves it out.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Images {
    /// The steps in which the image was made, the last one first.
    ///
    /// # Errors
    /// As for [`Images::find`]; `Corrupt` when its config is damaged.
    pub async fn history(&self, wanted: &str) -> Result<Vec<HistoryEntry>> {
        let (this, wanted) = (self.clone(), wanted.to_owned());
        blocking(move || {
            let image = this.find_blocking(&wanted)?;
            let (_, config) = this.documents(&image)?;
            entries(&image, &config)
        })
        .await
    }

    /// Reads the manifest and the config of an image as they are stored.
    ///
    /// # Errors
    /// `Corrupt` when one of them is missing or damaged.
    pub(crate) fn documents(&self, image: &Image) -> Result<(Vec<u8>, Vec<u8>)> {
        let (manifest, config) = self.store.image_documents(image.digest)?;
        let read = |document: crate::store::Document, what: &str| {
            self.blobs.read(document.digest, document.length)?.ok_or_else(|| {
                let name = image.references.first().cloned().unwrap_or_else(|| image.digest.to_string());
                let message = format!("the {what} of {name} is missing or damaged; get the image anew");
                Error::corrupt(message).at(self.blobs.path(document.digest))
            })
        };
        Ok((read(manifest, "manifest")?, read(config, "config")?))
    }
}

/// Pairs what the config says with the layers; a config whose history does not fit them says nothing.
fn entries(image: &Image, config: &[u8]) -> Result<Vec<HistoryEntry>> {
    let recorded: RecordedHistory = serde_json::from_slice(config).map_err(|error| {
        Error::corrupt(format!("the config of image {} ({OCI_CONFIG}) is malformed", image.digest))
            .because(error)
    })?;
    let mut steps = recorded.history;
    if steps.iter().filter(|step| !step.empty_layer).count() != image.layers.len() {
        steps = image.layers.iter().map(|_| RecordedStep::default()).collect();
    }
    let mut layers = image.layers.iter();
    let mut found: Vec<HistoryEntry> = steps
        .into_iter()
        .map(|step| {
            let layer = if step.empty_layer { None } else { layers.next() };
            HistoryEntry {
                digest: None,
                created: step.created,
                created_by: step.created_by,
                author: step.author,
                comment: step.comment,
                layer: layer.map(|layer| layer.diff_id),
                size: layer.map_or(0, |layer| layer.length),
            }
        })
        .collect();
    found.reverse();
    if let Some(last) = found.first_mut() {
        last.digest = Some(image.digest);
    }
    Ok(found)
}
