//! The assets that `scripts/setup` installs: guest kernel, guest agent, programs, test image.
//!
//! Tests, benches and the environment that a test gives to `boxlite` all look here, in one order: `BOXLITE_ASSETS`; the
//! `assets` directory of the target directory that this test was built in, which is what `scripts/test` fills; the
//! directory that `scripts/setup` fills by default.

use std::env;
use std::path::{Path, PathBuf};

use crate::oracle;

/// A directory of assets; nothing in it need exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assets {
    directory: PathBuf,
    test_image: PathBuf,
}

impl Assets {
    /// Returns the assets of this machine, whether or not they are complete.
    ///
    /// `BOXLITE_TEST_IMAGE` names the test image; without it the image is `test-image` among the assets.
    pub fn locate() -> Self {
        let exe = env::current_exe().unwrap_or_default();
        Self::look(|name| env::var_os(name).map(PathBuf::from), &exe)
    }

    /// Returns the assets if kernel and test image are there; `None`, after [`oracle::skip`], if not.
    #[track_caller]
    pub fn require() -> Option<Self> {
        let found = Self::locate();
        found.has(&[&found.kernel(), &found.test_image.join("index.json")]).then_some(found)
    }

    /// Returns whether each of `paths` exists; calls [`oracle::skip`] with the first that does not.
    #[track_caller]
    #[must_use]
    pub fn has(&self, paths: &[&Path]) -> bool {
        let missing = missing(paths);
        if let Some(reason) = &missing {
            oracle::skip(reason);
        }
        missing.is_none()
    }

    fn look(variable: impl Fn(&str) -> Option<PathBuf>, exe: &Path) -> Self {
        let built = || {
            // target/PROFILE/deps/TEST, target/PROFILE/PROGRAM
            let above = exe.ancestors().skip(1).take(3).map(|directory| directory.join("assets"));
            above.into_iter().find(|assets| assets.join("kernel").exists())
        };
        let installed = || {
            let data = variable("XDG_DATA_HOME");
            let home = || variable("HOME").unwrap_or_default().join(".local/share");
            data.unwrap_or_else(home).join("boxlite")
        };
        let directory = variable("BOXLITE_ASSETS").or_else(built).unwrap_or_else(installed);
        let test_image = variable("BOXLITE_TEST_IMAGE").unwrap_or_else(|| directory.join("test-image"));
        Self { directory, test_image }
    }

    /// Returns the directory, for `BOXLITE_ASSETS`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the directory of `vmlinuz` and `modules`.
    pub fn kernel(&self) -> PathBuf {
        self.directory.join("kernel")
    }

    /// Returns the guest agent.
    pub fn agent(&self) -> PathBuf {
        self.directory.join("boxlite-guest")
    }

    /// Returns `boxlite-virtiofsd`, which is built with the tests: beside or above the running one.
    pub fn virtiofsd() -> PathBuf {
        let exe = std::env::current_exe().unwrap_or_default();
        let name = "boxlite-virtiofsd";
        let places = exe.ancestors().skip(1).take(2).map(|directory| directory.join(name));
        places.into_iter().find(|path| path.exists()).unwrap_or_else(|| exe.with_file_name(name))
    }

    /// Returns the OCI layout that `scripts/make-image` makes.
    pub fn test_image(&self) -> &Path {
        &self.test_image
    }

    /// Returns the reference of the test image's `tag`.
    pub fn reference(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.test_image.display())
    }
}

/// Returns a sentence about the first of `paths` that does not exist, and how it comes to be.
pub fn missing(paths: &[&Path]) -> Option<String> {
    let absent = paths.iter().find(|path| !path.exists())?;
    Some(format!("{} is missing; run scripts/setup --test and scripts/make-image", absent.display()))
}

#[cfg(test)]
mod tests {
    use super::Assets;
    use std::path::{Path, PathBuf};

    fn look(variables: &[(&str, &str)], exe: &Path) -> Assets {
        let of = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        Assets::look(of, exe)
    }

    #[test]
    fn the_variable_comes_first_then_the_target_directory_then_what_is_installed() {
        let target = tempfile::tempdir().unwrap();
        let exe = target.path().join("debug/deps/test-1");
        let home = ("HOME", "/home/me");
        let directory = |variables: &[_]| look(variables, &exe).directory;
        assert_eq!(directory(&[home]), PathBuf::from("/home/me/.local/share/boxlite"));
        assert_eq!(directory(&[home, ("XDG_DATA_HOME", "/data")]), PathBuf::from("/data/boxlite"));
        std::fs::create_dir_all(target.path().join("assets/kernel")).unwrap();
        assert_eq!(directory(&[home]), target.path().join("assets"));
        assert_eq!(directory(&[home, ("BOXLITE_ASSETS", "/a")]), PathBuf::from("/a"));
    }

    #[test]
    fn the_test_image_is_named_or_among_the_assets() {
        let exe = Path::new("/nowhere/debug/deps/test");
        let assets = look(&[("BOXLITE_ASSETS", "/a")], exe);
        assert_eq!(assets.reference("mini"), "oci:/a/test-image:mini");
        let assets = look(&[("BOXLITE_ASSETS", "/a"), ("BOXLITE_TEST_IMAGE", "/i")], exe);
        assert_eq!(assets.test_image(), Path::new("/i"));
    }
}
