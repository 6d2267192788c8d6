//! Whether a test can run on this machine.
//!
//! A test that cannot run says so on standard error, in a line that starts with `SKIPPED`, and returns. Where `CI` is set,
//! the machine is expected to have everything, and the same test fails instead; [`skip_even_in_ci`] is for the little that
//! `scripts/setup --test` cannot provide.

use std::fmt::Display;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Says that the calling test is skipped, and why.
///
/// # Panics
///
/// Where `CI` is set.
#[track_caller]
pub fn skip(reason: impl Display) {
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    skip_even_in_ci(reason);
}

/// Says that the calling test is skipped, and why, also where `CI` is set.
pub fn skip_even_in_ci(reason: impl Display) {
    eprintln!("SKIPPED: {reason}");
}

/// Returns whether the calling test is to be skipped for want of root, which `what` needs, and says so; a user without
/// privileges may skip it also where `CI` is set.
#[must_use]
pub fn skip_unless_root(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip_even_in_ci(format_args!("{what} needs root"));
    }
    !is_root
}

/// Returns whether this process is root, which `what` needs; calls [`skip`] if it is not.
///
/// # Panics
///
/// If it is not root and `CI` is set.
#[track_caller]
#[must_use]
pub fn require_root(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip(format_args!("{what} needs root"));
    }
    is_root
}

/// Returns what `prepare` makes once for all tests of a process; `None`, after [`skip`], where it could not be made.
///
/// # Panics
///
/// If it could not be made and `CI` is set.
#[track_caller]
pub fn prepared<T>(
    once: &'static OnceLock<Result<T, String>>,
    prepare: impl FnOnce() -> Result<T, String>,
) -> Option<&'static T> {
    match once.get_or_init(prepare) {
        Ok(value) => Some(value),
        Err(reason) => {
            skip(reason);
            None
        }
    }
}

/// Returns whether `program` (a name to find in `PATH`, or a path) is installed; calls [`skip`] if it is not.
///
/// # Panics
///
/// If it is not installed and `CI` is set.
#[track_caller]
#[must_use]
pub fn require(program: impl AsRef<Path>) -> bool {
    let program = program.as_ref();
    let found = find(program).is_some();
    if !found {
        skip(format_args!("{} is not installed; run scripts/setup --test", program.display()));
    }
    found
}

fn find(program: &Path) -> Option<PathBuf> {
    let is_executable = |path: &Path| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if program.components().count() > 1 {
        return is_executable(program).then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| is_executable(path))
}

#[cfg(test)]
mod tests {
    use super::find;
    use std::path::Path;

    #[test]
    fn only_what_can_be_executed_is_installed() {
        assert!(find(Path::new("sh")).is_some_and(|path| path.is_absolute()));
        assert!(find(Path::new("/bin/sh")).is_some());
        assert_eq!(find(Path::new("no-such-program-anywhere")), None);
        assert_eq!(find(Path::new("/etc/passwd")), None);
        assert_eq!(find(Path::new("/bin")), None);
    }
}
