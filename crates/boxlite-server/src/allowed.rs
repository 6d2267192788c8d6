//! The parts of this host that a request may name, because the operator allowed it: paths below some directories, and
//! ports of its loopback.
//!
//! # Limits
//! A path may be on a filesystem that does not answer, and then takes one of the runtime's blocking threads until it does. So at
//! most [`MAX_LOOKUPS`] paths are looked up at once, and further requests that name one are refused for the moment.

use std::io;
use std::path::{Path, PathBuf};

use boxlite::{BoxOptions, Error, ErrorKind, Reference, Result};
use boxlite::{named_text, parse_named, parse_volume};
use tokio::sync::Semaphore;

/// Paths that are looked up at once, of the 512 blocking threads that the runtime has.
const MAX_LOOKUPS: usize = 64;

static LOOKUPS: Semaphore = Semaphore::const_new(MAX_LOOKUPS);

/// The directories below which requests may name paths, and the ports of the loopback that boxes may reach.
#[derive(Debug, Clone, Default)]
pub(crate) struct AllowedPaths {
    allowed: Vec<PathBuf>,
    ports: Vec<u16>,
}

impl AllowedPaths {
    /// Allows `directories`, following their symbolic links now; may block.
    pub(crate) fn new(directories: &[PathBuf]) -> Result<Self> {
        let canonical = |path: &PathBuf| {
            std::fs::canonicalize(path)
                .map_err(|error| Error::io("resolving the allowed directory", path, error))
        };
        Ok(Self { allowed: directories.iter().map(canonical).collect::<Result<_>>()?, ports: Vec::new() })
    }

    /// Allows boxes to reach these TCP ports of this host's loopback as well.
    #[must_use]
    pub(crate) fn with_host_ports(self, ports: &[u16]) -> Self {
        Self { ports: ports.to_vec(), ..self }
    }

    /// Refuses ports of this host's loopback that the operator has not allowed.
    pub(crate) fn host_ports(&self, wanted: &[u16]) -> Result<()> {
        match wanted.iter().find(|port| !self.ports.contains(port)) {
            None => Ok(()),
            Some(port) => Err(Error::new(
                ErrorKind::Denied,
                format!("port {port} of the server's host is none that `boxlite serve --allow-host` names"),
            )),
        }
    }

    /// Returns the options with every path in them checked and its symbolic links resolved; may block.
    ///
    /// # Errors
    /// `Denied` for a path that is not allowed, whether or not it exists.
    pub(crate) fn check(&self, options: BoxOptions) -> Result<BoxOptions> {
        self.host_ports(&options.allow_host)?;
        let image = self.image(&options.image)?;
        let volumes = self.volumes(&options.volumes)?;
        let kernel = options.kernel.as_deref().map(|path| self.path(path)).transpose()?;
        Ok(BoxOptions { image, volumes, kernel, ..options })
    }

    /// Returns volumes with their paths checked; may block.
    pub(crate) fn volumes(&self, texts: &[String]) -> Result<Vec<String>> {
        texts.iter().map(|volume| self.volume(volume)).collect()
    }

    /// Returns the image as named, with its path checked if it has one; may block.
    pub(crate) fn image(&self, text: &str) -> Result<String> {
        // A text that is not a reference may be a digest; the library decides that.
        let Ok(reference) = text.parse::<Reference>() else { return Ok(text.to_owned()) };
        let checked = match reference {
            Reference::Registry(_) => return Ok(text.to_owned()),
            Reference::Layout { path, tag } => Reference::Layout { path: self.path(&path)?, tag },
            Reference::OciArchive { path, tag } => Reference::OciArchive { path: self.path(&path)?, tag },
            Reference::DockerArchive { path, name } => {
                Reference::DockerArchive { path: self.path(&path)?, name }
            }
        };
        let written = checked.to_string();
        match written.parse::<Reference>() {
            Ok(read) if read == checked => Ok(written),
            _ => Err(Error::invalid(format!("{text} leads to a path that cannot be written as a reference"))),
        }
    }

    fn volume(&self, text: &str) -> Result<String> {
        // It names no path.
        if let Some(mount) = parse_named(text)? {
            return Ok(named_text(&mount));
        }
        let mut spec = parse_volume(text)?;
        spec.source = self.path(&spec.source)?;
        if spec.source.to_str().is_none_or(|source| source.contains(':')) {
            return Err(Error::invalid(format!(
                "volume {text:?} leads to a path that cannot be written as one"
            )));
        }
        Ok(spec.to_string())
    }

    /// Refuses a start when an allowed volume's path now leads outside the allowed directories; may block.
    pub(crate) fn still_leads_there(&self, options: &BoxOptions) -> Result<()> {
        for volume in &options.volumes {
            if parse_named(volume)?.is_some() {
                continue;
            }
            let source = parse_volume(volume)?.source;
            if self.allowed.iter().any(|allowed| source.starts_with(allowed)) {
                self.path(&source)?;
            }
        }
        Ok(())
    }

    /// Returns the canonical path.
    fn path(&self, path: &Path) -> Result<PathBuf> {
        self.path_among(&LOOKUPS, path)
    }

