//! Where an archive lands, with the habits of `docker cp`.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use boxlite_proto::OpFailure;

use crate::exec::outcome::Refusal;

/// Where an archive goes: the directory, and what changes its name on the way (`None`: nothing).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Landing {
    pub(super) base: PathBuf,
    pub(super) rename: Option<Rename>,
    /// Whether the directory was there before; its own attributes then stay.
    pub(super) existed: bool,
}

/// The one top-level entry of an archive, and the name it takes where it lands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rename {
    top: OsString,
    to: OsString,
}

impl Landing {
    /// Where the entry with these components goes below the base; nothing may take another entry's place.
    pub(super) fn place(&self, components: &[&OsStr]) -> Result<PathBuf, Refusal> {
        let Some(Rename { top, to }) = &self.rename else { return Ok(components.iter().collect()) };
        match components.split_first() {
            Some((first, below)) if first == top => {
                Ok([to.as_os_str()].into_iter().chain(below.iter().copied()).collect())
            }
            _ => {
                let other: PathBuf = [OsStr::new(".")].iter().chain(components).collect();
                let message = format!(
                    "the archive names {} besides {}, and only one can become {}, which is no directory",
                    other.display(),
                    Path::new(".").join(top).display(),
                    self.base.join(to).display()
                );
                Err(Refusal::new(OpFailure::BadArchive, message))
            }
        }
    }
}

/// Decides where an archive goes, from its first entry and from what is at `dest`.
pub(super) fn land(dest: &str, first: &Path, is_directory: bool) -> Result<Landing, Refusal> {
    if !dest.starts_with('/') || dest.contains('\0') {
        return Err(Refusal::invalid(format!("{dest:?} is not an absolute path")));
    }
    let top = first.components().find_map(|component| match component {
        Component::Normal(part) => Some(part),
        _ => None,
    });
    // Without a trailing slash, which is looked at by itself.
    let path: PathBuf = Path::new(dest).components().collect();
    // A link to nothing counts as nothing.
    if let Ok(base) = std::fs::canonicalize(&path) {
        if base.is_dir() {
            return Ok(Landing { base, rename: None, existed: true });
        }
        let Some(top) = top.filter(|_| !is_directory && !dest.ends_with('/')) else {
            let message = format!("{dest} is not a directory");
            return Err(Refusal::new(OpFailure::WrongKind, message));
        };
        return split(&base, top);
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
    if let Some(top) = top {
        let rename = Some(Rename { top: top.to_owned(), to: name.to_owned() });
        return Ok(Landing { base: parent, rename, existed: true });
    }
    let base = parent.join(name);
    std::fs::create_dir(&base).map_err(|e| Refusal::std_io(&format!("creating {dest}"), &e))?;
    Ok(Landing { base, rename: None, existed: false })
}

/// The directory and name of an existing file, which the entry `top` replaces.
fn split(file: &Path, top: &OsStr) -> Result<Landing, Refusal> {
    match (file.parent(), file.file_name()) {
        (Some(parent), Some(name)) => {
            let rename = Rename { top: top.to_owned(), to: name.to_owned() };
            Ok(Landing { base: parent.to_owned(), rename: Some(rename), existed: true })
        }
        _ => Err(Refusal::invalid(format!("{} names no file", file.display()))),
    }
}
