//! Whether a test can run on this machine.
//!
//! A test that cannot run says so on standard error, in a line that starts with `SKIPPED`, and returns. Where `CI` is set,
//! the machine is expected to have everything, and the same test fails instead.

use std::fmt::Display;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Says that the calling test is skipped, and why.
///
/// # Panics
///
/// Where `CI` is set.
#[track_caller]
pub fn skip(reason: impl Display) {
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    eprintln!("SKIPPED: {reason}");
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
