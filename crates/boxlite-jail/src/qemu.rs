//! The host's files that a QEMU needs.

use std::path::{Path, PathBuf};

use crate::error::JailResult as Result;
use crate::libraries::code_of;
use crate::spec::{Bound, View};

/// Modules that QEMU loads for a microvm where its distribution builds them apart from the program.
const MODULES: &[&str] = &["accel-tcg-x86_64.so", "accel-kvm-x86_64.so"];

/// Directories of firmware, as far as they exist.
const FIRMWARE: &[&str] = &["/usr/share/qemu", "/usr/share/seabios", "/usr/share/qemu-efi"];

/// Devices that a QEMU opens by name; `/dev/kvm` is handed over as a descriptor.
const DEVICES: &[&str] = &["/dev/null", "/dev/urandom"];

/// Returns the files that the QEMU at `program` sees: itself, its loader, libraries and modules, and its firmware.
///
/// Asks the loader, some milliseconds long: keep the answer for as long as QEMU and its libraries stay the same.
///
/// # Errors
/// As [`code_of`].
pub fn view_of(program: &Path) -> Result<View> {
    let without_modules = code_of(program, &[])?;
    let modules = modules_beside(&without_modules);
    let code = if modules.is_empty() { without_modules } else { code_of(program, &modules)? };
    let data =
        FIRMWARE.iter().filter(|path| Path::new(path).is_dir()).map(|path| Bound::same(*path)).collect();
    Ok(View { code, data, devices: DEVICES.iter().map(PathBuf::from).collect() })
}

/// Modules lie in a directory beside the libraries, which the loader may know by another name.
fn modules_beside(code: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in code.iter().filter_map(|path| path.parent()) {
        for place in
            [Path::new("/usr").join(directory.strip_prefix("/").unwrap_or(directory)), directory.into()]
        {
            let modules =
                MODULES.iter().map(|name| place.join("qemu").join(name)).filter(|path| path.is_file());
            found.extend(modules);
        }
    }
    found.sort();
    found.dedup();
    found
}
