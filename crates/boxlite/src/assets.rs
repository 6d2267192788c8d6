//! The programs and files outside the library that a box needs, and where they are on this host.

use std::env;
use std::path::{Path, PathBuf};

use boxlite_types::{AssetReport, Error, Result};
use boxlite_vm::guest::find_module_image;
use serde::{Deserialize, Serialize};

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
    /// `boxlite-virtiofsd`, needed only for volumes.
    pub virtiofsd: Option<PathBuf>,
}

/// Where to look for the guest's kernel and agent and for the programs that run it.
///
/// Programs are looked for beside the running program and in the directory above it, then in `bin` of each of
/// `directories`, then in `path`. A program that is installed in `PREFIX/bin` has its own assets in `PREFIX/lib/boxlite`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetSearch {
    /// Directories with the guest's kernel and agent, in order; `scripts/setup` and packages fill one.
    pub directories: Vec<PathBuf>,
    /// Directories of programs, as the environment variable `PATH` lists them.
    pub path: Vec<PathBuf>,
    /// The shim, instead of one that is looked for as the other programs are; ignored when the file does not exist.
    pub shim: Option<PathBuf>,
}

/// The directories of the running program's own installation, then of this host's.
impl Default for AssetSearch {
    fn default() -> Self {
        let own =
            env::current_exe().ok().and_then(|program| Some(program.parent()?.parent()?.join("lib/boxlite")));
        let system = [Self::OF_HOST.into(), "/usr/share/boxlite".into()];
        Self {
            directories: own.into_iter().chain(system).collect(),
            path: vec!["/usr/local/bin".into(), "/usr/bin".into()],
            shim: None,
        }
    }
}

const KERNEL: &str = "guest kernel";
/// The only asset that boxes without volumes do without, save for [`MODULES`].
const VIRTIOFSD: &str = "boxlite-virtiofsd (volumes only)";
/// An asset that the first start makes where it may.
const MODULES: &str = "kernel modules (overlay, fuse, tun, ...)";
const MAKE: &str = "the first start makes them where it may write to the kernel's directory; elsewhere run `boxlite setup` as its owner";
const SETUP: &str = "run scripts/setup from boxlite's source";
const FETCH: &str = "run `boxlite setup`, or scripts/setup from boxlite's source";

impl AssetSearch {
    /// Where a host's administrator puts what no package brings.
    pub const OF_HOST: &str = "/usr/local/share/boxlite";

    /// Returns where the program is, if it is there.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let beside_us = env::current_exe().ok().and_then(|program| program.parent().map(ToOwned::to_owned));
        // A test or example lives one directory below the programs.
        let above_us = beside_us.as_deref().and_then(|directory| directory.parent()).map(ToOwned::to_owned);
        [beside_us, above_us]
            .into_iter()
            .flatten()
            .chain(self.directories.iter().map(|directory| directory.join("bin")))
            .chain(self.path.iter().cloned())
            .map(|directory| directory.join(name))
            .find(|path| path.is_file())
    }

    /// Returns the guest kernel's directory, if it is there.
    pub fn kernel(&self) -> Option<PathBuf> {
        self.file("kernel")
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.directories.iter().map(|directory| directory.join(name)).find(|path| path.exists())
    }

    /// `qemu-system-x86_64`, if it is there.
    pub(crate) fn qemu(&self) -> Option<PathBuf> {
        self.program("qemu-system-x86_64")
    }

    fn all(&self) -> [(&'static str, Option<PathBuf>, &'static str); 5] {
        let shim = self.shim.clone().filter(|path| path.is_file());
        [
            ("QEMU", self.qemu(), "install the Debian package qemu-system-x86"),
            ("shim", shim.or_else(|| self.program("boxlite-shim")), "put boxlite-shim beside boxlite"),
            ("guest agent", self.file("boxlite-guest"), SETUP),
            (KERNEL, self.kernel(), FETCH),
            (VIRTIOFSD, self.program("boxlite-virtiofsd"), "put boxlite-virtiofsd beside boxlite"),
        ]
    }

    /// The paths of the assets that are there.
    pub(crate) fn found(&self) -> Vec<PathBuf> {
        self.all().into_iter().filter_map(|(_, path, _)| path).collect()
    }

    /// Every asset, found or not; `kernel` is the settings' in place of boxlite's own.
    pub(crate) fn report(&self, kernel: Option<&Path>) -> Vec<AssetReport> {
        let chosen = |name| if name == KERNEL { kernel } else { None };
        let modules = self.kernel().and_then(|kernel| find_module_image(&kernel));
        self.all()
            .into_iter()
            .chain([(MODULES, modules, MAKE)])
            .map(|(name, path, remedy)| match chosen(name) {
                Some(kernel) => AssetReport {
                    name: format!("{name} (setting)"),
                    path: Some(kernel.to_owned()).filter(|path| path.exists()),
                    optional: false,
                    remedy: format!("change the setting kernel, which is {}", kernel.display()),
                },
                None => AssetReport {
                    name: name.into(),
                    path,
                    optional: matches!(name, VIRTIOFSD | MODULES),
                    remedy: remedy.into(),
                },
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
