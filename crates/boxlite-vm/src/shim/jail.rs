//! The jails of a box: what its hardware and its network need, and nothing else.
//!
//! QEMU gets its disks, its channels and its devices' sockets as descriptors. It opens its kernel, its initramfs, a
//! template and `/dev/kvm` by name, and the jail answers with a file that the shim has open: read-only where the shim's
//! descriptor is, so no box can write to a template. A guest with shares, whose memory other processes map, gets a copy of the
//! template, which is made by the process that becomes QEMU.
//!
//! The user-mode network is a jail of its own, with the same user and control group. It has the host's network and no file
//! but the one that names the host's DNS servers; QEMU has files and an empty network.

mod examine;
mod identity;

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use boxlite_jail::{
    Bound, CgroupSpec, Filling, JailError, JailIdentity, JailReport, JailSpec, Jailed, JailerAnswer,
    Launching, Limits, NetworkScope, Opening, Profile, View,
};
use boxlite_types::{Error, Result};

use super::accel::Accelerator;
use super::child::ChildSpawner;
use super::launch::{JailPolicy, LaunchSpec};
use crate::exit::ChildEnder;
use crate::net::{Network, StackCommand};

pub use examine::examine;
use identity::BoxIdentity;

/// Descriptors of a QEMU, far more than its devices take.
const OPEN_FILES: u64 = 256;

/// Bytes that a file may have beyond a disk's or a memory's: tables of the disk, state of the devices.
const FILE_OVERHEAD: u64 = 64 << 20;

const LOCKED_MEMORY: u64 = 64 << 10;

/// Descriptors of a user-mode network without connections: stdio, its wire, QEMU's event loop.
const STACK_OPEN_FILES: u64 = 64;

/// Bytes of memory of a user-mode network without connections.
const STACK_MEMORY: u64 = 32 << 20;

/// Bytes of address space of a user-mode network without connections, of which it uses a tenth.
const STACK_ADDRESS_SPACE: u64 = 1 << 30;

/// Bytes for each connection: slirp's buffers take half of them.
const CONNECTION_MEMORY: u64 = 1 << 20;

/// Names the host's DNS servers, to which the user-mode network passes on what the guest asks.
const RESOLVERS: &str = "/etc/resolv.conf";

/// The environment of a QEMU with a machine, in any jail.
///
/// All of its threads share one arena for what they allocate. The arena of a further thread grows by a page at a time, with a
/// call for each: 840 of them while a translated guest comes up.
pub(super) const QEMU_ENVIRONMENT: &[(&str, &str)] = &[("LC_ALL", "C"), ("MALLOC_ARENA_MAX", "1")];

/// The common parts of the jails of one run of a box.
#[derive(Debug)]
pub(crate) struct BoxJail {
    policy: JailPolicy,
    identity: BoxIdentity,
    /// `None` for a box that stays in its starter's.
    cgroup: Option<CgroupSpec>,
}

/// The descriptors and files that QEMU is started with.
pub(super) struct Given {
    /// Descriptors that it inherits.
    pub(super) descriptors: Vec<RawFd>,
    /// Files that it opens by name.
    pub(super) openings: Vec<Opening>,
    /// Files that are filled before it starts.
    pub(super) fillings: Vec<Filling>,
    /// Bytes that its largest file may have.
    pub(super) file_size: u64,
}

impl BoxJail {
    /// Prepares the jails of the box of `spec`, if it is to have any.
    ///
    /// # Errors
    /// As [`BoxIdentity::take`].
    pub(super) fn prepare(spec: &LaunchSpec) -> Result<Option<Self>> {
        let Some(policy) = spec.jail.clone() else { return Ok(None) };
        let identity = BoxIdentity::take(&policy, &spec.box_id)?;
        Ok(Some(Self { policy, identity, cgroup: (!spec.stays_in_group).then(|| cgroup_of(spec)) }))
    }

