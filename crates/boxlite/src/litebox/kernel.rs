//! The kernel of a box's guest: boxlite's own, or one of the user's.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use boxlite_home::BoxPaths;
use boxlite_types::{BoxRecord, Doing, Error, ErrorKind, Result};
use boxlite_vm::shim::UserKernel;

use crate::context::LocalContext;

/// The end of a guest's console that the error of a failed start shows, in bytes and in lines.
const CONSOLE_BYTES: u64 = 4096;
const CONSOLE_LINES: usize = 8;

/// The absolute path of the kernel that a user names, which is there.
///
/// # Errors
/// `NotFound`; `InvalidInput` for a directory without a kernel.
pub(crate) fn resolve_kernel(named: Option<&Path>) -> Result<Option<PathBuf>> {
    let Some(named) = named else { return Ok(None) };
    let path = match std::fs::canonicalize(named) {
        Ok(path) => path,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::not_found(format!("there is no kernel {}", named.display())).at(named));
        }
        Err(error) => return Err(Error::io("examining the kernel", named, error)),
    };
    let found = std::fs::metadata(&path).doing("examining the kernel", &path)?;
    if found.is_file() || (path.join("vmlinuz").is_file() && path.join("modules").is_dir()) {
        return Ok(Some(path));
    }
    let message = format!(
        "{} is neither a kernel nor a directory with vmlinuz and the modules/ of that kernel",
        path.display()
    );
    Err(Error::invalid(message).at(path))
}

/// The user's kernel for the box, by its options or else by the settings.
pub(super) fn chosen<'a>(context: &'a LocalContext, record: &'a BoxRecord) -> Option<&'a Path> {
    record.options.kernel.as_deref().or(context.settings.kernel.value.0.as_deref())
}

/// Notes that a guest of this kernel came up.
pub(crate) fn accept(kernel: &UserKernel) {
    kernel.note(None);
}

/// Notes why the guest of this kernel did not come up, and returns the error with the end of its console.
pub(crate) fn reject(kernel: &UserKernel, paths: &BoxPaths, error: &Error) -> Error {
    let console = match console_end(&paths.console_log()) {
        Ok(end) if !end.is_empty() => format!("its console ends with: {end}"),
        Ok(_) => "its console shows nothing".to_owned(),
        Err(error) => format!("its console cannot be read: {error}"),
    };
    kernel.note(Some(error.chain().to_string()));
    let message = format!(
        "the kernel {} brings no guest up: {}; it needs the drivers of virtio-mmio devices found by ACPI, of the virtio \
         console and disk, and ext4, built in or as modules beside it; {console}",
        kernel.path().display(),
        error.chain()
    );
    Error::new(ErrorKind::Unsupported, message).at(kernel.path())
}

/// The last lines of the console's log in one, up to a panic if there was one, without what a terminal would obey.
fn console_end(path: &Path) -> std::io::Result<String> {
    let mut log = File::open(path)?;
    let length = log.metadata()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_BYTES)))?;
    let mut end = Vec::new();
    log.take(CONSOLE_BYTES).read_to_end(&mut end)?;
    let text: String =
        String::from_utf8_lossy(&end).chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    // The lines after a panic tell where the kernel was.
    if let Some(panic) = lines.iter().rposition(|line| line.contains("Kernel panic")) {
        lines.truncate(panic + 1);
    }
    lines.drain(..lines.len().saturating_sub(CONSOLE_LINES));
    Ok(lines.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_a_file_or_a_directory_with_its_modules() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        std::fs::create_dir_all(at("k/modules")).unwrap();
        let kind = |path: &Path| resolve_kernel(Some(path)).unwrap_err().kind();
        assert_eq!(resolve_kernel(None).unwrap(), None);
        assert_eq!(kind(&at("k")), ErrorKind::InvalidInput);
        assert_eq!(kind(&at("nothing")), ErrorKind::NotFound);
        std::fs::write(at("k/vmlinuz"), "x").unwrap();
        assert_eq!(resolve_kernel(Some(&at("k"))).unwrap(), Some(at("k").canonicalize().unwrap()));
        assert!(resolve_kernel(Some(&at("k/vmlinuz"))).unwrap().is_some());
    }

    #[test]
    fn the_end_of_a_console_is_its_last_lines_without_controls() {
        let scratch = tempfile::NamedTempFile::new().unwrap();
        let lines: Vec<String> = (0..500).map(|line| format!("\x1b[1mline {line}\r\n\r\n")).collect();
        std::fs::write(scratch.path(), lines.concat()).unwrap();
        let end = console_end(scratch.path()).unwrap();
        assert!(end.starts_with("[1mline 492 | ") && end.ends_with("[1mline 499"), "{end}");
        std::fs::write(scratch.path(), "one\nKernel panic - not syncing\nCall Trace:\n").unwrap();
        assert_eq!(console_end(scratch.path()).unwrap(), "one | Kernel panic - not syncing");
    }
}
