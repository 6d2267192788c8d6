//! Everything that a process gives up about itself, in the order in which it can.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::BpfProgram;

use crate::error::{JailDoing, JailError, JailResult as Result};
use crate::report::JailReport;
use crate::spec::{JailIdentity, JailSpec, Limits, NetworkScope};

/// The newest Landlock whose rights are used.
const LANDLOCK: ABI = ABI::V6;

/// The part of root's privilege that a process keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeptPrivilege {
    /// None.
    Nothing,
    /// None, but the capability to bind ports below 1024.
    LowPorts,
    /// Root's as its effective one, without any capability: the stage, outside of the jail, ends the jail's processes and
    /// reads what they open by the reserved id, and removes their control group as its owner.
    Root,
}

/// Becomes `identity`, gives up every capability for good and hides this process's memory from its like.
pub(crate) fn become_nobody(identity: JailIdentity, keep: KeptPrivilege) -> Result<()> {
    let kept = if keep == KeptPrivilege::LowPorts {
        CapabilitySet::NET_BIND_SERVICE
    } else {
        CapabilitySet::empty()
    };
    bound_capabilities(kept)?;
    if let JailIdentity::Reserved(id) = identity {
        rustix::thread::set_keep_capabilities(!kept.is_empty()).doing("giving up capabilities")?;
        change_ids(id, keep).doing(format_args!("becoming user {id}"))?;
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    rustix::thread::set_capabilities(None, sets).doing("giving up capabilities")?;
    if !kept.is_empty() {
        rustix::thread::configure_capability_in_ambient_set(kept, true).doing("keeping a capability")?;
    }
    rustix::thread::set_no_new_privs(true).doing("giving up new privileges")?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).doing("hiding memory")
}

/// Keeps `kept` and gives up every other capability for good, as the user that this process is.
pub(crate) fn keep_capabilities(kept: CapabilitySet) -> Result<()> {
    // An ordinary user has none, and may not touch the bounding set.
    if rustix::process::geteuid().is_root() {
        bound_capabilities(kept)?;
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).doing("giving up capabilities")
}

/// Empties bounding set and ambient set but for `kept`, while there is a capability to change them with.
fn bound_capabilities(kept: CapabilitySet) -> Result<()> {
    for number in 0..64 {
        let Some(capability) = CapabilitySet::from_bits(1 << number) else { continue };
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel has none with such a number, nor with a higher one.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error).doing("giving up capabilities"),
        }
    }
    rustix::thread::clear_ambient_capability_set().doing("giving up ambient capabilities")
}

fn change_ids(id: u32, keep: KeptPrivilege) -> rustix::io::Result<()> {
    use rustix::process::{Gid, Uid};
    rustix::thread::set_thread_groups(&[])?;
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    let other = if keep == KeptPrivilege::Root { Uid::ROOT } else { uid };
    rustix::thread::set_thread_res_uid(uid, other, other)
}

/// Says what the program of `spec` will have given up.
pub(super) fn report(spec: &JailSpec, report: &mut JailReport) {
    report_identity(spec.identity, report);
    if spec.low_ports {
        report.missing_because(
            "capabilities",
            "the box publishes a port below 1024, which the program binds: it keeps the capability to do that, and no other",
        );
    } else {
        report.in_force("capabilities", "none");
    }
    report.in_force("no_new_privs", "set");
    match landlock_version() {
        Ok(version) => report.in_force("Landlock", format!("version {version}")),
        Err(error) => {
            report.missing_because(
                "Landlock",
                format!("this kernel does not have it, or has it switched off: {error}"),
            );
        }
    }
    report.in_force("system calls", format!("an allow-list for {}", spec.profile));
    let Limits { open_files, file_size, locked_memory, address_space } = spec.limits;
    let files = match file_size {
        0 => "no byte written to a file".to_owned(),
        size => format!("files up to {} MiB", size >> 20),
    };
    let address_space =
        address_space.map_or_else(String::new, |bytes| format!(", {} MiB of address space", bytes >> 20));
    let limits = format!(
        "{open_files} descriptors, {files}, {} KiB of locked memory, no core dumps{address_space}",
        locked_memory >> 10
    );
    report.in_force("limits", limits);
    let given = spec.descriptors.len() + spec.openings.len();
    report.in_force("descriptors", format!("{given} that it was given, and its stdio"));
    if spec.guard.is_some() {
        report.in_force("lock", "held by the jail, out of the program's reach");
    }
}