    /// Whose processes the box's are.
    pub(super) fn identity(&self) -> JailIdentity {
        self.identity.identity
    }

    /// The descriptor by which its user id is in use.
    pub(super) fn in_use(&self) -> Option<&File> {
        self.identity.in_use.as_ref()
    }

    /// The jail of the box's QEMU, without the program's arguments.
    pub(super) fn qemu(&self, spec: &LaunchSpec, given: Given) -> JailSpec {
        let variable = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).into());
        let mut jail = JailSpec {
            environment: QEMU_ENVIRONMENT.iter().map(variable).collect(),
            descriptors: given.descriptors,
            openings: given.openings,
            fillings: given.fillings,
            cgroup: self.cgroup.clone(),
            ..qemu_jail(&self.policy, &spec.qemu, spec.accel, self.identity.identity)
        };
        jail.limits.file_size = given.file_size;
        jail
    }

    /// The files that its QEMU is loaded from.
    pub(super) fn code(&self) -> &[PathBuf] {
        &self.policy.view.code
    }

    /// The jail of the box's user-mode network, which is `command`.
    pub(super) fn network(&self, network: &Network, command: StackCommand) -> JailSpec {
        JailSpec {
            arguments: command.arguments,
            descriptors: vec![command.wire],
            // An ordinary user has no privilege to keep.
            low_ports: command.low_ports && matches!(self.identity.identity, JailIdentity::Reserved(_)),
            cgroup: self.cgroup.clone(),
            ..stack_jail(&self.policy, (&command.program, &command.code), network, self.identity.identity)
        }
    }
}

/// Returns the bounds of all processes of the box of `spec` together.
fn cgroup_of(spec: &LaunchSpec) -> CgroupSpec {
    let mut group = CgroupSpec {
        cpu_percent: spec.cpu_percent,
        ..CgroupSpec::of_box(spec.group(), spec.memory_bytes, spec.cpus)
    };
    if let Some(network) = &spec.network {
        group.memory_max += STACK_MEMORY + u64::from(network.max_connections) * CONNECTION_MEMORY / 2;
    }
    group
}

/// The jail of a QEMU that is given nothing.
fn qemu_jail(policy: &JailPolicy, qemu: &Path, accel: Accelerator, identity: JailIdentity) -> JailSpec {
    JailSpec {
        program: qemu.to_owned(),
        arguments: Vec::new(),
        environment: vec![("LC_ALL".into(), "C".into())],
        descriptors: Vec::new(),
        openings: Vec::new(),
        fillings: Vec::new(),
        view: policy.view.clone(),
        identity,
        limits: Limits {
            open_files: OPEN_FILES,
            file_size: FILE_OVERHEAD,
            locked_memory: LOCKED_MEMORY,
            address_space: None,
        },
        profile: match accel {
            Accelerator::Kvm => Profile::Kvm,
            Accelerator::Tcg { .. } => Profile::Tcg,
        },
        network: NetworkScope::None,
        low_ports: false,
        cgroup: None,
        guard: None,
    }
}

/// Whether a box's control group bounds its processor time on this host.
///
/// # Errors
/// Why it does not, in words for people.
pub fn bounds_processors() -> std::result::Result<(), String> {
    boxlite_jail::bounds_processors()
}

/// The jail of a user-mode network that is given nothing: a program and the files that it takes besides those of QEMU.
///
/// Each connection takes a descriptor, so that the kernel holds a guest to its bound that deceives the shim's count.
fn stack_jail(
    policy: &JailPolicy,
    (program, code): (&Path, &[PathBuf]),
    network: &Network,
    identity: JailIdentity,
) -> JailSpec {
    let connections = u64::from(network.max_connections);
    let resolvers = Some(RESOLVERS).filter(|path| Path::new(path).is_file());
    let mut view = View { data: resolvers.into_iter().map(Bound::same).collect(), ..policy.view.clone() };
    view.code.extend_from_slice(code);
    view.code.sort();
    view.code.dedup();
    JailSpec {
        program: program.to_owned(),
        view,
        limits: Limits {
            open_files: STACK_OPEN_FILES + network.ports.len() as u64 + connections,
            file_size: 0,
            locked_memory: 0,
            address_space: Some(STACK_ADDRESS_SPACE + connections * CONNECTION_MEMORY),
        },
        profile: Profile::Stack,
        network: NetworkScope::Host,
        ..qemu_jail(policy, program, Accelerator::Tcg { tsc_khz: 0 }, identity)
    }
}

