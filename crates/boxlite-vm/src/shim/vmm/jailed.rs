//! QEMU in its jail.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

use boxlite_jail::{JailSpec, Opening};
use boxlite_types::{Doing, Error, Result};

use super::program::{QemuCommand, QemuProcess};
use super::qemu;
use crate::exit::ChildEnder;
use crate::shim::accel::{Accelerator, KVM_DEVICE};
use crate::shim::child::ChildSpawner;
use crate::shim::jail::{self, BoxJail, Given};
use crate::shim::launch::LaunchSpec;

/// Starts `command` in the jail of the box, which holds the box's lock for it, and does `meanwhile` while that is built.
pub(super) fn start(
    spec: &LaunchSpec,
    jail: &BoxJail,
    command: QemuCommand<'_>,
    spawner: &ChildSpawner,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<QemuProcess> {
    let opening = |descriptor: RawFd, reads_only| Opening {
        path: qemu::name_of(descriptor),
        descriptor,
        reads_only,
        // Memory that the guest frees is dropped of its own copy, and stays in the template.
        feigns_holes: command.template == Some(descriptor),
    };
    let read = command.read.iter().map(|file| opening(file.as_raw_fd(), true));
    let mut openings: Vec<Opening> =
        read.chain(command.named.iter().map(|file| opening(file.as_raw_fd(), false))).collect();
    let kvm = open_kvm(spec.accel)?;
    openings
        .extend(kvm.iter().map(|kvm| Opening { path: KVM_DEVICE.into(), ..opening(kvm.as_raw_fd(), false) }));
    let given = Given {
        descriptors: command.descriptors.iter().map(AsRawFd::as_raw_fd).collect(),
        openings,
        fillings: command.filling.into_iter().collect(),
        file_size: command.file_size,
    };
    let order = JailSpec { arguments: command.arguments, ..jail.qemu(spec, given) };
    let mut jailed = jail::launch(order, spawner, meanwhile)?;
    let stderr = jailed.jailer.stderr.take().ok_or_else(|| Error::bug("QEMU's stderr is not a pipe"))?;
    let ender = ChildEnder::of_jail(&jailed.jailer).doing("watching the jail of", &spec.qemu)?;
    Ok(QemuProcess { child: jailed.jailer, ender, pid: jailed.pid, stderr })
}

/// KVM's device, which QEMU has no right to open by itself.
fn open_kvm(accel: Accelerator) -> Result<Option<File>> {
    match accel {
        Accelerator::Tcg { .. } => Ok(None),
        Accelerator::Kvm => {
            File::options().read(true).write(true).open(KVM_DEVICE).doing("opening", KVM_DEVICE).map(Some)
        }
    }
}
