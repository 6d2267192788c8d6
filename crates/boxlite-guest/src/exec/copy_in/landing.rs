//! Where an archive lands, with the habits of `docker cp`.

use std::path::{Component, Path, PathBuf};

use boxlite_proto::OpFailure;

use crate::exec::outcome::Refusal;

/// Where an archive goes: the directory, and the name its top-level entry takes there (`None`: its contents).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Landing {
    pub(super) base: PathBuf,
    pub(super) name: Option<PathBuf>,
    /// Whether the directory was there before; its own attributes then stay.
    pub(super) existed: bool,
}

/// Decides where an archive goes, from its first entry and from what is at `dest`.
pub(super) fn land(dest: &str, first: &Path, is_directory: bool) -> Result<Landing, Refusal> {
    if !dest.starts_with('/') || dest.contains('\0') {
        return Err(Refusal::invalid(format!("{dest:?} is not an absolute path")));
    }
    let top = first.components().find_map(|component| match component {
        Component::Normal(part) => Some(PathBuf::from(part)),
        _ => None,
    });
    // Without a trailing slash, which is looked at by itself.
    let path: PathBuf = Path::new(dest).components().collect();
    // A link to nothing counts as nothing.
    if let Ok(base) = std::fs::canonicalize(&path) {
        if base.is_dir() {
            return Ok(Landing { base, name: top, existed: true });
        }
        if is_directory || dest.ends_with('/') {
            let message = format!("{dest} is not a directory");
            return Err(Refusal::new(OpFailure::WrongKind, message));
        }
        return split(&base);
    }
    if dest.ends_with('/') && !is_directory {
        return Err(Refusal::new(OpFailure::NotFound, format!("there is no directory {dest}")));
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let parent = std::fs::canonicalize(parent)
        .map_err(|e| Refusal::std_io(&format!("looking up the directory {}", parent.display()), &e))?;
    let name = path.file_name().ok_or_else(|| Refusal::invalid(format!("{dest} names no file")))?;
    if !parent.is_dir() {
        return Err(Refusal::new(OpFailure::WrongKind, format!("{} is not a directory", parent.display())));
    }
    if top.is_some() {
        return Ok(Landing { base: parent, name: Some(PathBuf::from(name)), existed: true });
    }
    let base = parent.join(name);
    std::fs::create_dir(&base).map_err(|e| Refusal::std_io(&format!("creating {dest}"), &e))?;
    Ok(Landing { base, name: None, existed: false })
}

/// The directory and name of an existing file.
fn split(file: &Path) -> Result<Landing, Refusal> {
    match (file.parent(), file.file_name()) {
        (Some(parent), Some(name)) => {
            Ok(Landing { base: parent.to_owned(), name: Some(PathBuf::from(name)), existed: true })
        }
        _ => Err(Refusal::invalid(format!("{} names no file", file.display()))),
    }
}