/// Bytes that the largest file of a QEMU with a disk may have, whose overlay is `overlay` and whose guest has `memory` bytes.
pub(super) fn file_size(overlay: &File, memory: u64) -> u64 {
    let disk = virtual_size(overlay).unwrap_or(0);
    // A qcow2 file's tables take a thousandth of its contents.
    let disk = disk.saturating_add(disk / 64);
    // A file that is larger already, because of what once leaked in it, can be written to all the same.
    let present = overlay.metadata().map_or(0, |found| found.len());
    disk.max(memory).max(present).saturating_add(FILE_OVERHEAD)
}

/// The size that a qcow2 file's header gives its disk.
fn virtual_size(overlay: &File) -> Option<u64> {
    const SIZE_AT: u64 = 24;
    let mut size = [0; 8];
    overlay.read_exact_at(&mut size, SIZE_AT).ok()?;
    Some(u64::from_be_bytes(size))
}

/// Starts the program of `jail`, which holds the box's lock for it; what the program complains of comes through a pipe. Does
/// `meanwhile` while the jail is built.
///
/// # Errors
/// `Unsupported` when the jail cannot be built.
pub(super) fn launch(
    jail: JailSpec,
    spawner: &ChildSpawner,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<Jailed> {
    let profile = jail.profile;
    let launching = begin(jail, spawner)?;
    let done = meanwhile();
    let jailed = launching.finish().map_err(unavailable)?;
    if let Err(error) = done {
        let Jailed { mut jailer, .. } = jailed;
        // Its program has the disks, and ends before it does.
        let _ = ChildEnder::of_jail(&jailer).and_then(|ender| ender.end()).and_then(|()| jailer.wait());
        return Err(error);
    }
    tell_missing(profile, &jailed.report);
    Ok(jailed)
}

/// Begins to do as [`launch`]: the box's other jail is built meanwhile.
///
/// # Errors
/// `Unsupported` when the jailer cannot be started.
pub(super) fn begin(mut jail: JailSpec, spawner: &ChildSpawner) -> Result<Launching> {
    jail.guard = Some(spawner.lock().as_raw_fd());
    // For its standard streams: the shim has one thread up to the end of its start, so the jailer is a copy of it.
    let mut jailer = Command::new("/proc/self/exe");
    prepare(&mut jailer);
    let begun = boxlite_jail::begin_by_copy(jailer, &jail, |jailer, keep, last| {
        spawner.spawn_copy(jailer, keep, last)
    });
    begun.map_err(unavailable)
}

/// Waits until the program of a jail with this profile runs.
///
/// # Errors
/// As [`launch`].
pub(super) fn finish(answer: JailerAnswer, profile: Profile) -> Result<()> {
    let started = answer.wait().map_err(unavailable)?;
    tell_missing(profile, &started.report);
    Ok(())
}

fn tell_missing(profile: Profile, report: &JailReport) {
    for missing in report.missing() {
        tracing::info!(program = %profile, %missing, "a measure of the jail is not in force");
    }
}

/// Leaves `command` an empty environment, and of its standard streams the one for complaints.
pub(super) fn prepare(command: &mut Command) {
    command.env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
}

/// Says that a jail could not be built, and what can be done.
fn unavailable(error: JailError) -> Error {
    let message =
        format!("QEMU cannot be jailed: {error}; the setting jail = off starts boxes without a jail");
    Error::unsupported(message).because(error)
}

#[cfg(test)]
mod tests;
