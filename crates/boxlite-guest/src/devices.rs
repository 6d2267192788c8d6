//! Disk, network card and shares: their drivers are loaded before the host is greeted, and bound to their devices when it
//! says how to come up.
//!
//! So a guest that waits for that has touched nothing of its box, and its memory can serve other boxes as a template.

use std::fs;
use std::path::Path;

/// Whether drivers and virtio devices find each other by themselves.
const AUTOPROBE: &str = "/sys/bus/virtio/drivers_autoprobe";

/// Takes the name of a device that is to find its driver.
const PROBE: &str = "/sys/bus/virtio/drivers_probe";

const DEVICES: &str = "/sys/bus/virtio/devices";

/// Leaves devices alone whose drivers are loaded from now on. A kernel that refuses binds them at once.
pub(crate) fn hold_back() {
    let _ = fs::write(AUTOPROBE, "0");
}

/// Whether the disk is still without a driver.
pub(crate) fn are_untouched() -> bool {
    !Path::new("/sys/class/block/vda").exists()
}

/// Binds every device to its driver, now and from now on.
pub(crate) fn bind() -> Result<(), String> {
    let describe = |doing: &str, error: std::io::Error| format!("{doing} the virtio devices failed: {error}");
    for device in fs::read_dir(DEVICES).map_err(|e| describe("listing", e))?.flatten() {
        let name = device.file_name();
        fs::write(PROBE, name.as_encoded_bytes()).map_err(|e| describe("binding", e))?;
    }
    fs::write(AUTOPROBE, "1").map_err(|e| describe("letting go of", e))
}
