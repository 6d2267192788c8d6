//! `qemu-img`: QEMU's own account of what a disk stands on.

use std::path::{Path, PathBuf};
use std::process::Command;

use boxlite_types::{Error, Result};

/// The file that a disk stands on, as `qemu-img` understands the disk's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbedBacking {
    /// Where the header says that it is; a relative name starts at the disk's directory.
    pub path: PathBuf,
    /// Its format, as the header says it.
    pub format: Option<String>,
}

/// Reads the header of the local file `disk`, whose format is `format` where that is known; opens no other file.
///
/// # Errors
/// `Unsupported` when `qemu-img` is not installed, `Corrupt` when it cannot make sense of the file.
pub fn backing(disk: &Path, format: Option<&str>) -> Result<Option<ProbedBacking>> {
    let mut command = Command::new("qemu-img");
    command.args(["info", "-U", "--output=json"]);
    if let Some(format) = format {
        command.args(["-f", format]);
    }
    let output = match command.arg("--").arg(disk).output() {
        Ok(output) => output,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            let message = "verifying needs `qemu-img`, which is not installed; install qemu-utils";
            return Err(Error::unsupported(message).because(source));
        }
        Err(source) => return Err(Error::io("running", "qemu-img", source)),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::corrupt(format!("qemu-img cannot read it: {}", said.trim())).at(disk));
    }
    let info: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|bad| Error::corrupt(format!("qemu-img's answer cannot be read: {bad}")).at(disk))?;
    let said = |key: &str| info.get(key).and_then(serde_json::Value::as_str);
    let Some(name) = said("full-backing-filename").or_else(|| said("backing-filename")) else {
        return Ok(None);
    };
    let path = disk.parent().unwrap_or(Path::new("/")).join(name.strip_prefix("file:").unwrap_or(name));
    Ok(Some(ProbedBacking { path, format: said("backing-filename-format").map(ToOwned::to_owned) }))
}
