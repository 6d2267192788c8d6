//! `box.json`: the description of a box in its directory, in case the database does not know the box any more.
//!
//! It holds the box's options, secrets in the environment included, as the database does; only the home's owner may
//! read it.

use std::io::ErrorKind;

use boxlite_home::BoxPaths;
use boxlite_home::durable::{self, StagedDir};
use boxlite_types::{BoxDescription, BoxRecord, Error, Phase, Result};

use crate::context::LocalContext;

/// Writes the description of the box of `record` into its directory, durably.
pub(super) fn write(context: &LocalContext, paths: &BoxPaths, record: &BoxRecord) -> Result<()> {
    durable::write_atomically(&context.home.tmp(), &paths.description(), &text(context, record)?)
}

/// Writes the description of the new box of `record` into its directory, which nobody sees yet.
pub(super) fn stage(context: &LocalContext, staged: &StagedDir, record: &BoxRecord) -> Result<()> {
    staged.write(BoxPaths::DESCRIPTION, &text(context, record)?)
}

fn text(context: &LocalContext, record: &BoxRecord) -> Result<Vec<u8>> {
    let record = BoxRecord { phase: Phase::Created, ..record.clone() };
    let description =
        BoxDescription { format: BoxDescription::FORMAT, home: context.store.shared_id()?, record };
    serde_json::to_vec_pretty(&description)
        .map_err(|source| Error::bug(format!("a box cannot be written down: {source}")))
}

/// Writes the description of a box from before there were any.
pub(super) fn ensure(context: &LocalContext, paths: &BoxPaths, record: &BoxRecord) -> Result<()> {
    if paths.description().exists() { Ok(()) } else { write(context, paths, record) }
}

/// Reads the description of the box that lives in the directory of `paths`.
///
/// # Errors
/// `NotFound` where there is none, `Corrupt` where it cannot be understood or is another box's, `Unsupported` where a
/// newer boxlite wrote it.
pub(super) fn read(paths: &BoxPaths, id: &str) -> Result<BoxDescription> {
    let path = paths.description();
    let text = durable::read_text(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            let message = format!(
                "{} has no box.json, so nothing says what box it was; `boxlite gc --purge {id}` removes it",
                paths.root().display()
            );
            Error::not_found(message).at(&path)
        }
        _ => Error::io("reading", &path, error),
    })?;
    let corrupt = |why: &str| Error::corrupt(format!("{} cannot be used: {why}", path.display())).at(&path);
    let format = |value: &serde_json::Value| value.get("format").and_then(serde_json::Value::as_u64);
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|bad| corrupt(&bad.to_string()))?;
    if format(&value) != Some(u64::from(BoxDescription::FORMAT)) {
        let message = format!("{} was written by another boxlite; use that one", path.display());
        return Err(Error::unsupported(message).at(&path));
    }
    let description: BoxDescription =
        serde_json::from_value(value).map_err(|bad| corrupt(&bad.to_string()))?;
    if description.record.id != id {
        return Err(corrupt(&format!("it is that of box {}", description.record.id)));
    }
    Ok(description)
}
