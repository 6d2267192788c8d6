//! Finding a volume's directory or file on the host.

use std::fs::File;
use std::io;
use std::path::Path;

use boxlite_types::{Doing, Error, ErrorCause, ErrorKind, Result, Volume};

use super::{OffLimits, VolumeSpec};

/// The volume that `spec` means: relative to `working_directory`, symlinks followed once and for all.
///
/// A missing directory is [`boxlite_types::ErrorKind::NotFound`] and is not created (unlike Docker's `-v`); what is neither a
/// directory nor a regular file is [`boxlite_types::ErrorKind::Unsupported`]; a directory that shows what is `off_limits` is refused as
/// [`boxlite_types::ErrorKind::InvalidInput`], also under another name.
pub fn resolve(spec: &VolumeSpec, working_directory: &Path, off_limits: &OffLimits) -> Result<Volume> {
    let path = working_directory.join(&spec.source);
    let source = match std::fs::canonicalize(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message =
                format!("the volume's directory {} does not exist; create it first", path.display());
            return Err(Error::not_found(message).about(ErrorCause::Volume).at(path).because(error));
        }
        other => other.doing("resolving the volume's directory", &path)?,
    };
    let volume = Volume {
        target: spec.target.clone(),
        read_only: spec.read_only,
        map_ids: spec.map_ids,
        file: source.is_file(),
        size: spec.size,
        source,
    };
    check(&volume, off_limits)?;
    Ok(volume)
}

