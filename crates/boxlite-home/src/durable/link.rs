//! A second name for a durable file.

use std::path::Path;

use boxlite_types::{Doing, Result};

use super::{fault, sync_dir};

/// Gives the file at `path` the further name `name` (a hard link) and fsyncs that name's directory.
///
/// # Errors
/// `Io` when `name` is taken.
pub fn link(path: &Path, name: &Path) -> Result<()> {
    std::fs::hard_link(path, name).doing("linking", name)?;
    fault::point("link.made").doing("linking", name)?;
    name.parent().map_or(Ok(()), sync_dir)?;
    fault::point("link.durable").doing("linking", name)
}
