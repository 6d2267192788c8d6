//! Rights that a process gives up in place once all of its files are open.
//!
//! The shim hears what the guest, QEMU and the user-mode network say, so it is within an attacker's reach. It ends its children
//! and writes to files that it has open; it needs no name of a file, no lock and no right of its starter.

use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;

use crate::confine::require_one_thread;
use crate::error::{JailDoing, JailResult as Result};
use crate::filter;
use crate::report::JailReport;
use crate::spec::JailIdentity;
use crate::stage::{seal, signals};

/// The exceptions to a process's seclusion, besides its open files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seclusion {
    /// Whose process it becomes: a reserved user's where root starts it.
    pub identity: JailIdentity,
    /// Its children: the only processes that it may end or watch.
    pub children: Vec<u32>,
    /// Most bytes that a file may have after a write of this process.
    pub file_size: u64,
}

/// Leaves this process its open files and its children, for good, and says which measures are in force.
///
/// # Errors
/// When the process has more than one thread, whose others would stay as they are, or a measure cannot be taken.
pub fn seclude(seclusion: &Seclusion) -> Result<JailReport> {
    require_one_thread()?;
    // A write beyond the limit is then an error and not the end.
    signals::ignore(libc::SIGXFSZ);
    let most = Some(seclusion.file_size);
    rustix::process::setrlimit(Resource::Fsize, Rlimit { current: most, maximum: most })
        .doing("limiting the size of files")?;
    let filters = filter::secluded_filters(std::process::id(), &seclusion.children)?;
    match seclusion.identity {
        reserved @ JailIdentity::Reserved(_) => {
            seal::become_nobody(reserved, seal::KeptPrivilege::Nothing)?;
        }
        JailIdentity::Own => {
            seal::keep_capabilities(CapabilitySet::empty())?;
            rustix::thread::set_no_new_privs(true).doing("giving up new privileges")?;
        }
    }
    if seal::landlock_version().is_ok() {
        seal::landlock_nothing()?;
    }
    for filter in &filters {
        seal::filter(filter)?;
    }
    Ok(seclusion_measures(seclusion))
}

/// The measures that [`seclude`] takes on this host.
pub fn seclusion_measures(seclusion: &Seclusion) -> JailReport {
    let mut report = JailReport::default();
    report.in_force("environment", "its logging and its settings, nothing else of the starter's");
    seal::report_identity(seclusion.identity, &mut report);
    report.in_force("capabilities", "none");
    report.in_force("no_new_privs", "set");
    match seal::landlock_version() {
        Ok(version) => report.in_force("Landlock", format!("version {version}, no file by its name, no TCP")),
        Err(error) => report.missing_because("Landlock", format!("this kernel does not have it: {error}")),
    }
    report.in_force(
        "system calls",
        "no file by its name, no locks, no sockets, no new processes, no signals but to its children",
    );
    report
}
