//! The programs and files outside the library that a box needs, and where they are on this host.

use std::env;
use std::path::{Path, PathBuf};

use boxlite_types::{AssetReport, Error, Result};

/// Where this host's assets are; every path was seen to exist when it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assets {
    /// `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// The `boxlite-shim` program.
    pub shim: PathBuf,
    /// The static guest agent.
    pub guest: PathBuf,
    /// The guest kernel: a directory with Debian's `vmlinuz` and `modules/`.
    pub kernel: PathBuf,
    /// `virtiofsd`, needed only for volumes.
    pub virtiofsd: Option<PathBuf>,
}

/// Where to look, in order.
#[derive(Debug, Clone)]
pub(crate) struct AssetSearch {
    directories: Vec<PathBuf>,
    programs: Vec<PathBuf>,
}

/// The only asset that boxes without volumes do without.
const VIRTIOFSD: &str = "virtiofsd (volumes only)";
const SETUP: &str = "run scripts/setup from boxlite's source";

impl AssetSearch {
    /// Looks in `wanted` alone if given, else in `BOXLITE_ASSETS` alone if set, else in the usual places.
    pub(crate) fn new(wanted: Option<&Path>) -> Self {
        let named = wanted.map(Path::to_owned).or_else(|| env::var_os("BOXLITE_ASSETS").map(PathBuf::from));
        let directories = named.map_or_else(usual_directories, |directory| vec![directory]);
        let beside_us = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
        // A test or example binary lives one directory below the programs.
        let above_us = beside_us.as_deref().and_then(Path::parent).map(Path::to_owned);
        let on_path = env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
        let programs = [beside_us, above_us]
            .into_iter()
            .flatten()
            .chain(directories.iter().map(|directory| directory.join("bin")))
            .chain::<Vec<PathBuf>>(on_path)
            .collect();
        Self { directories, programs }
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        self.programs.iter().map(|directory| directory.join(name)).find(|path| path.is_file())
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.directories.iter().map(|directory| directory.join(name)).find(|path| path.exists())
    }

    /// `qemu-system-x86_64`, if it is there.
    pub(crate) fn qemu(&self) -> Option<PathBuf> {
        self.program("qemu-system-x86_64")
    }

    fn all(&self) -> [(&'static str, Option<PathBuf>, &'static str); 5] {
        let shim = env::var_os("BOXLITE_SHIM").map(PathBuf::from).filter(|path| path.is_file());
        [
            ("QEMU", self.qemu(), "install the Debian package qemu-system-x86"),
            ("shim", shim.or_else(|| self.program("boxlite-shim")), "put boxlite-shim beside boxlite"),
            ("guest agent", self.file("boxlite-guest"), SETUP),
            ("guest kernel", self.file("kernel"), SETUP),
            (VIRTIOFSD, self.program("virtiofsd"), SETUP),
        ]
    }

    /// Every asset, found or not.
    pub(crate) fn report(&self) -> Vec<AssetReport> {
        self.all()
            .into_iter()
            .map(|(name, path, remedy)| AssetReport {
                name: name.into(),
                path,
                optional: name == VIRTIOFSD,
                remedy: remedy.into(),
            })
            .collect()
    }

    /// The assets, all of which a start needs save for virtiofsd.
    ///
    /// # Errors
    /// `Unsupported`, naming the first that is missing and what to do.
    pub(crate) fn find(&self) -> Result<Assets> {
        let [qemu, shim, guest, kernel, (_, virtiofsd, _)] = self.all();
        let needed = |(name, path, remedy): (&str, Option<PathBuf>, &str)| {
            path.ok_or_else(|| {
                let places: Vec<String> = self.directories.iter().map(|d| d.display().to_string()).collect();
                Error::unsupported(format!(
                    "this host has no {name} (looked in {} and PATH); {remedy}",
                    places.join(", ")
                ))
            })
        };
        Ok(Assets {
            qemu: needed(qemu)?,
            shim: needed(shim)?,
            guest: needed(guest)?,
            kernel: needed(kernel)?,
            virtiofsd,
        })
    }
}

fn usual_directories() -> Vec<PathBuf> {
    let data_home = env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")));
    data_home
        .into_iter()
        .chain(["/usr/local/share".into(), "/usr/share".into()])
        .map(|directory| directory.join("boxlite"))
        .collect()
}