/// Checks the conditions of every start, as the directory may have changed since it was resolved.
pub(super) fn check(volume: &Volume, off_limits: &OffLimits) -> Result<()> {
    let source = &volume.source;
    let metadata = match std::fs::symlink_metadata(source) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = format!("the volume's directory {} does not exist any more", source.display());
            return Err(Error::not_found(message).about(ErrorCause::Volume).at(source).because(error));
        }
        other => other.doing("examining the volume's directory", source)?,
    };
    if metadata.is_symlink() {
        let message = format!("the volume's directory {} has become a symlink", source.display());
        return Err(Error::conflict(message).about(ErrorCause::Volume).at(source));
    }
    if !metadata.is_dir() && !metadata.is_file() {
        let message = format!(
            "{} is neither a directory nor a regular file, and only these can be volumes",
            source.display()
        );
        return Err(Error::unsupported(message).about(ErrorCause::Volume).at(source));
    }
    // The server of the volume has this user's rights, and its own complaint says less.
    let read =
        if metadata.is_dir() { std::fs::read_dir(source).map(drop) } else { File::open(source).map(drop) };
    if let Err(error) = read
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        let message = format!("this user may not read {}, so a box of theirs can't either", source.display());
        return Err(Error::new(ErrorKind::Denied, message)
            .about(ErrorCause::Volume)
            .at(source)
            .because(error));
    }
    if metadata.is_file() != volume.file {
        let was = if volume.file { "a file" } else { "a directory" };
        let message = format!(
            "the volume {} was {was} when the box was created; create the box again if that is meant",
            source.display()
        );
        return Err(Error::conflict(message).about(ErrorCause::Volume).at(source));
    }
    // A box that writes to a directory above it could have put a link there since.
    let found = std::fs::canonicalize(source).doing("resolving the volume's directory", source)?;
    if found != *source {
        let message = format!(
            "the volume's directory {} leads through a symlink to {} by now; create the box again if that is meant",
            source.display(),
            found.display()
        );
        return Err(Error::conflict(message).about(ErrorCause::Volume).at(source));
    }
    off_limits.refuse(source, volume.read_only)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::volume::parse_volume;

    fn resolved(text: &str, directory: &Path) -> Result<Volume> {
        resolve(&parse_volume(text)?, directory, &only(directory.join("home")))
    }

    fn only(home: PathBuf) -> OffLimits {
        OffLimits { home, assets: Vec::new() }
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

    /// Mutation tried: without the second look the start shares whatever the link leads to.
    #[test]
    fn a_directory_above_that_became_a_link_is_refused_at_the_start() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("shared/app/etc")).unwrap();
        std::fs::create_dir_all(root.join("elsewhere/etc")).unwrap();
        let volume = resolved("./shared/app/etc:/x", &root).unwrap();
        check(&volume, &only(root.join("home"))).unwrap();
        // As root of a box that has all of `shared` as its volume.
        std::fs::rename(root.join("shared/app"), root.join("shared/old")).unwrap();
        std::os::unix::fs::symlink(root.join("elsewhere"), root.join("shared/app")).unwrap();
        let refused = check(&volume, &only(root.join("home"))).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    }

    #[test]
    fn what_is_neither_directory_nor_file_is_refused_and_nothing_is_made() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        std::fs::write(root.join("file"), "x").unwrap();
        std::fs::create_dir_all(root.join("home/boxes")).unwrap();
        assert_eq!(resolved("./missing:/x", &root).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!root.join("missing").exists());
        assert!(resolved("./file:/x", &root).unwrap().file);
        let fifo = std::process::Command::new("mkfifo").arg(root.join("fifo")).status().unwrap();
        assert!(fifo.success());
        assert_eq!(resolved("./fifo:/x", &root).unwrap_err().kind(), ErrorKind::Unsupported);
        std::fs::write(root.join("home/boxes/secret"), "x").unwrap();
        let hidden = resolved("./home/boxes/secret:/x", &root).unwrap_err();
        assert_eq!(hidden.kind(), ErrorKind::InvalidInput, "{hidden}");
        assert_eq!(resolved("./home/boxes:/x", &root).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(resolved("./home:/x", &root).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    /// Mutation tried: `home.starts_with(source)` and both looks at identities left out.
    #[test]
    fn a_directory_that_contains_the_home_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("above/home/boxes")).unwrap();
        std::fs::create_dir(root.join("beside")).unwrap();
        let home = root.join("above/home");
        let go = |text: &str| resolve(&parse_volume(text).unwrap(), &root, &only(home.clone()));
        for inside_or_above in ["/:/x", "./above:/x", "./above/home:/x", "./above/home/boxes:/x"] {
            let error = go(inside_or_above).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{inside_or_above}: {error}");
        }
        go("./beside:/x").unwrap();
    }

    /// Needs the right to mount. Mutation tried: comparison by path alone.
    #[test]
    fn the_home_under_another_name_is_refused() {
        use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        for directory in ["above/home/boxes", "share/in ner", "plain"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        let (home, inner) = (root.join("above/home"), root.join("share/in ner"));
        let go = |text: &str| resolve(&parse_volume(text).unwrap(), &root, &only(home.clone()));
        for hidden in ["above", "above/home", "above/home/boxes"] {
            if mount(root.join(hidden), &inner, "", MountFlags::BIND, None).is_err() {
                eprintln!("skipped: this user may not mount");
                return;
            }
            let results = ["./share:/x", "./share/in ner:/x", "./plain:/x"].map(go);
            unmount(&inner, UnmountFlags::DETACH).unwrap();
            let refused = results.map(|result| result.is_err_and(|e| e.kind() == ErrorKind::InvalidInput));
            assert_eq!(refused, [true, true, false], "{hidden}");
        }
    }

    #[test]
    fn a_directory_replaced_by_a_symlink_is_noticed_at_start() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("data")).unwrap();
        let volume = resolved("./data:/x", &root).unwrap();
        std::fs::remove_dir(root.join("data")).unwrap();
        assert_eq!(check(&volume, &only(root.join("home"))).unwrap_err().kind(), ErrorKind::NotFound);
        std::fs::write(root.join("data"), "now a file").unwrap();
        assert_eq!(check(&volume, &only(root.join("home"))).unwrap_err().kind(), ErrorKind::Conflict);
        std::fs::remove_file(root.join("data")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("data")).unwrap();
        assert_eq!(check(&volume, &only(root.join("home"))).unwrap_err().kind(), ErrorKind::Conflict);
    }
}
