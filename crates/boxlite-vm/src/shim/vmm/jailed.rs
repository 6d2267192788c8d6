//! QEMU in its jail.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::process::Command;

use boxlite_jail::Opening;
use boxlite_types::{Doing, Error, Result};

use super::program::{self, QemuCommand, QemuProcess};
use super::qemu;
use crate::shim::accel::Accelerator;
use crate::shim::child::ChildSpawner;
use crate::shim::jail::{self, BoxIdentity, Given};
use crate::shim::launch::{JailPolicy, LaunchSpec};

const KVM: &str = "/dev/kvm";

/// Starts `command` in the jail of the box, which holds the box's lock for it.
pub(super) fn start(
    spec: &LaunchSpec,
    policy: &JailPolicy,
    command: QemuCommand<'_>,
    spawner: &ChildSpawner,
) -> Result<QemuProcess> {
    let identity = BoxIdentity::take(policy, &spec.box_id)?;
    let named: Vec<RawFd> = command.named.iter().map(AsRawFd::as_raw_fd).collect();
    let mut openings: Vec<Opening> =
        named.into_iter().map(|descriptor| Opening { path: qemu::name_of(descriptor), descriptor }).collect();
    let kvm = open_kvm(spec.accel)?;
    openings.extend(kvm.iter().map(|kvm| Opening { path: KVM.into(), descriptor: kvm.as_raw_fd() }));
    let given = Given {
        descriptors: command.descriptors.iter().map(AsRawFd::as_raw_fd).collect(),
        openings,
        file_size: jail::file_size(command.overlay, spec.memory_bytes),
    };
    let mut order = jail::jail_of(spec, policy, identity.identity, given);
    order.arguments = command.arguments;
    order.guard = Some(spawner.lock().as_raw_fd());

    // Whatever has become of this program's file since it was started.
    let mut jailer = Command::new("/proc/self/exe");
    program::prepare(&mut jailer);
    let jailed = boxlite_jail::launch(jailer, &order, |jailer, keep| spawner.spawn(jailer, keep));
    let mut jailed = jailed.map_err(jail::unavailable)?;
    for missing in jailed.report.missing() {
        tracing::info!(%missing, "a measure of the jail is not in force");
    }
    let stderr = jailed.jailer.stderr.take().ok_or_else(|| Error::bug("QEMU's stderr is not a pipe"))?;
    Ok(QemuProcess {
        child: jailed.jailer,
        handle: jailed.handle,
        pid: jailed.pid,
        stderr,
        _identity: Some(identity),
    })
}

/// KVM's device, which QEMU has no right to open by itself.
fn open_kvm(accel: Accelerator) -> Result<Option<File>> {
    match accel {
        Accelerator::Tcg { .. } => Ok(None),
        Accelerator::Kvm => File::options().read(true).write(true).open(KVM).doing("opening", KVM).map(Some),
    }
}