/// Says whose process one with `identity` is.
pub(crate) fn report_identity(identity: JailIdentity, report: &mut JailReport) {
    match identity {
        JailIdentity::Reserved(id) => {
            report.in_force("user", format!("{id}, of this box alone"));
            report.in_force("groups", "none");
        }
        JailIdentity::Own => {
            report.missing_because("user", "an ordinary user has no other user id to give to a box");
            if rustix::process::getgroups().is_ok_and(|groups| groups.is_empty()) {
                report.in_force("groups", "none");
            } else {
                report.missing_because("groups", "an ordinary user can't give up supplementary groups");
            }
        }
    }
}

/// A copy of the descriptor `program` under a number that no process of the jail can make again, or the next free one.
pub(super) fn gate(program: &OwnedFd, number: RawFd) -> Result<OwnedFd> {
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    let room = Some(number as u64 + 8);
    if most.is_some_and(|most| Some(most) < room) {
        return Err(JailError::new(format!(
            "the limit of open files is {}, and the jail needs {}",
            most.unwrap_or_default(),
            number + 8
        )));
    }
    setrlimit(Resource::Nofile, Rlimit { current: room, maximum: most })
        .doing("making room for a descriptor")?;
    rustix::io::fcntl_dupfd_cloexec(program, number).doing("copying a descriptor")
}

/// Puts `limits` on this process.
pub(super) fn limit(limits: &Limits) -> Result<()> {
    let fixed = [
        (Resource::Core, 0),
        (Resource::Nofile, limits.open_files),
        (Resource::Fsize, limits.file_size),
        (Resource::Memlock, limits.locked_memory),
        (Resource::Msgqueue, 0),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
    ];
    let address_space = limits.address_space.map(|bytes| (Resource::As, bytes));
    for (resource, most) in fixed.into_iter().chain(address_space) {
        // A stricter limit stays in force.
        let most = rustix::process::getrlimit(resource).maximum.map_or(most, |have| have.min(most));
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).doing(format_args!("limiting {resource:?}"))?;
    }
    Ok(())
}

/// Reads the version of the Landlock interface that the kernel has; an error says why there is none.
pub(crate) fn landlock_version() -> std::io::Result<i64> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no structure and returns a number.
    #[allow(unsafe_code)]
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, VERSION)
    };
    if version > 0 { Ok(version) } else { Err(std::io::Error::last_os_error()) }
}

/// Lets this process read and execute what the jail's root has, write to its null device, and reach nothing of others:
/// neither a TCP port, where it has no network, nor their abstract sockets, nor their processes.
pub(super) fn landlock(spec: &JailSpec) -> Result<()> {
    let failed = |error: &dyn std::error::Error| JailError::new(format!("Landlock failed: {error}"));
    let build = || -> Result<(), Box<dyn std::error::Error>> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?;
        if spec.network == NetworkScope::None {
            rules = rules.handle_access(AccessNet::from_all(LANDLOCK))?;
        }
        let mut rules =
            rules.create()?.add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::from_read(LANDLOCK)))?;
        for device in &spec.view.devices {
            let access = AccessFs::from_file(LANDLOCK) & !AccessFs::Execute;
            rules = rules.add_rule(PathBeneath::new(PathFd::new(device)?, access))?;
        }
        rules.restrict_self()?;
        Ok(())
    };
    build().map_err(|error| failed(&*error))
}