    fn path_among(&self, lookups: &Semaphore, path: &Path) -> Result<PathBuf> {
        let denied = || {
            let message = format!(
                "{} is a path on the server's host, and not below a directory that `boxlite serve --allow-path` names",
                path.display()
            );
            Err(Error::new(ErrorKind::Denied, message).at(path))
        };
        if self.allowed.is_empty() || !path.is_absolute() {
            return denied();
        }
        let _lookup = lookups.try_acquire().map_err(|_| {
            let message = format!("{MAX_LOOKUPS} paths of the server's host are being looked up; try again");
            Error::new(ErrorKind::Busy, message)
        })?;
        let below = |path: &Path| self.allowed.iter().any(|allowed| path.starts_with(allowed));
        match std::fs::canonicalize(path) {
            Ok(found) if below(&found) => Ok(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_plainly_below(path) => {
                Err(Error::not_found(format!("there is no {}", path.display())).at(path).because(error))
            }
            _ => denied(),
        }
    }

    /// Tells whether the existing part of the path lies below an allowed directory: only then may the answer say what is
    /// missing.
    fn is_plainly_below(&self, path: &Path) -> bool {
        let existing = path.ancestors().find_map(|ancestor| std::fs::canonicalize(ancestor).ok());
        existing.is_some_and(|existing| self.allowed.iter().any(|allowed| existing.starts_with(allowed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation tried: `canonicalize` replaced by the path as given lets the link and the `..` through.
    #[test]
    fn only_what_really_lies_below_an_allowed_directory_is_allowed() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        for directory in ["allowed/in", "outside", "allowed-too"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("outside"), root.join("allowed/link")).unwrap();
        std::os::unix::fs::symlink(root.join("allowed/in"), root.join("outside/back")).unwrap();
        let allowed = AllowedPaths::new(&[root.join("allowed")]).unwrap();
        let kind = |path: &str| allowed.path(&root.join(path)).map_err(|error| error.kind());
        assert_eq!(kind("allowed/in"), Ok(root.join("allowed/in")));
        assert_eq!(kind("outside/back"), Ok(root.join("allowed/in")));
        assert_eq!(kind("allowed/none/x"), Err(ErrorKind::NotFound));
        for denied in [
            "outside",
            "allowed-too",
            "allowed/link",
            "allowed/link/none",
            "allowed/../outside",
            "none",
            "allowed/../none",
        ] {
            assert_eq!(kind(denied), Err(ErrorKind::Denied), "{denied}");
        }
        assert_eq!(allowed.path(Path::new("in")).unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(
            AllowedPaths::default().path(&root.join("allowed/in")).unwrap_err().kind(),
            ErrorKind::Denied
        );
    }

    /// Before: paths on a filesystem that did not answer took thread after thread, until the server answered nothing.
    #[test]
    fn paths_that_do_not_answer_keep_nobody_from_what_names_none() {
        let root = tempfile::tempdir().unwrap();
        let allowed = AllowedPaths::new(&[root.path().to_owned()]).unwrap();
        let taken = Semaphore::new(0);
        assert_eq!(allowed.path_among(&taken, root.path()).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(allowed.path_among(&taken, Path::new("in")).unwrap_err().kind(), ErrorKind::Denied);
        let all = LOOKUPS.try_acquire_many(MAX_LOOKUPS as u32).unwrap();
        let layout = format!("oci:{}", root.path().display());
        assert_eq!(allowed.image(&layout).unwrap_err().kind(), ErrorKind::Busy);
        let options =
            BoxOptions { image: "alpine".into(), volumes: vec!["data:/d".into()], ..BoxOptions::default() };
        assert_eq!(allowed.check(options).unwrap().image, "alpine");
        drop(all);
        assert_eq!(allowed.image(&layout).unwrap(), layout);
    }

    #[test]
    fn only_ports_that_the_operator_names_are_reached() {
        let allowed = AllowedPaths::default().with_host_ports(&[5432]);
        let options = |allow_host: &[u16]| BoxOptions {
            image: "alpine".into(),
            allow_host: allow_host.to_vec(),
            ..BoxOptions::default()
        };
        assert_eq!(allowed.check(options(&[5432])).unwrap().allow_host, [5432]);
        let refused = allowed.check(options(&[5432, 22])).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
        assert!(refused.to_string().contains("port 22"), "{refused}");
        assert!(AllowedPaths::default().host_ports(&[80]).is_err());
        AllowedPaths::default().host_ports(&[]).unwrap();
    }

    #[test]
    fn every_form_that_names_a_path_is_checked() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("in")).unwrap();
        let allowed = AllowedPaths::new(std::slice::from_ref(&root)).unwrap();
        let at = root.display();
        let inside = allowed.image(&format!("oci:{at}/in/../in:tag")).unwrap();
        assert_eq!(inside, format!("oci:{at}/in:tag"));
        for options in ["ro", "rw", "ro,U", "rw,U"] {
            let text = format!("{at}/in:/data:{options}");
            assert_eq!(allowed.volume(&text).unwrap(), text);
        }
        for text in ["oci:/etc:x", "oci-archive:/etc/passwd", "docker-archive:/etc/passwd:x", "oci:etc"] {
            assert_eq!(allowed.image(text).unwrap_err().kind(), ErrorKind::Denied, "{text}");
        }
        for text in ["/etc:/x", "./in:/x", "../x:/x"] {
            assert_eq!(allowed.volume(text).unwrap_err().kind(), ErrorKind::Denied, "{text}");
        }
        assert_eq!(allowed.volume("data:/x:ro").unwrap(), "data:/x:ro");
        for text in ["alpine", "localhost:5000/x:1", "sha256:00", "ab12"] {
            assert_eq!(allowed.image(text).unwrap(), text);
        }
    }
}
