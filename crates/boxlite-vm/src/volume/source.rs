//! Finding a volume's directory on the host.

use std::io;
use std::path::Path;

use boxlite_types::{Doing, Error, Result, Volume};

use super::VolumeSpec;

/// The volume that `spec` means: relative to `working_directory`, symlinks followed once and for all.
///
/// A missing directory is [`boxlite_types::ErrorKind::NotFound`] and is not created (unlike Docker's `-v`); a single file is
/// [`boxlite_types::ErrorKind::Unsupported`]; anything inside the home at `home` is refused, because a guest that writes there
/// could change other boxes.
pub fn resolve(spec: &VolumeSpec, working_directory: &Path, home: &Path) -> Result<Volume> {
    let path = working_directory.join(&spec.source);
    let source = match std::fs::canonicalize(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message =
                format!("the volume's directory {} does not exist; create it first", path.display());
            return Err(Error::not_found(message).at(path).because(error));
        }
        other => other.doing("resolving the volume's directory", &path)?,
    };
    let volume = Volume { source, target: spec.target.clone(), read_only: spec.read_only };
    check(&volume, home)?;
    Ok(volume)
}

/// What must hold whenever the box starts, as the directory may have changed since it was resolved.
pub(super) fn check(volume: &Volume, home: &Path) -> Result<()> {
    let source = &volume.source;
    let metadata = match std::fs::symlink_metadata(source) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = format!("the volume's directory {} does not exist any more", source.display());
            return Err(Error::not_found(message).at(source).because(error));
        }
        other => other.doing("examining the volume's directory", source)?,
    };
    if metadata.is_symlink() {
        let message = format!("the volume's directory {} has become a symlink", source.display());
        return Err(Error::conflict(message).at(source));
    }
    if !metadata.is_dir() {
        let message = format!("{} is not a directory, and only directories can be volumes", source.display());
        return Err(Error::unsupported(message).at(source));
    }
    if source.starts_with(home) {
        let message =
            format!("the volume's directory {} lies in boxlite's home {}", source.display(), home.display());
        return Err(Error::invalid(message).at(source));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::parse_volume;
    use boxlite_types::ErrorKind;

    fn resolved(text: &str, directory: &Path) -> Result<Volume> {
        resolve(&parse_volume(text)?, directory, &directory.join("home"))
    }

    #[test]
    fn relative_paths_and_symlinks_become_one_absolute_path() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("data")).unwrap();
        std::os::unix::fs::symlink("data", root.join("link")).unwrap();
        let absolute = format!("{}:/x", root.join("data").display());
        for text in ["./data:/x", "./link:/x", absolute.as_str()] {
            assert_eq!(resolved(text, &root).unwrap().source, root.join("data"));
        }
    }

    #[test]
    fn what_is_no_directory_is_refused_and_nothing_is_made() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        std::fs::write(root.join("file"), "x").unwrap();
        std::fs::create_dir_all(root.join("home/boxes")).unwrap();
        assert_eq!(resolved("./missing:/x", &root).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!root.join("missing").exists());
        assert_eq!(resolved("./file:/x", &root).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(resolved("./home/boxes:/x", &root).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(resolved("./home:/x", &root).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_directory_replaced_by_a_symlink_is_noticed_at_start() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("data")).unwrap();
        let volume = resolved("./data:/x", &root).unwrap();
        std::fs::remove_dir(root.join("data")).unwrap();
        assert_eq!(check(&volume, &root.join("home")).unwrap_err().kind(), ErrorKind::NotFound);
        std::os::unix::fs::symlink("/etc", root.join("data")).unwrap();
        assert_eq!(check(&volume, &root.join("home")).unwrap_err().kind(), ErrorKind::Conflict);
    }
}
