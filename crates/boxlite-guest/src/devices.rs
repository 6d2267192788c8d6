//! Keeps the drivers of disk, network card and shares away from their devices until the host sends `Boot`.
//!
//! The drivers are loaded before the agent greets the host, and bound after `Boot`. So the memory of a guest that waits
//! for `Boot` holds nothing of its box, and may serve other boxes as a template.

use std::fs;
use std::path::Path;

/// Whether the kernel binds drivers to virtio devices by itself.
const AUTOPROBE: &str = "/sys/bus/virtio/drivers_autoprobe";

/// Binds the device whose name is written to it.
const PROBE: &str = "/sys/bus/virtio/drivers_probe";

const DEVICES: &str = "/sys/bus/virtio/devices";

/// Stops the kernel from binding drivers that are loaded from now on. A kernel that refuses binds them at once.
pub(crate) fn hold_back() {
    let _ = fs::write(AUTOPROBE, "0");
}

/// Whether no driver has been bound to the disk.
pub(crate) fn are_untouched() -> bool {
    !Path::new("/sys/class/block/vda").exists()
}

/// Binds every device to its driver, and lets the kernel bind later ones by itself.
pub(crate) fn bind() -> Result<(), String> {
    let describe = |doing: &str, error: std::io::Error| format!("{doing} the virtio devices failed: {error}");
    for device in fs::read_dir(DEVICES).map_err(|e| describe("listing", e))?.flatten() {
        let name = device.file_name();
        fs::write(PROBE, name.as_encoded_bytes()).map_err(|e| describe("binding", e))?;
    }
    fs::write(AUTOPROBE, "1").map_err(|e| describe("releasing", e))
}