/// Leaves this process no file that it would have to open, and no TCP.
pub(crate) fn landlock_nothing() -> Result<()> {
    let build = || -> Result<(), Box<dyn std::error::Error>> {
        let rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::AbstractUnixSocket)?;
        rules.create()?.restrict_self()?;
        Ok(())
    };
    build().map_err(|error| JailError::new(format!("Landlock failed: {error}")))
}

/// Leaves this process the files below `directories`, its own entry of `/proc` and the null device, and no TCP; of the
/// directories `groups` it may remove an empty one.
pub(crate) fn landlock_directories(
    directories: &[std::path::PathBuf],
    groups: &[std::path::PathBuf],
) -> Result<()> {
    let build = || -> Result<(), Box<dyn std::error::Error>> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .create()?
            .add_rule(PathBeneath::new(PathFd::new("/proc/self")?, AccessFs::from_read(LANDLOCK)))?;
        let null = AccessFs::from_file(LANDLOCK) & !AccessFs::Execute;
        rules = rules.add_rule(PathBeneath::new(PathFd::new("/dev/null")?, null))?;
        for directory in directories {
            let access = AccessFs::from_all(LANDLOCK) & !AccessFs::Execute;
            rules = rules.add_rule(PathBeneath::new(PathFd::new(directory)?, access))?;
        }
        for group in groups {
            let access = AccessFs::ReadDir | AccessFs::RemoveDir;
            rules = rules.add_rule(PathBeneath::new(PathFd::new(group)?, access))?;
        }
        rules.restrict_self()?;
        Ok(())
    };
    build().map_err(|error| JailError::new(format!("Landlock failed: {error}")))
}

/// Puts `filter` on this process, which has one thread.
pub(crate) fn filter(filter: &BpfProgram) -> Result<()> {
    seccompiler::apply_filter(filter)
        .map_err(|error| JailError::new(format!("filtering system calls failed: {error}")))
}

/// Closes every descriptor at or above 3 that is not among `keep`.
///
/// # Errors
/// When the kernel cannot.
pub fn close_all_but(keep: &[RawFd]) -> Result<()> {
    for_gaps(keep, |first, last| {
        // SAFETY: the caller never touches a descriptor again that it did not name.
        #[allow(unsafe_code)]
        unsafe {
            libc::syscall(libc::SYS_close_range, first, last, 0)
        }
    })
}

/// Has every descriptor at or above 3 closed when a program is executed, and those of `keep` not.
pub(super) fn inherit_only(keep: &[RawFd]) -> Result<()> {
    for_gaps(&[], |first, last| {
        // SAFETY: it marks descriptors and closes none.
        #[allow(unsafe_code)]
        unsafe {
            libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC)
        }
    })?;
    for &descriptor in keep {
        let descriptor = borrow(descriptor)?;
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty()).doing("keeping a descriptor")?;
    }
    Ok(())
}

fn for_gaps(keep: &[RawFd], close: impl Fn(u32, u32) -> libc::c_long) -> Result<()> {
    let mut kept: Vec<u32> = keep.iter().map(|&descriptor| descriptor as u32).collect();
    kept.sort_unstable();
    let mut first = 3;
    for descriptor in kept.into_iter().filter(|&descriptor| descriptor >= 3).chain([u32::MAX]) {
        if descriptor > first && close(first, descriptor - 1) != 0 {
            return Err(std::io::Error::last_os_error()).doing("closing descriptors");
        }
        first = descriptor.saturating_add(1);
    }
    Ok(())
}

/// A descriptor that this process was given, checked to be open.
pub(super) fn borrow(descriptor: RawFd) -> Result<BorrowedFd<'static>> {
    // SAFETY: it is checked to be open, and this process closes none of those that it was given by number before it ends.
    #[allow(unsafe_code)]
    let borrowed = unsafe {
        if libc::fcntl(descriptor, libc::F_GETFD) < 0 {
            return Err(JailError::new(format!(
                "descriptor {descriptor}, which the jail names, is not open"
            )));
        }
        BorrowedFd::borrow_raw(descriptor)
    };
    Ok(borrowed)
}
