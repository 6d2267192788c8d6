//! Objects that have a directory of their own by name in a home, with a description in it: volumes and networks.

use std::io::ErrorKind as IoErrorKind;
use std::path::Path;

use boxlite_home::durable;
use boxlite_types::{Doing, Error, NetworkDescription, Result, VolumeDescription};
use serde::de::DeserializeOwned;

/// A description that names what it is of.
pub(crate) trait Described: DeserializeOwned {
    /// The kind of object, for messages; `<noun>.json` is its file.
    const NOUN: &'static str;
    /// The only format that is read.
    const FORMAT: u32;

    /// The name of what it describes.
    fn name(&self) -> &str;
}

impl Described for VolumeDescription {
    const NOUN: &'static str = "volume";
    const FORMAT: u32 = VolumeDescription::FORMAT;

    fn name(&self) -> &str {
        &self.name
    }
}

impl Described for NetworkDescription {
    const NOUN: &'static str = "network";
    const FORMAT: u32 = NetworkDescription::FORMAT;

    fn name(&self) -> &str {
        &self.name
    }
}

/// Reads the description at `path` of what has the directory `root` and the name `name`, and has it checked, which says what is
/// wrong; `None` when there is no such directory.
///
/// # Errors
/// `Corrupt` for what is there instead; `Unsupported` for what a newer boxlite has made.
pub(crate) fn read<T: Described>(
    root: &Path,
    path: &Path,
    name: &str,
    check: impl FnOnce(&T) -> Result<(), String>,
) -> Result<Option<T>> {
    let text = match durable::read_text(path) {
        Ok(text) => text,
        Err(_) if root.symlink_metadata().is_err_and(|error| error.kind() == IoErrorKind::NotFound) => {
            return Ok(None);
        }
        Err(error) => {
            let noun = T::NOUN;
            let message = format!(
                "{} is not a {noun} of boxlite's: its {noun}.json cannot be read ({error})",
                root.display()
            );
            return Err(Error::corrupt(message).at(path));
        }
    };
    match understand(&text, name, check) {
        Ok(found) => Ok(Some(found)),
        Err(error) => Err(error.while_doing(path.display()).at(path)),
    }
}

fn understand<T: Described>(
    text: &str,
    name: &str,
    check: impl FnOnce(&T) -> Result<(), String>,
) -> Result<T> {
    let noun = T::NOUN;
    let corrupt = |why: &str| Error::corrupt(format!("the description of the {noun} cannot be used: {why}"));
    let value: serde_json::Value = serde_json::from_str(text).map_err(|bad| corrupt(&bad.to_string()))?;
    if value.get("format").and_then(serde_json::Value::as_u64) != Some(u64::from(T::FORMAT)) {
        return Err(Error::unsupported(format!("the {noun} was made by another boxlite; use that one")));
    }
    let found: T = serde_json::from_value(value).map_err(|bad| corrupt(&bad.to_string()))?;
    if found.name() != name {
        return Err(corrupt(&format!("it is that of {noun} '{}'", found.name())));
    }
    check(&found).map_err(|why| corrupt(&why))?;
    Ok(found)
}

/// The names of everything in `directory`, sorted; one that is not UTF-8 is shown as well as can be. None where there is no such
/// directory.
///
/// # Errors
/// `Io` when the directory cannot be listed.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("listing", directory, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.doing("listing", directory)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Makes sure that `directory` is one of this home, which holds all `nouns`: one that is a link could be another home's as well.
///
/// # Errors
/// `Unsupported` for a link.
pub(crate) fn ensure_own(directory: &Path, nouns: &str) -> Result<()> {
    if directory.is_symlink() {
        let message = format!("{} is a symlink, and a home keeps its {nouns} in itself", directory.display());
        return Err(Error::unsupported(message).at(directory));
    }
    durable::ensure_dir(directory)
}
