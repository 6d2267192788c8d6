//! Image references, as users write them.

mod registry;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use boxlite_types::{Doing, Error, Result};

pub use registry::RegistryReference;

/// Where an image comes from and what it is called there.
///
/// `Display` writes the canonical form, which is what the catalogue keys names by; parsing that form gives
/// the same reference back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// In a registry, as Docker users write it.
    Registry(RegistryReference),
    /// `oci:DIR[:tag]`: an OCI image layout in a directory.
    Layout {
        /// The directory that holds `oci-layout` and `index.json`.
        path: PathBuf,
        /// The `org.opencontainers.image.ref.name` wanted; the only one there when absent.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:tag]`: an OCI image layout in a tar file.
    OciArchive {
        /// The tar file.
        path: PathBuf,
        /// As for [`Reference::Layout`].
        tag: Option<String>,
    },
    /// `docker-archive:FILE[:name]`: an archive of `docker save`.
    DockerArchive {
        /// The tar file.
        path: PathBuf,
        /// Which of its images, `repository:tag`; the only one there when absent.
        name: Option<RegistryReference>,
    },
}

impl Reference {
    /// The same reference with a path that is absolute, taken from the current directory.
    ///
    /// # Errors
    /// `Io` when it is relative and there is no current directory any more.
    pub fn absolute(self) -> Result<Self> {
        if !self.is_local() {
            return Ok(self);
        }
        let base = std::env::current_dir().doing("finding the current directory", ".")?;
        Ok(self.absolute_from(&base))
    }

    /// The same reference with a path that is absolute, taken from the directory `base`.
    #[must_use]
    pub fn absolute_from(self, base: &Path) -> Self {
        let absolute = |path: PathBuf| -> PathBuf {
            let joined = base.join(path);
            std::path::absolute(&joined).unwrap_or(joined).components().collect()
        };
        match self {
            Self::Registry(reference) => Self::Registry(reference),
            Self::Layout { path, tag } => Self::Layout { path: absolute(path), tag },
            Self::OciArchive { path, tag } => Self::OciArchive { path: absolute(path), tag },
            Self::DockerArchive { path, name } => Self::DockerArchive { path: absolute(path), name },
        }
    }

    /// The canonical form without the parts that Docker users leave out: `alpine:latest` for
    /// `docker.io/library/alpine:latest`.
    pub fn familiar(&self) -> String {
        match self {
            Self::Registry(reference) => reference.familiar(),
            local => local.to_string(),
        }
    }

    /// Whether the image comes from files on this host.
    pub fn is_local(&self) -> bool {
        self.path().is_some()
    }

    /// The directory or archive that the image comes from; `None` for one of a registry.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Registry(_) => None,
            Self::Layout { path, .. } | Self::OciArchive { path, .. } | Self::DockerArchive { path, .. } => {
                Some(path)
            }
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    /// # Errors
    /// `InvalidInput`, saying what is wrong with the text.
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("oci", rest)) => {
                let (path, tag) = path_and_tag(text, rest)?;
                Ok(Self::Layout { path, tag })
            }
            Some(("oci-archive", rest)) => {
                let (path, tag) = path_and_tag(text, rest)?;
                Ok(Self::OciArchive { path, tag })
            }
            Some(("docker-archive", rest)) => {
                let (path, name) = match rest.split_once(':') {
                    Some((path, name)) => (path, Some(name)),
                    None => (rest, None),
                };
                let name = name.map(RegistryReference::parse).transpose()?;
                Ok(Self::DockerArchive { path: local_path(text, path)?, name })
            }
            _ => RegistryReference::parse(text).map(Self::Registry),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, tag) = match self {
            Self::Registry(reference) => return reference.fmt(f),
            Self::Layout { path, tag } => ("oci", path, tag.clone()),
            Self::OciArchive { path, tag } => ("oci-archive", path, tag.clone()),
            Self::DockerArchive { path, name } => {
                ("docker-archive", path, name.as_ref().map(RegistryReference::familiar))
            }
        };
        write!(f, "{transport}:{}", path.display())?;
        tag.map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

/// Splits `DIR[:tag]` at its last colon, which belongs to the path when a slash follows it.
fn path_and_tag(whole: &str, rest: &str) -> Result<(PathBuf, Option<String>)> {
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if tag == Some("") {
        return Err(Error::invalid(format!(
            "'{whole}' ends in a colon; write a tag after it or leave it out"
        )));
    }
    Ok((local_path(whole, path)?, tag.map(str::to_owned)))
}

fn local_path(whole: &str, path: &str) -> Result<PathBuf> {
    if path.is_empty() {
        return Err(Error::invalid(format!("'{whole}' names no path after the colon")));
    }
    if path.contains('\0') {
        return Err(Error::invalid("an image's path contains a NUL byte"));
    }
    Ok(PathBuf::from(path))
}
