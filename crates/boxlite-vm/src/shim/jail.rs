//! The jail of a box's QEMU: what the box's hardware needs, and nothing else.
//!
//! QEMU gets its disks, its channels and its devices' sockets as descriptors. It opens its kernel, its initramfs, a
//! template and `/dev/kvm` by name, and the jail answers with a file that the shim has open: read-only where the shim's
//! descriptor is, so no box can write to a template.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use boxlite_jail::{
    CgroupSpec, JailError, JailIdentity, JailReport, JailSpec, Limits, Measure, MeasureState, NetworkScope,
    Opening, Profile,
};
use boxlite_types::{Doing, Error, ErrorKind, Result};

use super::accel::Accelerator;
use super::child;
use super::launch::{JailPolicy, LaunchSpec};

/// Where running boxes of this host note their user ids: the byte with an id's number is locked while the id is in use.
const IDS_IN_USE: &str = "/run/boxlite-ids";

/// Descriptors of a QEMU, far more than its devices take.
const OPEN_FILES: u64 = 256;

/// Bytes that a file may have beyond a disk's or a memory's: tables of the disk, state of the devices.
const FILE_OVERHEAD: u64 = 64 << 20;

const LOCKED_MEMORY: u64 = 64 << 10;

/// What QEMU is started with.
pub(super) struct Given {
    /// Descriptors that it inherits.
    pub(super) descriptors: Vec<RawFd>,
    /// Files that it opens by name.
    pub(super) openings: Vec<Opening>,
    /// Bytes that its largest file may have.
    pub(super) file_size: u64,
}

/// The jail of the box of `spec`, without the program's arguments.
pub(super) fn jail_of(
    spec: &LaunchSpec,
    policy: &JailPolicy,
    identity: JailIdentity,
    given: Given,
) -> JailSpec {
    let memory = CgroupSpec::of_box(&spec.box_id, spec.memory_bytes, spec.cpus);
    let mut jail = JailSpec {
        descriptors: given.descriptors,
        openings: given.openings,
        cgroup: Some(memory),
        ..bare(policy, &spec.qemu, spec.accel, identity)
    };
    jail.limits.file_size = given.file_size;
    jail
}

/// The jail of a QEMU that is given nothing.
fn bare(policy: &JailPolicy, qemu: &Path, accel: Accelerator, identity: JailIdentity) -> JailSpec {
    JailSpec {
        program: qemu.to_owned(),
        arguments: Vec::new(),
        environment: vec![("LC_ALL".into(), "C".into())],
        descriptors: Vec::new(),
        openings: Vec::new(),
        view: policy.view.clone(),
        identity,
        limits: Limits { open_files: OPEN_FILES, file_size: FILE_OVERHEAD, locked_memory: LOCKED_MEMORY },
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

/// Bytes that the largest file of a QEMU may have, whose overlay is `overlay` and whose guest has `memory` bytes.
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

/// Whose QEMU it is: as root a user of this box alone, for as long as this lives.
#[derive(Debug)]
pub(super) struct BoxIdentity {
    pub(super) identity: JailIdentity,
    _in_use: Option<File>,
}

impl BoxIdentity {
    /// Takes an id that no other running box of this host has; an ordinary user keeps its own.
    ///
    /// # Errors
    /// `ResourceExhausted` when every id is in use; `Io` when that cannot be told.
    pub(super) fn take(policy: &JailPolicy, box_id: &str) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { identity: JailIdentity::Own, _in_use: None });
        }
        #[allow(clippy::disallowed_methods, reason = "it is empty and gone with the next boot of the host")]
        let in_use = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(IDS_IN_USE)
            .doing("opening the list of user ids in use", IDS_IN_USE)?;
        // Different boxes begin at different ids, so that one is hardly ever given to two boxes in a row.
        let begin = box_id.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        for index in 0..policy.ids {
            let index = (begin % policy.ids + index) % policy.ids;
            let identity = JailIdentity::of_box(true, policy.first_id, policy.ids, index);
            if let JailIdentity::Reserved(id) = identity
                && lock_byte(&in_use, id).doing("taking a user id in", IDS_IN_USE)?
            {
                return Ok(Self { identity, _in_use: Some(in_use) });
            }
        }
        Err(Error::new(
            ErrorKind::ResourceExhausted,
            format!(
                "all {} user ids for boxes (settings jail_first_id and jail_ids) are in use; stop a box or raise jail_ids",
                policy.ids
            ),
        ))
    }
}

/// Locks the byte `at` for this open file; false while another has it.
fn lock_byte(file: &File, at: u32) -> std::io::Result<bool> {
    let region = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: at.into(),
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open for the whole call, and the kernel only reads the structure.
    #[allow(unsafe_code)]
    let locked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, std::ptr::from_ref(&region)) };
    if locked == 0 {
        return Ok(true);
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Says that a jail could not be built, and what can be done.
pub(super) fn unavailable(error: JailError) -> Error {
    let message =
        format!("QEMU cannot be jailed: {error}; the setting jail = off starts boxes without a jail");
    Error::unsupported(message).because(error)
}

/// Jails a QEMU that ends at once, by the shim program at `shim`, and returns which measures were in force.
///
/// Blocks for some tens of milliseconds.
///
/// # Errors
/// `Unsupported` when no jail can be built here, with the reason.
pub fn examine(shim: &Path, qemu: &Path, policy: &JailPolicy, accel: Accelerator) -> Result<JailReport> {
    let name = format!("probe-{}", std::process::id());
    let identity = BoxIdentity::take(policy, &name)?;
    let guard = rustix::fs::memfd_create("boxlite-guard", rustix::fs::MemfdFlags::CLOEXEC)
        .doing("creating", "a memory file")?;
    let jail = JailSpec {
        arguments: vec!["--version".into()],
        cgroup: Some(CgroupSpec::of_box(&name, 256 << 20, 1)),
        guard: Some(guard.as_raw_fd()),
        ..bare(policy, qemu, accel, identity.identity)
    };
    let mut jailer = Command::new(shim);
    jailer.env_clear().current_dir("/");
    jailer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let jailed = boxlite_jail::launch(jailer, &jail, |mut command, keep| {
        child::inherit_only(&mut command, keep);
        command.spawn()
    });
    let mut jailed = jailed.map_err(unavailable)?;
    let status = jailed.jailer.wait().doing("waiting for the jailed", qemu)?;
    if !status.success() {
        return Err(Error::unsupported(format!("a jailed QEMU did not run ({status})")).at(qemu));
    }
    let mut report = jailed.report;
    let mut say = |name: &str, state| report.measures.push(Measure { name: name.into(), state });
    say(
        "network of a box that has one",
        MeasureState::Missing(
            "its user-mode stack is a process without files, capabilities or the box, but not jailed".into(),
        ),
    );
    say(
        "templates",
        MeasureState::InForce("read-only: a box maps one through a descriptor that cannot write".into()),
    );
    Ok(report)
}

#[cfg(test)]
mod tests;
