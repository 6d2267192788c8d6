//! A template's name: a digest of everything that went into it.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use boxlite_types::{Doing, Result};
use sha2::{Digest, Sha256};

use super::PREFIX;
use crate::shim::accel::{self, Accelerator};
use crate::shim::launch::{GuestOrigin, LaunchSpec};
use crate::shim::vmm::qemu::{self, Channels, Memory, QemuFiles};

/// Raised when templates made of the same input change.
const FORMAT: u32 = 3;

/// The file name of the template that fits the hardware of `spec`, on this host until it reboots.
pub(super) fn of(spec: &LaunchSpec) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(FORMAT.to_le_bytes());
    hash.update(accel::identity(&spec.qemu)?);
    // A module that was replaced makes another initramfs of the same name.
    for file in [&spec.kernel, &spec.initrd] {
        let found = std::fs::metadata(file).doing("examining the boot file", file)?;
        for number in [found.dev(), found.ino(), found.len(), found.mtime().cast_unsigned()] {
            hash.update(number.to_le_bytes());
        }
    }
    // A module that was loaded again, with other parameters perhaps, makes another device.
    if spec.accel == Accelerator::Kvm
        && let Ok(found) = std::fs::metadata(accel::KVM_DEVICE)
    {
        hash.update(found.ino().to_le_bytes());
    }
    let files = QemuFiles {
        modules: spec.modules.as_ref().map(|_| 0),
        volumes: vec![0; spec.disks.len()],
        ..QemuFiles::NONE
    };
    for argument in qemu::arguments(&hardware(spec), Channels::NONE, &files, &[], Memory::Own) {
        hash.update(argument.as_bytes());
        hash.update([0]);
    }
    Ok(format!("{PREFIX}-{}-{}", devices(spec), hex::encode(&hash.finalize()[..12])))
}

/// The devices of `spec` besides those of every box, for people who look into the directory.
fn devices(spec: &LaunchSpec) -> String {
    let network = if spec.network.is_some() { "n" } else { "" };
    let disks = match spec.disks.len() {
        0 => String::new(),
        count => format!("d{count}"),
    };
    let shares = if spec.shares.volumes.is_empty() { "" } else { "s" };
    format!("b{network}{disks}{shares}")
}

/// `spec` without what differs between boxes of the same hardware.
fn hardware(spec: &LaunchSpec) -> LaunchSpec {
    LaunchSpec {
        box_id: String::new(),
        overlay: PathBuf::new(),
        bases: Vec::new(),
        backing: None,
        discard: false,
        // Not one that boots, which has its shares from the start.
        origin: GuestOrigin::Template(PathBuf::new()),
        ..spec.clone()
    }
}
