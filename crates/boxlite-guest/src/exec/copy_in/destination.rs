//! Decides where an archive is unpacked, as `docker cp` does.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use boxlite_proto::OpFailure;

use crate::exec::op_error::OpError;

/// Where an archive is unpacked: the directory, and the new name of its top-level entry, if that gets one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnpackDestination {
    pub(super) base: PathBuf,
    pub(super) rename: Option<TopRename>,
    /// Whether the directory existed before; if so, it keeps its attributes.
    pub(super) existed: bool,
}

/// The only top-level entry of an archive, and the name it is unpacked under.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TopRename {
    top: OsString,
    to: OsString,
}

impl UnpackDestination {
    /// Decides the destination from the archive's first entry and from what is at `dest`.
    pub(super) fn choose(dest: &str, first: &Path, is_directory: bool) -> Result<UnpackDestination, OpError> {
        if !dest.starts_with('/') || dest.contains('\0') {
            return Err(OpError::invalid(format!("{dest:?} is not an absolute path")));
        }
        let top = first.components().find_map(|component| match component {
            Component::Normal(part) => Some(part),
            _ => None,
        });
        // Drops a trailing slash, which is looked at separately.
        let path: PathBuf = Path::new(dest).components().collect();
        // A dangling symbolic link counts as a missing path.
        if let Ok(base) = std::fs::canonicalize(&path) {
            if base.is_dir() {
                return Ok(UnpackDestination { base, rename: None, existed: true });
            }
            let Some(top) = top.filter(|_| !is_directory && !dest.ends_with('/')) else {
                let message = format!("{dest} is not a directory");
                return Err(OpError::new(OpFailure::WrongKind, message));
            };
            return replace_file(&base, top);
        }
        if dest.ends_with('/') && !is_directory {
            return Err(OpError::new(OpFailure::NotFound, format!("there is no directory {dest}")));
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        let parent = std::fs::canonicalize(parent)
            .map_err(|e| OpError::std_io(&format!("looking up the directory {}", parent.display()), &e))?;
        let name =
            path.file_name().ok_or_else(|| OpError::invalid(format!("{dest} does not name a file")))?;
        if !parent.is_dir() {
            return Err(OpError::new(
                OpFailure::WrongKind,
                format!("{} is not a directory", parent.display()),
            ));
        }
        if let Some(top) = top {
            let rename = Some(TopRename { top: top.to_owned(), to: name.to_owned() });
            return Ok(UnpackDestination { base: parent, rename, existed: true });
        }
        let base = parent.join(name);
        std::fs::create_dir(&base).map_err(|e| OpError::std_io(&format!("creating {dest}"), &e))?;
        Ok(UnpackDestination { base, rename: None, existed: false })
    }

    /// Returns the path below the base of the entry with these components. Only the renamed entry may have the new name.
    pub(super) fn place(&self, components: &[&OsStr]) -> Result<PathBuf, OpError> {
        let Some(TopRename { top, to }) = &self.rename else { return Ok(components.iter().collect()) };
        match components.split_first() {
            Some((first, below)) if first == top => {
                Ok([to.as_os_str()].into_iter().chain(below.iter().copied()).collect())
            }
            _ => {
                let other: PathBuf = [OsStr::new(".")].iter().chain(components).collect();
                let message = format!(
                    "the archive names {} besides {}, and only one can become {}, which is not a directory",
                    other.display(),
                    Path::new(".").join(top).display(),
                    self.base.join(to).display()
                );
                Err(OpError::new(OpFailure::BadArchive, message))
            }
        }
    }
}

/// The destination of an entry `top` that replaces an existing file.
fn replace_file(file: &Path, top: &OsStr) -> Result<UnpackDestination, OpError> {
    match (file.parent(), file.file_name()) {
        (Some(parent), Some(name)) => {
            let rename = TopRename { top: top.to_owned(), to: name.to_owned() };
            Ok(UnpackDestination { base: parent.to_owned(), rename: Some(rename), existed: true })
        }
        _ => Err(OpError::invalid(format!("{} does not name a file", file.display()))),
    }
}
