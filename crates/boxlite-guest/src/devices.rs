//! Keeps the drivers of disk, network card and shares away from their devices until the host sends `Boot`.
//!
//! The drivers are loaded before the agent greets the host, and bound after `Boot`. So the memory of a guest that waits
//! for `Boot` holds nothing of its box, and may serve other boxes as a template.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use boxlite_proto::MODULES_SLOT;

/// Whether the kernel binds drivers to virtio devices by itself.
const AUTOPROBE: &str = "/sys/bus/virtio/drivers_autoprobe";

/// Binds the device whose name is written to it.
const PROBE: &str = "/sys/bus/virtio/drivers_probe";

/// Takes the device whose name is written to it away from the driver of disks.
const UNBIND: &str = "/sys/bus/virtio/drivers/virtio_blk/unbind";

/// Has the kernel look for PCI devices that it does not know yet.
const RESCAN: &str = "/sys/bus/pci/rescan";

const DEVICES: &str = "/sys/bus/virtio/devices";

/// Names the timer of the first processor; empty where there is none.
const TIMER: &str = "/sys/devices/system/clockevents/clockevent0/current_device";

/// Stops the kernel from binding drivers that are loaded from now on. A kernel that refuses binds them at once.
pub(crate) fn hold_back() {
    let _ = fs::write(AUTOPROBE, "0");
}

/// Whether no driver has been bound to the disk.
pub(crate) fn are_untouched() -> bool {
    !Path::new("/sys/class/block/vda").exists()
}

/// Whether the kernel has a timer. It goes on without one when the calibration of its only one failed, on a very busy host,
/// and then nothing that waits for a time ever wakes.
pub(crate) fn has_timer() -> bool {
    fs::read_to_string(TIMER).is_ok_and(|name| !name.trim().is_empty())
}

/// The device of the disk with the kernel's modules: the one in the slot that no other device is put in.
fn modules_device() -> io::Result<OsString> {
    let slot = MODULES_SLOT.to_string();
    for device in fs::read_dir(DEVICES)?.flatten() {
        let uid = fs::read_to_string(device.path().join("../firmware_node/uid"));
        if uid.is_ok_and(|uid| uid.trim_end() == slot) {
            return Ok(device.file_name());
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "their disk is not there"))
}

/// Binds the disk with the kernel's modules, unless it is, and returns its device file.
pub(crate) fn modules_disk() -> io::Result<PathBuf> {
    let device = modules_device()?;
    let disks = Path::new(DEVICES).join(&device).join("block");
    if !disks.exists() {
        fs::write(PROBE, device.as_encoded_bytes())?;
    }
    let disk = fs::read_dir(disks)?.flatten().next();
    let disk = disk.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "their disk has no device"))?;
    Ok(Path::new("/dev").join(disk.file_name()))
}

/// Has the driver let go of the disk with the kernel's modules, so that another disk gets its name.
pub(crate) fn release_modules_disk() {
    if let Ok(device) = modules_device() {
        let _ = fs::write(UNBIND, device.as_encoded_bytes());
    }
}

/// Finds the shares that were plugged in while the guest waited: nothing has announced them. A guest without a PCI bus has had its
/// shares from the start.
pub(crate) fn find_shares() {
    let _ = fs::write(RESCAN, "1");
}

/// Binds every device to its driver, and lets the kernel bind later ones by itself. A disk with the kernel's modules, where the box
/// has one, is left for [`modules_disk`]: most boxes need none of them, and its driver would look for partitions.
pub(crate) fn bind(has_modules: bool) -> Result<(), String> {
    let describe = |doing: &str, error: std::io::Error| format!("{doing} the virtio devices failed: {error}");
    let modules = has_modules.then(modules_device).and_then(Result::ok);
    for device in fs::read_dir(DEVICES).map_err(|e| describe("listing", e))?.flatten() {
        let name = device.file_name();
        if modules.as_ref() == Some(&name) {
            continue;
        }
        fs::write(PROBE, name.as_encoded_bytes()).map_err(|e| describe("binding", e))?;
    }
    fs::write(AUTOPROBE, "1").map_err(|e| describe("releasing", e))
}
